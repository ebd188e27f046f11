//! Deliveries into Maildir folders, as mail.maildir(8) makes them, several at once.
//!
//! Each message is written under `tmp/`, synced, renamed into `new/`; the names of each `new/`
//! are synced once for all messages of the batch. A delivery is reported as done only after
//! that, so a message is never lost, and is there twice at worst.
//!
//! Sources: <https://cr.yp.to/proto/maildir.html>; the queue page of the specification, section
//! 5.7. NUL bytes are kept, and the random part of a name has 128 bits instead of 32.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, IoSlice, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::body::{Header, marks_spam};
use super::report::{FAILURE, Failed, TEMPORARY};
use super::sync::{Syncer, Target};

const PROGRAM: &str = "mail.maildir";
/// Rights of every directory made, and of the Maildir itself at every delivery.
const PRIVATE: u32 = 0o700;
/// Replaced by `:` when a sub-address names a folder.
const NOT_IN_FOLDERS: &[u8] = b"!#$%&'*/?^`{|}~";

/// One message for one Maildir.
pub struct Delivery<'a> {
    /// The Maildir, an absolute path.
    pub maildir: &'a Path,
    /// Whether messages marked as spam go to `.Junk`.
    pub junk: bool,
    /// Sub-address: goes to that folder if there is one. Empty for none.
    pub extension: &'a str,
    /// Lines put in front of the message.
    pub prefix: &'a str,
    /// The message.
    pub message: &'a mut dyn BufRead,
}

/// Delivers into Maildirs, for one host name.
#[derive(Debug)]
pub struct Maildirs {
    host: String,
    syncer: Syncer,
}

/// A message in `tmp/`, removed again unless it is published.
struct Pending {
    temporary: PathBuf,
    file: Arc<File>,
    /// The `new/` directory that it is for.
    target: PathBuf,
    name: String,
    published: bool,
}

impl Maildirs {
    /// For file names that end in `host`.
    #[must_use]
    pub fn new(host: &str) -> Self {
        Self { host: host.replace('/', "\\057").replace(':', "\\072"), syncer: Syncer::new() }
    }

    /// Delivers a batch; the answers are in its order, one failure does not touch the others.
    ///
    /// `now` is seconds since 1970; `unique` returns random bytes, fresh ones at every call.
    pub fn deliver(
        &mut self,
        deliveries: &mut [Delivery<'_>],
        now: u64,
        mut unique: impl FnMut() -> [u8; 16],
    ) -> Vec<Result<(), Failed>> {
        let mut folders = Folders::default();
        let pending: Vec<Result<Pending, Failed>> = deliveries
            .iter_mut()
            .map(|delivery| {
                let name = format!("{now}.{:032x}.{}", u128::from_be_bytes(unique()), self.host);
                write(delivery, name, &mut folders)
            })
            .collect();
        let written = self.sync_files(pending);
        self.publish(written)
    }

    fn sync_files(
        &mut self,
        pending: Vec<Result<Pending, Failed>>,
    ) -> Vec<Result<Pending, Failed>> {
        let targets: Vec<_> =
            pending.iter().flatten().map(|p| Target::File(Arc::clone(&p.file))).collect();
        let mut synced = self.syncer.sync(&targets).into_iter();
        pending
            .into_iter()
            .map(|pending| {
                let pending = pending?;
                match synced.next() {
                    Some(Err(error)) => Err(trouble("fsync", &error)),
                    _ => Ok(pending),
                }
            })
            .collect()
    }

    fn publish(&mut self, written: Vec<Result<Pending, Failed>>) -> Vec<Result<(), Failed>> {
        let mut directories: Vec<(PathBuf, Target)> = Vec::new();
        let renamed: Vec<Result<(Pending, usize), Failed>> = written
            .into_iter()
            .map(|pending| {
                let mut pending = pending?;
                let known = directories.iter().position(|(path, _)| *path == pending.target);
                let index = match known {
                    Some(index) => index,
                    None => {
                        let directory = File::open(&pending.target)
                            .map_err(|error| trouble(pending.target.display(), &error))?;
                        let target = Target::Directory(Arc::new(directory));
                        directories.push((pending.target.clone(), target));
                        directories.len() - 1
                    }
                };
                pending.publish()?;
                Ok((pending, index))
            })
            .collect();
        let targets: Vec<_> = directories.into_iter().map(|(_, target)| target).collect();
        let synced = self.syncer.sync(&targets);
        renamed
            .into_iter()
            .map(|renamed| {
                let (pending, index) = renamed?;
                match synced.get(index) {
                    Some(Err(error)) => {
                        pending.withdraw();
                        Err(trouble("fsync", error))
                    }
                    _ => Ok(()),
                }
            })
            .collect()
    }
}

impl Pending {
    fn publish(&mut self) -> Result<(), Failed> {
        fs::rename(&self.temporary, self.target.join(&self.name))
            .map_err(|error| trouble("rename", &error))?;
        self.published = true;
        Ok(())
    }

    /// Takes a message back that will be tried again: nothing says that its name is durable.
    fn withdraw(&self) {
        // Where a reader has moved it already, it stays and may come twice.
        let _ = fs::remove_file(self.target.join(&self.name));
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.published {
            // Left behind at worst in tmp/, which readers clean up.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn trouble(what: impl std::fmt::Display, error: &io::Error) -> Failed {
    let status = if error.kind() == io::ErrorKind::InvalidFilename { FAILURE } else { TEMPORARY };
    Failed::system(status, PROGRAM, what, error)
}

fn write(
    delivery: &mut Delivery<'_>,
    name: String,
    folders: &mut Folders,
) -> Result<Pending, Failed> {
    let main = delivery.maildir;
    if !main.is_absolute() {
        return Err(Failed::new(FAILURE, PROGRAM, "the directory must be an absolute path"));
    }
    folders.ensure(main)?;
    let junk = main.join(".Junk");
    if delivery.junk {
        folders.ensure(&junk)?;
    }
    let temporary = main.join("tmp").join(&name);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(|error| trouble(temporary.display(), &error))?;
    let mut pending =
        Pending { temporary, file: Arc::new(file), target: PathBuf::new(), name, published: false };
    let spam = copy(delivery, &pending.file)?;
    let folder = if delivery.junk && spam {
        junk
    } else {
        extension_folder(main, delivery.extension, folders)?.unwrap_or_else(|| main.to_owned())
    };
    pending.target = folder.join("new");
    Ok(pending)
}

/// Writes the message and tells whether it is marked as spam.
fn copy(delivery: &mut Delivery<'_>, file: &File) -> Result<bool, Failed> {
    let mut header = Header::new();
    let mut spam = false;
    let mut prefix = delivery.prefix.as_bytes();
    loop {
        let chunk = match delivery.message.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(trouble("read", &error)),
        };
        if delivery.junk && !header.ended() {
            header.feed(chunk, |line| spam |= marks_spam(line));
        }
        write_both(file, prefix, chunk).map_err(|error| trouble("write", &error))?;
        prefix = &[];
        let length = chunk.len();
        if length == 0 {
            break;
        }
        delivery.message.consume(length);
    }
    header.finish(|line| spam |= delivery.junk && marks_spam(line));
    Ok(spam)
}

fn write_both(mut file: &File, first: &[u8], second: &[u8]) -> io::Result<()> {
    let mut parts = [IoSlice::new(first), IoSlice::new(second)];
    let mut left = &mut parts[..];
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The existing folder for a sub-address.
fn extension_folder(
    main: &Path,
    extension: &str,
    folders: &mut Folders,
) -> Result<Option<PathBuf>, Failed> {
    let name: String = extension
        .chars()
        .map(|c| if u8::try_from(c).is_ok_and(|b| NOT_IN_FOLDERS.contains(&b)) { ':' } else { c })
        .collect();
    // `.` would name the parent directory.
    if name.is_empty() || name == "." {
        return Ok(None);
    }
    let folder = main.join(format!(".{name}"));
    if !folder.is_dir() {
        return Ok(None);
    }
    folders.ensure(&folder)?;
    Ok(Some(folder))
}

/// Folders that a batch has looked after.
#[derive(Default)]
struct Folders(Vec<PathBuf>);

impl Folders {
    /// Makes what is missing of a folder, and the folder itself private.
    fn ensure(&mut self, folder: &Path) -> Result<(), Failed> {
        if self.0.iter().any(|known| known == folder) {
            return Ok(());
        }
        let failed = |error: io::Error| trouble(folder.display(), &error);
        ensure_directory(folder).map_err(failed)?;
        let rights = fs::metadata(folder).map_err(failed)?.permissions();
        if rights.mode() & 0o7777 != PRIVATE {
            fs::set_permissions(folder, fs::Permissions::from_mode(PRIVATE)).map_err(failed)?;
        }
        for part in ["cur", "new", "tmp"] {
            let part = folder.join(part);
            ensure_directory(&part).map_err(|error| trouble(part.display(), &error))?;
        }
        self.0.push(folder.to_owned());
        Ok(())
    }
}

/// Makes a directory, with its parents, durably.
fn ensure_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let Some(parent) = path.parent() else { return Ok(()) };
    ensure_directory(parent)?;
    match DirBuilder::new().mode(PRIVATE).create(path) {
        // Another delivery made it, or it is no directory, which the next step will say.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => platform::durable::durable_dir(File::open(parent)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mailbox, ReversePath};
    use crate::worker::body::prefix;

    fn names(directory: &Path) -> Vec<String> {
        fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    fn deliver(maildir: &Path, junk: bool, extension: &str, text: &str) -> Result<(), Failed> {
        let mut message = text.as_bytes();
        let mut deliveries =
            [Delivery { maildir, junk, extension, prefix: "", message: &mut message }];
        let mut number = 0;
        let unique = || {
            number += 1;
            [number; 16]
        };
        Maildirs::new("a/b:c").deliver(&mut deliveries, 1_700_000_000, unique).remove(0)
    }

    #[test]
    fn a_message_arrives_whole_under_a_unique_name() {
        // queue cases 126-128
        let home = tempfile::tempdir().unwrap();
        let maildir = home.path().join("a/Maildir");
        let sender = ReversePath::from(Mailbox::parse("s@x").unwrap());
        let prefix = prefix(&sender, &Mailbox::parse("bob@d").unwrap());
        let mut bodies = [&b"Subject: 1\n\n\0x\n"[..], b"", b"no end"];
        let mut deliveries: Vec<Delivery<'_>> = bodies
            .iter_mut()
            .map(|message| Delivery {
                maildir: &maildir,
                junk: false,
                extension: "",
                prefix: &prefix,
                message,
            })
            .collect();
        let mut number = 0;
        let answers = Maildirs::new("a/b:c").deliver(&mut deliveries, 1_700_000_000, || {
            number += 1;
            [number; 16]
        });
        assert_eq!(answers, [Ok(()), Ok(()), Ok(())]);
        for (number, body) in [(1, "Subject: 1\n\n\0x\n"), (2, ""), (3, "no end")] {
            let name = format!("1700000000.{}.a\\057b\\072c", format!("{number:02x}").repeat(16));
            let text = fs::read_to_string(maildir.join("new").join(name)).unwrap();
            assert_eq!(text, format!("Return-Path: <s@x>\nDelivered-To: bob@d\n{body}"));
        }
        assert!(names(&maildir.join("tmp")).is_empty());
        assert_eq!(names(&maildir.join("cur")), Vec::<String>::new());
    }

    #[test]
    fn the_maildir_is_private_after_every_delivery() {
        // queue case 129
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        deliver(home.path(), false, "", "x").unwrap();
        assert_eq!(fs::metadata(home.path()).unwrap().permissions().mode() & 0o7777, 0o700);
        let name = names(&home.path().join("new")).remove(0);
        let file = fs::metadata(home.path().join("new").join(name)).unwrap();
        assert_eq!(file.permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_sub_address_finds_only_a_folder_that_exists() {
        // queue case 130
        let home = tempfile::tempdir().unwrap();
        let maildir = home.path().join("Maildir");
        fs::create_dir_all(maildir.join(".ext:")).unwrap();
        deliver(&maildir, false, "ext/", "x").unwrap();
        deliver(&maildir, false, "other", "x").unwrap();
        deliver(&maildir, false, ".", "x").unwrap();
        assert_eq!(names(&maildir.join(".ext:/new")).len(), 1);
        assert_eq!(names(&maildir.join("new")).len(), 1, "same name, replaced");
        assert_eq!(names(home.path()), ["Maildir"], "nothing beside the Maildir");
    }

    #[test]
    fn spam_goes_to_junk_when_asked() {
        // queue cases 131 and 132
        let cases = [
            ("Subject: a\nX-Spam: Yes\n\n", true, true),
            ("x-spam-flag: YES\n\n", true, true),
            ("X-Spam: yes", true, true),
            ("X-Spam: yes, score\n\n", true, false),
            ("Subject: a\n\nX-Spam: yes\n", true, false),
            ("X-Spam: yes\n\n", false, false),
        ];
        for (text, junk, expected) in cases {
            let home = tempfile::tempdir().unwrap();
            deliver(home.path(), junk, "", text).unwrap();
            assert_eq!(home.path().join(".Junk/cur").exists(), junk, "{text:?}");
            assert_eq!(names(&home.path().join("new")).is_empty(), expected, "{text:?}");
            if expected {
                assert_eq!(names(&home.path().join(".Junk/new")).len(), 1, "{text:?}");
            }
        }
    }

    #[test]
    fn a_failure_is_alone_and_leaves_nothing_in_tmp() {
        struct Broken;
        impl io::Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let home = tempfile::tempdir().unwrap();
        let (good, blocked) = (home.path().join("good"), home.path().join("blocked"));
        fs::write(&blocked, "a file").unwrap();
        let mut broken = io::BufReader::new(Broken);
        let (mut one, mut two, mut three) = (&b"1"[..], &b"2"[..], &b"3"[..]);
        let delivery = |maildir, message| Delivery {
            maildir,
            junk: false,
            extension: "",
            prefix: "",
            message,
        };
        let mut deliveries = [
            delivery(&good, &mut one),
            delivery(&blocked, &mut two),
            delivery(&good, &mut broken),
            delivery(Path::new("relative"), &mut three),
        ];
        let mut number = 0;
        let answers = Maildirs::new("h").deliver(&mut deliveries, 1, || {
            number += 1;
            [number; 16]
        });
        let statuses: Vec<u8> =
            answers.iter().map(|a| a.as_ref().map_or_else(|e| e.status, |()| 0)).collect();
        assert_eq!(statuses, [0, TEMPORARY, TEMPORARY, FAILURE], "{answers:?}");
        assert_eq!(names(&good.join("new")).len(), 1);
        assert!(names(&good.join("tmp")).is_empty());
    }
}
