//! Where records of TLS end on a stream (RFC 8446, section 5.1; RFC 5246, section 6.2.1), and what they
//! cost.
//!
//! A handshake costs thread time only for whole records: who sends a byte a second waits alone.

use rustls::ProtocolVersion;

/// Length of a record's header.
const HEADER: usize = 5;
/// Longest payload of a record: 16 KiB, and what encryption adds at most.
const PAYLOAD: usize = 16 * 1024 + 2048;
/// Types of records: change_cipher_spec, alert, handshake, application_data, heartbeat.
const TYPES: std::ops::RangeInclusive<u8> = 20..=24;
/// What is behind it is encrypted, in TLS 1.2 (RFC 5246, section 7.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
/// Messages of a handshake in clear text.
const HANDSHAKE: u8 = 22;
/// First byte of the version, of every version since SSL 3.
const MAJOR: u8 = 3;

/// The bytes are no TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("what was received is not TLS")]
pub struct NotTls;

/// The record that `received` begins with; `None` while it is not whole.
///
/// # Errors
/// No record begins so.
pub fn first(received: &[u8]) -> Result<Option<&[u8]>, NotTls> {
    let kind = received.first();
    let major = received.get(1);
    if kind.is_some_and(|kind| !TYPES.contains(kind)) || major.is_some_and(|major| *major != MAJOR)
    {
        return Err(NotTls);
    }
    let Some(&[_, _, _, high, low]) = received.first_chunk::<HEADER>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length == 0 || length > PAYLOAD {
        return Err(NotTls);
    }
    Ok(received.get(..HEADER + length))
}

/// The records that `received` begins with, as far as they are whole.
pub fn all(received: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = received;
    std::iter::from_fn(move || {
        let record = first(rest).ok().flatten()?;
        rest = rest.get(record.len()..).unwrap_or_default();
        Some(record)
    })
}

/// Whether a server deals with these records of a client without a key, or anything else that takes
/// long: what comes encrypted at the end of a handshake. `version` is the one that was agreed on, if one
/// was; `verifies` says that a certificate is asked for, whose check takes long.
#[must_use]
pub fn is_light(records: &[u8], version: Option<ProtocolVersion>, verifies: bool) -> bool {
    let mut kinds = all(records).filter_map(|record| record.first().copied());
    match version {
        // Certificate and key exchange come in clear text before it.
        Some(ProtocolVersion::TLSv1_2) => kinds.next() == Some(CHANGE_CIPHER_SPEC),
        // In clear text there is a second ClientHello at most. The certificate comes encrypted.
        Some(ProtocolVersion::TLSv1_3) => !verifies && kinds.all(|kind| kind != HANDSHAKE),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a record is, if it is whole.
    type Length = Result<Option<usize>, NotTls>;

    #[test]
    fn a_record_is_whole_when_its_header_says_so() {
        let longest = [&b"\x17\x03\x03\x48\x00"[..], &[0; 0x4800]].concat();
        let cases: [(&[u8], Length); 13] = [
            (b"", Ok(None)),
            (b"\x16", Ok(None)),
            (b"\x16\x03\x01\x00", Ok(None)),
            (b"\x16\x03\x01\x00\x02", Ok(None)),
            (b"\x16\x03\x01\x00\x02a", Ok(None)),
            (b"\x16\x03\x01\x00\x02ab", Ok(Some(7))),
            (b"\x16\x03\x01\x00\x02abc", Ok(Some(7))),
            (&longest, Ok(Some(longest.len()))),
            (b"\x17\x03\x03\x48\x01", Err(NotTls)),
            (b"\x16\x03\x01\x00\x00", Err(NotTls)),
            (b"E", Err(NotTls)),
            (b"\x16H", Err(NotTls)),
            (b"\x80\x2e", Err(NotTls)),
        ];
        for (received, expected) in cases {
            let found = first(received).map(|record| record.map(<[u8]>::len));
            assert_eq!(found, expected, "{received:?}");
        }
    }

    const HELLO: &[u8] = b"\x16\x03\x01\x00\x02ab";
    const CHANGE: &[u8] = b"\x14\x03\x03\x00\x01\x01";
    const DATA: &[u8] = b"\x17\x03\x03\x00\x03abc";

    #[test]
    fn records_end_where_one_is_not_whole_or_no_record() {
        let lengths =
            |parts: &[&[u8]]| -> Vec<usize> { all(&parts.concat()).map(<[u8]>::len).collect() };
        assert_eq!(lengths(&[HELLO, CHANGE, DATA]), [7, 6, 8]);
        assert_eq!(lengths(&[HELLO, &DATA[..7]]), [7]);
        assert_eq!(lengths(&[HELLO, b"EHLO a.b\r\n", DATA]), [7]);
        assert_eq!(lengths(&[b"EHLO a.b\r\n"]), [0; 0]);
    }

    /// A name, records, the version, whether a certificate is asked for, and whether it is light.
    type Case<'a> = (&'a str, &'a [&'a [u8]], Option<ProtocolVersion>, bool, bool);

    #[test]
    fn what_may_need_a_key_or_a_certificate_is_not_light() {
        let (old, new) = (Some(ProtocolVersion::TLSv1_2), Some(ProtocolVersion::TLSv1_3));
        let cases: [Case<'_>; 12] = [
            ("first words", &[HELLO], None, false, false),
            ("nothing that begins so", &[CHANGE, HELLO], None, false, false),
            ("Finished, TLS 1.2", &[CHANGE, HELLO], old, false, true),
            ("the same with a certificate before", &[CHANGE, HELLO], old, true, true),
            ("key exchange, TLS 1.2", &[HELLO, CHANGE, HELLO], old, false, false),
            ("Finished alone", &[HELLO], old, false, false),
            ("Finished, TLS 1.3", &[DATA], new, false, true),
            ("with what old devices want", &[CHANGE, DATA, DATA], new, false, true),
            ("only that", &[CHANGE], new, false, true),
            ("certificate, TLS 1.3", &[CHANGE, DATA], new, true, false),
            ("a second ClientHello", &[CHANGE, HELLO], new, false, false),
            ("a second ClientHello alone", &[HELLO], new, false, false),
        ];
        for (name, records, version, verifies, expected) in cases {
            assert_eq!(is_light(&records.concat(), version, verifies), expected, "{name}");
        }
    }
}
