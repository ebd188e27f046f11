//! Where records of TLS end on a stream (RFC 8446, section 5.1; RFC 5246, section 6.2.1).
//!
//! A handshake costs thread time only for whole records: who sends a byte a second waits alone. And
//! no byte is taken from the stream that does not belong to a record.

/// Length of a record's header.
const HEADER: usize = 5;
/// Longest payload of a record: 16 KiB, and what encryption adds at most.
const PAYLOAD: usize = 16 * 1024 + 2048;
/// Types of records: change_cipher_spec, alert, handshake, application_data, heartbeat.
const TYPES: std::ops::RangeInclusive<u8> = 20..=24;
/// First byte of the version, of every version since SSL 3.
const MAJOR: u8 = 3;

/// What comes next on the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expected {
    /// At least so many bytes more, which are all of this record or of its header.
    More(usize),
    /// Nothing: there is a whole record.
    Record,
}

/// The bytes are no TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("what was received is not TLS")]
pub struct NotTls;

/// What is missing of the record that `received` begins with; `received` holds no more than it.
///
/// # Errors
/// No record begins so.
pub fn expected(received: &[u8]) -> Result<Expected, NotTls> {
    let kind = received.first();
    let major = received.get(1);
    if kind.is_some_and(|kind| !TYPES.contains(kind)) || major.is_some_and(|major| *major != MAJOR)
    {
        return Err(NotTls);
    }
    let Some((&[_, _, _, high, low], payload)) = received.split_first_chunk::<HEADER>() else {
        return Ok(Expected::More(HEADER - received.len()));
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length == 0 || length > PAYLOAD {
        return Err(NotTls);
    }
    match length.saturating_sub(payload.len()) {
        0 => Ok(Expected::Record),
        missing => Ok(Expected::More(missing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_complete_when_its_header_says_so() {
        let more = |count| Ok(Expected::More(count));
        let cases: [(&[u8], Result<Expected, NotTls>); 12] = [
            (b"", more(5)),
            (b"\x16", more(4)),
            (b"\x16\x03\x01\x00", more(1)),
            (b"\x16\x03\x01\x00\x02", more(2)),
            (b"\x16\x03\x01\x00\x02a", more(1)),
            (b"\x16\x03\x01\x00\x02ab", Ok(Expected::Record)),
            (b"\x17\x03\x03\x48\x00", more(0x4800)),
            (b"\x17\x03\x03\x48\x01", Err(NotTls)),
            (b"\x16\x03\x01\x00\x00", Err(NotTls)),
            (b"E", Err(NotTls)),
            (b"\x16H", Err(NotTls)),
            (b"\x80\x2e", Err(NotTls)),
        ];
        for (received, found) in cases {
            assert_eq!(expected(received), found, "{received:?}");
        }
    }
}
