//! Which server is meant: the system's, or one that keeps everything under a directory.
//!
//! An option counts always. The variable `PILLARBOX_STATE` counts only where nobody can be led
//! astray by it: not for root, not for a program with rights that its caller lacks, and only for a
//! directory that belongs to the caller and that nobody else may write.
//!
//! Source: the design of `--state`; smtpctl(8), section ENVIRONMENT.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// The variable that names the directory.
pub const VARIABLE: &str = "PILLARBOX_STATE";

/// Permission bits by which somebody else may write a directory.
const OTHERS_WRITE: u32 = 0o022;

/// Who runs the program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Whether real and effective ids are the same.
    pub ids_agree: bool,
}

/// Owner and permission bits of a directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Directory {
    /// User id of the owner.
    pub owner: u32,
    /// Permission bits.
    pub mode: u32,
}

/// Why the variable does not count, although it could.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Somebody else could have put anything there.
    #[error("{VARIABLE}: {} is not yours alone", .0.display())]
    NotYours(PathBuf),
    /// The directory cannot be looked at.
    #[error("{VARIABLE}: {}: {error}", .path.display())]
    Unknown {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// The directory of the server that is meant; `None` for the system's server.
///
/// `option` is the value of `--state`, `variable` that of [`VARIABLE`]; `look` tells what the
/// directory at a path is.
///
/// # Errors
/// The variable names a directory that is not to be trusted. Falling back to another server would
/// send mail where it was not meant to go.
pub fn directory(
    option: Option<PathBuf>,
    variable: Option<OsString>,
    caller: Caller,
    look: impl FnOnce(&Path) -> io::Result<Directory>,
) -> Result<Option<PathBuf>, StateError> {
    if option.is_some() {
        return Ok(option);
    }
    let Some(path) = variable.filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    if caller.uid == 0 || !caller.ids_agree {
        return Ok(None);
    }
    match look(&path) {
        Ok(found) if found.owner == caller.uid && found.mode & OTHERS_WRITE == 0 => Ok(Some(path)),
        Ok(_) => Err(StateError::NotYours(path)),
        Err(error) => Err(StateError::Unknown { path, error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Caller = Caller { uid: 1000, ids_agree: true };

    fn named(
        option: Option<&str>,
        variable: Option<&str>,
        caller: Caller,
        found: Directory,
    ) -> Result<Option<PathBuf>, String> {
        let look = |_: &Path| Ok(found);
        directory(option.map(PathBuf::from), variable.map(OsString::from), caller, look)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_variable_counts_only_where_it_is_harmless() {
        let own = Directory { owner: 1000, mode: 0o755 };
        let state = Ok(Some(PathBuf::from("/s")));
        assert_eq!(named(None, Some("/s"), ALICE, own), state);
        assert_eq!(named(None, None, ALICE, own), Ok(None));
        assert_eq!(named(None, Some(""), ALICE, own), Ok(None));
        for caller in [Caller { uid: 0, ..ALICE }, Caller { ids_agree: false, ..ALICE }] {
            let own = Directory { owner: caller.uid, mode: 0o700 };
            assert_eq!(named(None, Some("/s"), caller, own), Ok(None));
            assert_eq!(named(Some("/s"), Some("/t"), caller, own), state);
        }
        for found in [
            Directory { owner: 1001, mode: 0o755 },
            Directory { owner: 0, mode: 0o755 },
            Directory { owner: 1000, mode: 0o775 },
            Directory { owner: 1000, mode: 0o1757 },
        ] {
            let error = Err("PILLARBOX_STATE: /s is not yours alone".to_owned());
            assert_eq!(named(None, Some("/s"), ALICE, found), error);
            assert_eq!(named(Some("/t"), Some("/s"), ALICE, found), Ok(Some("/t".into())));
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let look = |_: &Path| Err(io::ErrorKind::NotFound.into());
        let result = directory(None, Some("/s".into()), ALICE, look);
        assert!(matches!(result, Err(StateError::Unknown { .. })));
    }
}
