//! How an envelope is written in the store: one version byte, then the envelope in postcard.

use crate::model::Envelope;

/// First byte of a record. A record with another one was written by another version.
const VERSION: u8 = 1;

/// Why a stored envelope cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// The bytes are not an envelope.
    #[error("the envelope does not decode")]
    Damaged,
    /// Another version wrote it.
    #[error("the envelope was written by another version")]
    Version,
}

/// The bytes that stand for `envelope`.
///
/// # Errors
/// Never for an envelope that was made of parsed values.
pub fn encode(envelope: &Envelope) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_extend(envelope, vec![VERSION])
}

/// The envelope that `bytes` stand for.
///
/// # Errors
/// They stand for none.
pub fn decode(bytes: &[u8]) -> Result<Envelope, RecordError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((envelope, [])) => Ok(envelope),
            _ => Err(RecordError::Damaged),
        },
        Some(_) => Err(RecordError::Version),
        None => Err(RecordError::Damaged),
    }
}
