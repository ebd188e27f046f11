//! What a ClientHello offers, read before a connection is made for it.
//!
//! Nothing is judged here: what looks like a ticket is opened by who made it, and everything else about
//! the message is for rustls to check.
//!
//! Sources: RFC 5246 section 7.4.1.2 and RFC 8446 section 4.1.2 (the message), RFC 5077 section 3.2.

/// Type of a record of handshake messages.
const HANDSHAKE: u8 = 22;
/// Type of the message.
const CLIENT_HELLO: u8 = 1;
/// Length of the version and the random number that it begins with.
const VERSION_AND_RANDOM: usize = 2 + 32;
/// Number of the extension that carries a ticket.
const SESSION_TICKET: [u8; 2] = [0, 35];

/// The ticket of TLS 1.2 that a client offers with a ClientHello, which `records` begins with and which
/// is whole in one record.
#[must_use]
pub fn session_ticket(records: &[u8]) -> Option<&[u8]> {
    let (&[HANDSHAKE, _, _, _, _, CLIENT_HELLO, _, _, _], hello) = records.split_first_chunk()?
    else {
        return None;
    };
    let (_session, rest) = short(hello.get(VERSION_AND_RANDOM..)?)?;
    let (_suites, rest) = long(rest)?;
    let (_compression, rest) = short(rest)?;
    let (mut extensions, _) = long(rest)?;
    while let Some((number, rest)) = extensions.split_first_chunk() {
        let (content, rest) = long(rest)?;
        if *number == SESSION_TICKET {
            return Some(content).filter(|ticket| !ticket.is_empty());
        }
        extensions = rest;
    }
    None
}

/// A field whose length is in its first byte, and what follows it.
fn short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// A field whose length is in its first two bytes, and what follows it.
fn long(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of an extension, and what is in it.
    type Extension<'a> = (u16, &'a [u8]);

    /// A ClientHello with these extensions.
    fn hello(extensions: &[Extension<'_>]) -> Vec<u8> {
        let field = |bytes: &[u8]| {
            let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            [&length, bytes].concat()
        };
        let extensions: Vec<u8> = extensions
            .iter()
            .flat_map(|(number, content)| [&number.to_be_bytes(), &field(content)[..]].concat())
            .collect();
        let session = [&[32][..], &[9; 32]].concat();
        let suites = field(&[0xc0, 0x2b]);
        let body =
            [&[3, 3][..], &[7; 32], &session, &suites, &[1, 0], &field(&extensions)].concat();
        let message = [&[CLIENT_HELLO, 0][..], &field(&body)].concat();
        [&[HANDSHAKE, 3, 1][..], &field(&message)].concat()
    }

    #[test]
    fn a_ticket_is_found_wherever_it_stands() {
        let name: Extension<'_> = (0, b"\0\x05\0\0\x02a.");
        let ticket: Extension<'_> = (35, b"ticket");
        let cases: [(&[Extension<'_>], Option<&[u8]>); 6] = [
            (&[ticket], Some(b"ticket")),
            (&[name, ticket], Some(b"ticket")),
            (&[ticket, name], Some(b"ticket")),
            (&[name, (35, b"")], None),
            (&[name], None),
            (&[], None),
        ];
        for (extensions, expected) in cases {
            assert_eq!(session_ticket(&hello(extensions)), expected, "{extensions:?}");
        }
    }

    #[test]
    fn what_is_cut_off_or_something_else_has_no_ticket() {
        let whole = hello(&[(0, b"name"), (35, b"ticket")]);
        for length in 0..whole.len() {
            assert_eq!(session_ticket(&whole[..length]), None, "{length}");
        }
        for (position, value) in [(0, 23), (5, 2), (43, 255)] {
            let mut other = whole.clone();
            other[position] = value;
            assert_eq!(session_ticket(&other), None, "{position}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_can_be_read(mut bytes in proptest::collection::vec(0_u8.., 0..300)) {
            if let Some(head) = bytes.first_chunk_mut::<9>() {
                *head = [HANDSHAKE, 3, 1, 0, 0, CLIENT_HELLO, 0, 0, 0];
            }
            if let Some(ticket) = session_ticket(&bytes) {
                proptest::prop_assert!(!ticket.is_empty() && ticket.len() < bytes.len());
            }
        }
    }
}
