//! The message body of a delivery, as it is stored. How it looks on the wire:
//! [`crate::proto::stuffing`].

use std::fs::File;
use std::sync::Arc;

/// Bytes read from a file at once.
pub const BLOCK: usize = 64 * 1024;

/// A message as stored, headers included.
#[derive(Clone, Debug)]
pub enum Body {
    /// In a file, read by position: `size` bytes from its start.
    File {
        /// The open file; its position is neither used nor moved.
        file: Arc<File>,
        /// Length in bytes.
        size: u64,
    },
    /// In memory.
    Memory(Arc<[u8]>),
}

impl Body {
    /// Length as stored, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::File { size, .. } => *size,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }
}
