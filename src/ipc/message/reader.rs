//! Between lookup and reader: `.forward` files and included lists.
//!
//! A reader is a worker that reads for one identity and does nothing else. Lookup names a home or a
//! list; what may be read is decided by the ids of the reader.

use serde::{Deserialize, Serialize};

use crate::ipc::blob::Blob;

/// For whom a reader reads: whose ids it takes.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Reads {
    /// The daemon's own account: lists that aliases include.
    Daemon,
    /// An entry of a userbase, which names no account of the system; never user 0.
    Entry {
        /// User id.
        uid: u32,
        /// Its only group.
        gid: u32,
    },
    /// An account of the system, by its name: parent looks the ids up.
    System(String),
}

/// What lookup asks a reader.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum LookupToReader {
    /// The `.forward` in a home (answered by [`ReaderToLookup::Forward`]).
    Forward {
        /// Path of the home directory.
        home: String,
    },
    /// A piece of an included list (answered by [`ReaderToLookup::Include`]).
    Include {
        /// Its absolute path.
        path: String,
        /// Where the piece begins, in bytes.
        offset: u64,
    },
}

/// What a reader answers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum ReaderToLookup {
    /// What became of a `.forward`.
    Forward(ForwardFile),
    /// What became of a list.
    Include(IncludePiece),
}

/// What a user's `.forward` is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ForwardFile {
    /// There is none, or no home.
    Absent,
    /// It is not known, for this reason: temporary.
    Failed(String),
    /// It may not be used, for this reason: permanent.
    Refused(String),
    /// Its text, shorter than [`FORWARD_FILE`](crate::model::limits::FORWARD_FILE).
    Text(Blob),
    /// It is larger: temporary, since its owner can mend it.
    TooLarge,
}

/// A piece of an included list.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum IncludePiece {
    /// It is not known, for this reason: temporary.
    Failed(String),
    /// It cannot be opened, for this reason: it counts as not there.
    Missing(String),
    /// Bytes of it; fewer than [`INCLUDED_PIECE`](crate::model::limits::INCLUDED_PIECE) at its end.
    Piece {
        /// The bytes.
        bytes: Blob,
        /// The state of the file. Pieces of different states do not belong together.
        version: Version,
    },
    /// It is larger than [`INCLUDED_LIST`](crate::model::limits::INCLUDED_LIST): temporary.
    TooLarge,
}

/// What changes whenever a file does.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Version {
    /// Number of the file on its device.
    pub inode: u64,
    /// Length, in bytes.
    pub length: u64,
    /// Time of its last change, in nanoseconds of the system's clock.
    pub modified: i128,
}
