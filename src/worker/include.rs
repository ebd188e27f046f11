//! Lists that aliases include, read a piece at a time by whoever may read them.
//!
//! Each piece is a request of its own, and the file is opened anew for it: nothing is kept between
//! two, and a file that changes in between is seen by its [`Version`].

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use platform::fd::{OPEN_NONBLOCK, is_passing};

use crate::ipc::blob::Blob;
use crate::ipc::message::reader::{IncludePiece, Version};
use crate::model::limits::{INCLUDED_LIST, INCLUDED_PIECE};

/// Reads the piece of the file at `path` that begins at `offset`.
#[must_use]
pub fn read(path: &Path, offset: u64) -> IncludePiece {
    let opened = OpenOptions::new().read(true).custom_flags(OPEN_NONBLOCK).open(path);
    let opened = opened.and_then(|file| file.metadata().map(|found| (file, found)));
    let (file, found) = match opened {
        Ok((file, found)) if found.is_file() => (file, found),
        Ok(_) => return IncludePiece::Missing("not a regular file".to_owned()),
        Err(error) if is_passing(&error) => return IncludePiece::Failed(error.to_string()),
        Err(error) => return IncludePiece::Missing(error.to_string()),
    };
    if found.len() > INCLUDED_LIST as u64 {
        return IncludePiece::TooLarge;
    }
    match piece(&file, offset) {
        Ok(bytes) => IncludePiece::Piece { bytes: Blob(bytes), version: version(&found) },
        Err(error) => IncludePiece::Failed(error.to_string()),
    }
}

fn version(found: &Metadata) -> Version {
    let modified = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
    Version { inode: found.ino(), length: found.len(), modified }
}

fn piece(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; INCLUDED_PIECE];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_list_comes_in_pieces_of_one_version() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        let text: Vec<u8> = (0..=255).cycle().take(INCLUDED_PIECE + 1000).collect();
        fs::write(&path, &text).unwrap();
        let IncludePiece::Piece { bytes, version } = read(&path, 0) else { panic!("no piece") };
        assert_eq!(bytes.0, text[..INCLUDED_PIECE]);
        let rest = read(&path, INCLUDED_PIECE as u64);
        assert_eq!(
            rest,
            IncludePiece::Piece { bytes: Blob(text[INCLUDED_PIECE..].into()), version }
        );
        fs::write(&path, "changed").unwrap();
        let IncludePiece::Piece { version: later, .. } = read(&path, 0) else { panic!("no piece") };
        assert_ne!(version, later);
    }

    #[test]
    fn what_is_no_file_counts_as_missing_and_a_large_one_as_too_large() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        assert!(matches!(read(&path, 0), IncludePiece::Missing(_)));
        assert!(matches!(read(directory.path(), 0), IncludePiece::Missing(_)));
        File::create(&path).unwrap().set_len(INCLUDED_LIST as u64 + 1).unwrap();
        assert_eq!(read(&path, 0), IncludePiece::TooLarge);
        File::create(&path).unwrap().set_len(INCLUDED_LIST as u64).unwrap();
        assert!(matches!(read(&path, 0), IncludePiece::Piece { .. }));
    }
}
