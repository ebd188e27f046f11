//! Edits a `mailer.conf` on the disk: whole or not at all, with owner and mode as they were.
//!
//! An access control list beyond the permission bits is not carried over.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::block::{self, DamagedBlock};
use crate::mailer_conf::MAX_FILE;

/// Mode of a file that is made.
const NEW_MODE: u32 = 0o644;
/// Unchanged lines shown around a change.
const CONTEXT: usize = 3;

/// What to do to the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Edit {
    /// Put the block in that leads to this program.
    Install(PathBuf),
    /// Take the block out.
    Remove,
}

/// Why a file was not edited; it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// Its block is damaged.
    #[error("{}: {error}", .path.display())]
    Block {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: DamagedBlock,
    },
    /// The system says no.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Longer than any such file.
    #[error("{}: longer than {MAX_FILE} bytes", .0.display())]
    TooLong(PathBuf),
}

/// Edits the file at `path`, or the one that a symbolic link there names.
///
/// With `dry_run` nothing is written. The answer is the change as a unified diff; empty if there is
/// none, and then the file was not written.
///
/// # Errors
/// The file was not edited.
pub fn apply(path: &Path, edit: &Edit, dry_run: bool) -> Result<String, EditError> {
    let io = |error| EditError::Io { path: path.to_owned(), error };
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(io(error)),
    };
    let original = match fs::metadata(&target) {
        Ok(found) if found.len() > MAX_FILE => return Err(EditError::TooLong(target)),
        Ok(_) => Some(fs::read(&target).map_err(io)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io(error)),
    };
    let edited = match (edit, &original) {
        (Edit::Install(program), original) => {
            block::install(original.as_deref(), program).map(Some)
        }
        (Edit::Remove, Some(original)) => block::remove(original),
        (Edit::Remove, None) => Ok(None),
    };
    let edited = edited.map_err(|error| EditError::Block { path: target.clone(), error })?;
    if edited == original {
        return Ok(String::new());
    }
    let shown = diff(path, original.as_deref(), edited.as_deref());
    if dry_run {
        return Ok(shown);
    }
    if let (Edit::Install(_), Some(original)) = (edit, &original) {
        back_up(&target, original).map_err(io)?;
    }
    match edited {
        Some(content) => replace(&target, &content).map_err(io)?,
        None => fs::remove_file(&target).map_err(io)?,
    }
    Ok(shown)
}

/// Keeps the file as it was before the first edit, as `.NAME.orig` beside it.
fn back_up(target: &Path, original: &[u8]) -> io::Result<()> {
    let backup = beside(target, ".orig");
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&backup) {
        Ok(mut file) => {
            file.write_all(original)?;
            like(target, &file, &backup)?;
            file.sync_all()
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn replace(target: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = beside(target, &format!(".{}", std::process::id()));
    let replaced = write_new(target, &temporary, content)
        .and_then(|()| fs::rename(&temporary, target))
        .and_then(|()| File::open(directory(target))?.sync_all());
    if replaced.is_err() {
        // Why it was not replaced is what counts.
        let _gone = fs::remove_file(&temporary);
    }
    replaced
}

fn write_new(target: &Path, temporary: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(content)?;
    like(target, &file, temporary)?;
    file.sync_all()
}

/// Gives a new file the owner and mode of `target`, or those of a file that is made.
fn like(target: &Path, file: &File, path: &Path) -> io::Result<()> {
    let mode = match fs::metadata(target) {
        Ok(found) => {
            let own = file.metadata()?;
            if (found.uid(), found.gid()) != (own.uid(), own.gid()) {
                chown(path, Some(found.uid()), Some(found.gid()))?;
            }
            found.mode() & 0o7777
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => NEW_MODE,
        Err(error) => return Err(error),
    };
    file.set_permissions(fs::Permissions::from_mode(mode))
}

fn directory(target: &Path) -> &Path {
    target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(suffix);
    directory(target).join(name)
}

/// The change as a unified diff with one hunk: an edit changes one stretch of lines.
fn diff(path: &Path, before: Option<&[u8]>, after: Option<&[u8]>) -> String {
    let lines = |content: Option<&[u8]>| -> Vec<String> {
        let content = String::from_utf8_lossy(content.unwrap_or_default()).into_owned();
        content.split_inclusive('\n').map(str::to_owned).collect()
    };
    let (old, new) = (lines(before), lines(after));
    let same_start = old.iter().zip(&new).take_while(|(one, other)| one == other).count();
    let longest_end = old.len().min(new.len()) - same_start;
    let pairs = old.iter().rev().zip(new.iter().rev());
    let same_end = pairs.take(longest_end).take_while(|(one, other)| one == other).count();
    let first = same_start.saturating_sub(CONTEXT);
    let tail = same_end.min(CONTEXT);
    let (old_end, new_end) = (old.len() - same_end, new.len() - same_end);
    let name = |there: bool| {
        if there { path.display().to_string() } else { "/dev/null".to_owned() }
    };
    let range = |end: usize| {
        let length = end + tail - first;
        format!("{},{length}", if length == 0 { 0 } else { first + 1 })
    };
    let mut shown = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(shown, "--- {}\n+++ {}", name(before.is_some()), name(after.is_some()));
    let _ = writeln!(shown, "@@ -{} +{} @@", range(old_end), range(new_end));
    let parts = [
        (' ', old.get(first..same_start)),
        ('-', old.get(same_start..old_end)),
        ('+', new.get(same_start..new_end)),
        (' ', old.get(old_end..old_end + tail)),
    ];
    for (mark, lines) in parts {
        for line in lines.unwrap_or_default() {
            shown.push(mark);
            shown.push_str(line);
            if !line.ends_with('\n') {
                shown.push_str("\n\\ No newline at end of file\n");
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install() -> Edit {
        Edit::Install(PathBuf::from("/usr/sbin/smtpctl"))
    }

    #[test]
    fn a_file_is_edited_once_and_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mailer.conf");
        let original = "sendmail /usr/libexec/dma\nlast \\";
        fs::write(&path, original).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(apply(&path, &install(), true).unwrap().contains("+sendmail\t/usr/sbin/smtpctl"));
        assert_eq!(fs::read_to_string(&path).unwrap(), original);

        apply(&path, &install(), false).unwrap();
        let edited = fs::metadata(&path).unwrap();
        assert_eq!(edited.mode() & 0o777, 0o640);
        assert_eq!(apply(&path, &install(), false).unwrap(), "");
        assert_eq!(fs::metadata(&path).unwrap().ino(), edited.ino());
        let backup = directory.path().join(".mailer.conf.orig");
        assert_eq!(fs::read_to_string(backup).unwrap(), original);

        apply(&path, &Edit::Remove, false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), original);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_missing_file_is_made_and_removed_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mailer.conf");
        assert_eq!(apply(&path, &Edit::Remove, false).unwrap(), "");
        apply(&path, &install(), false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, NEW_MODE);
        apply(&path, &Edit::Remove, false).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_target_of_a_link_is_edited_and_the_link_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("real"), directory.path().join("mailer.conf"));
        fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        apply(&link, &install(), false).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&path).unwrap().contains("smtpctl"));
    }

    #[test]
    fn what_cannot_be_edited_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mailer.conf");
        fs::write(&path, "x".repeat(MAX_FILE as usize + 1)).unwrap();
        assert!(matches!(apply(&path, &install(), false), Err(EditError::TooLong(_))));
        fs::write(&path, "# pillarbox mailer.conf block 1: end\n").unwrap();
        let error = apply(&path, &install(), false).unwrap_err().to_string();
        assert!(error.ends_with("a block ends in line 1 and begins nowhere"), "{error}");
    }

    #[test]
    fn a_change_is_shown_with_its_surroundings() {
        let shown = diff(Path::new("f"), Some(b"a\nb\nc\nd\n"), Some(b"x\na\nb\nc\nd\n"));
        assert_eq!(shown, "--- f\n+++ f\n@@ -1,3 +1,4 @@\n+x\n a\n b\n c\n");
        let shown = diff(Path::new("f"), None, Some(b"x\n"));
        assert_eq!(shown, "--- /dev/null\n+++ f\n@@ -0,0 +1,1 @@\n+x\n");
        let shown = diff(Path::new("f"), Some(b"x\na"), Some(b"a"));
        let expected = "--- f\n+++ f\n@@ -1,2 +1,1 @@\n-x\n a\n\\ No newline at end of file\n";
        assert_eq!(shown, expected);
    }
}
