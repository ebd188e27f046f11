//! The `.forward` of a user: whether it may be used, and its text.
//!
//! Everything is looked at under the user's own ids, so that what the user may not read is not
//! read, and a link or a name that changes in between leads nowhere new. What the text means is
//! not known here.
//!
//! Source: forward(5); the table in `docs/expansion.md`.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use platform::fd::{OPEN_NO_FOLLOW, OPEN_NONBLOCK, is_passing};

use crate::ipc::blob::Blob;
use crate::ipc::message::reader::ForwardFile;
use crate::model::limits::FORWARD_FILE;

/// Name of the file in the home.
const NAME: &str = ".forward";
/// Mode of a directory from which only owners remove files.
const STICKY: u32 = 0o1000;
/// Writing by group or others.
const WRITABLE: u32 = 0o022;

/// Reads the `.forward` in `home`, which must belong to `uid`.
#[must_use]
pub fn read(home: &Path, uid: u32) -> ForwardFile {
    let directory = match fs::metadata(home) {
        Ok(directory) => directory,
        Err(error) if error.kind() == ErrorKind::NotFound => return ForwardFile::Absent,
        // The directories above are not this user's to open.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return ForwardFile::Failed(format!("{}: {error}", home.display()));
        }
        Err(error) => return trouble(home, &error),
    };
    if directory.mode() & STICKY != 0 {
        return ForwardFile::Failed(format!("{}: the directory is sticky", home.display()));
    }
    let path = home.join(NAME);
    let flags = OPEN_NO_FOLLOW | OPEN_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return ForwardFile::Absent,
        Err(error) => return trouble(&path, &error),
    };
    match file.metadata() {
        Ok(found) if is_secure(&found, &directory, uid) => {}
        Ok(_) => return ForwardFile::Refused(format!("{}: insecure file", path.display())),
        Err(error) => return trouble(&path, &error),
    }
    match text(file) {
        Ok(text) if text.len() >= FORWARD_FILE => ForwardFile::TooLarge,
        Ok(text) => ForwardFile::Text(Blob(text)),
        Err(error) => ForwardFile::Failed(format!("{}: {error}", path.display())),
    }
}

/// Whether nobody but `uid`, or root for the directory, can have written the file.
fn is_secure(file: &Metadata, directory: &Metadata, uid: u32) -> bool {
    let only_owner = |found: &Metadata| found.permissions().mode() & WRITABLE == 0;
    file.is_file()
        && file.uid() == uid
        && only_owner(file)
        && (directory.uid() == uid || directory.uid() == 0)
        && only_owner(directory)
}

/// What an error says about a file that is there.
fn trouble(path: &Path, error: &io::Error) -> ForwardFile {
    let reason = format!("{}: {error}", path.display());
    if is_passing(error) { ForwardFile::Failed(reason) } else { ForwardFile::Refused(reason) }
}

/// As much of the file as shows whether it is too large.
fn text(file: File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(FORWARD_FILE as u64).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use platform::privilege::effective_uid;

    use super::*;
    use crate::spec_case;

    /// What a case does to a home and the file in it.
    type Change = fn(&Path, &PathBuf);

    /// A home with a `.forward` that says `bob`, and what a case does to it first.
    fn verdict(change: impl FnOnce(&Path, &PathBuf)) -> ForwardFile {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(NAME);
        mode(home.path(), 0o755);
        fs::write(&path, "bob\n").unwrap();
        mode(&path, 0o644);
        change(home.path(), &path);
        let verdict = read(home.path(), effective_uid());
        mode(home.path(), 0o755);
        verdict
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn is_refused(verdict: &ForwardFile, why: &str) -> bool {
        matches!(verdict, ForwardFile::Refused(reason) if reason.ends_with(why))
    }

    #[test]
    fn a_file_that_only_its_owner_may_write_is_read() {
        let bob = ForwardFile::Text(Blob(b"bob\n".to_vec()));
        assert_eq!(verdict(|_, _| ()), bob);
        assert_eq!(verdict(|home, path| (mode(path, 0o600), mode(home, 0o700)).0), bob);
        // A home behind a link is looked at where it really is.
        let linked = |home: &Path, _: &PathBuf| {
            let link = home.join("link");
            symlink(home, &link).unwrap();
            assert_eq!(read(&link, effective_uid()), bob);
        };
        verdict(linked);
    }

    #[test]
    fn what_somebody_else_could_have_written_is_refused() {
        let insecure = "insecure file";
        let cases: [(&str, Change); 5] = [
            ("the group may write it", |_, path| mode(path, 0o664)),
            ("everyone may write it", |_, path| mode(path, 0o646)),
            ("a directory", |_, path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            }),
            ("a socket or pipe", |_, path| {
                fs::remove_file(path).unwrap();
                nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
            }),
            ("the group may write into the home", |home, _| mode(home, 0o775)),
        ];
        for (name, change) in cases {
            let verdict = verdict(change);
            assert!(is_refused(&verdict, insecure), "{name}: {verdict:?}");
        }
        // Owned by somebody else, root among them.
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(NAME), "bob").unwrap();
        let verdict = read(home.path(), effective_uid().wrapping_add(1));
        assert!(is_refused(&verdict, insecure), "{verdict:?}");
        spec_case::ran("config", 230);
    }

    #[test]
    fn a_link_is_refused() {
        let verdict = verdict(|home, path| {
            let real = home.join("real");
            fs::rename(path, &real).unwrap();
            symlink(&real, path).unwrap();
        });
        assert!(matches!(verdict, ForwardFile::Refused(_)), "{verdict:?}");
        spec_case::ran("config", 231);
    }

    #[test]
    fn a_sticky_home_and_a_large_file_are_temporary() {
        let sticky = verdict(|home, _| mode(home, 0o1755));
        assert!(matches!(&sticky, ForwardFile::Failed(reason) if reason.ends_with("sticky")));
        spec_case::ran("config", 232);
        let large =
            |length: usize| verdict(move |_, path| fs::write(path, "#".repeat(length)).unwrap());
        assert_eq!(large(4096), ForwardFile::TooLarge);
        assert!(matches!(large(4095), ForwardFile::Text(text) if text.0.len() == 4095));
    }

    #[test]
    fn without_a_file_or_a_home_there_is_none() {
        assert_eq!(verdict(|_, path| fs::remove_file(path).unwrap()), ForwardFile::Absent);
        // Nor does a home that others may write matter then.
        let open = |home: &Path, path: &PathBuf| {
            fs::remove_file(path).unwrap();
            mode(home, 0o777);
        };
        assert_eq!(verdict(open), ForwardFile::Absent);
        for home in ["/nonexistent/home", ""] {
            assert_eq!(read(Path::new(home), effective_uid()), ForwardFile::Absent);
        }
        assert_eq!(
            verdict(|_, path| fs::write(path, "").unwrap()),
            ForwardFile::Text(Blob::default())
        );
        // A home that is a file is a mistake, not a missing one.
        let file = tempfile::NamedTempFile::new().unwrap();
        let verdict = read(file.path(), effective_uid());
        assert!(matches!(verdict, ForwardFile::Refused(_)), "{verdict:?}");
    }
}
