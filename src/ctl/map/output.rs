//! A map takes the place of another as a whole, or not at all.
//!
//! It is written under another name in the same directory, given owner and mode of its source, synced
//! and renamed. Whoever has the old one open keeps it; who opens the name gets one or the other.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;

use crate::table::map::{self, MapError};

/// Characters of the name that a map has while it is written, after its own.
const SUFFIX_LENGTH: usize = 11;
/// Mode of a map without a source file, and of any while it is written.
const PRIVATE: u32 = 0o600;

/// Why a map could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Owner and mode of the source cannot be given to it.
    #[error("couldn't carry ownership and perms to {path}: {error}")]
    Ownership {
        /// The map.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// Anything else.
    #[error("{path}: {error}")]
    Write {
        /// The map.
        path: String,
        /// What went wrong.
        error: MapError,
    },
}

/// Puts a map with these entries at `path`. It gets owner and mode of the source, `like`; without one
/// it is for its owner alone.
///
/// # Errors
/// What was there before is untouched.
pub fn replace(
    path: &Path,
    entries: &BTreeMap<String, String>,
    like: Option<&Metadata>,
) -> Result<(), OutputError> {
    let shown = || path.display().to_string();
    let failed = |error: MapError| OutputError::Write { path: shown(), error };
    let unwritten = |error: io::Error| failed(error.into());
    let mut draft = Draft::beside(path).map_err(unwritten)?;
    let storage = draft.file.try_clone().map_err(unwritten)?;
    let storage = FileBackend::new(storage).map_err(|error| unwritten(io::Error::other(error)))?;
    let pairs = entries.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    map::write(storage, pairs).map_err(failed)?;
    if let Some(like) = like {
        copy_ownership(&draft.file, like)
            .map_err(|error| OutputError::Ownership { path: shown(), error })?;
    }
    draft.take_place_of(path).map_err(unwritten)
}

fn copy_ownership(file: &File, like: &Metadata) -> io::Result<()> {
    let found = file.metadata()?;
    if (found.uid(), found.gid()) != (like.uid(), like.gid()) {
        fchown(file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(like.mode() & 0o7777))
}

/// A file that goes away unless it takes its place.
struct Draft {
    path: PathBuf,
    file: File,
    keep: bool,
}

impl Draft {
    fn beside(path: &Path) -> io::Result<Self> {
        let mut name = OsString::from(path);
        name.push(".");
        name.push(random_letters()?);
        let path = PathBuf::from(name);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(PRIVATE).open(&path)?;
        Ok(Self { path, file, keep: false })
    }

    fn take_place_of(&mut self, path: &Path) -> io::Result<()> {
        platform::durable::durable(&self.file)?;
        fs::rename(&self.path, path)?;
        self.keep = true;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        platform::durable::durable_dir(File::open(directory)?)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.keep {
            // What it is left for is the error that is told.
            let _left = fs::remove_file(&self.path);
        }
    }
}

fn random_letters() -> io::Result<String> {
    let mut bytes = [0; SUFFIX_LENGTH];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes.iter().map(|byte| char::from(b'a' + byte % 26)).collect())
}
