//! The header of the PROXY protocol, version 2: whom a connection comes from that a proxy passes on.
//!
//! The reader takes bytes of any number and keeps no more of them than the header has. It does
//! not wait, and does not know who may be believed: only a listener with `proxy-v2` asks it. The
//! text form, version 1, is refused. What follows the addresses (TLVs) is skipped.
//!
//! Sources: haproxy's `proxy-protocol.txt`, section 2.2; the SMTP page of the specification, 4.1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// First bytes of every header.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of the fixed part: signature, version and command, family, length.
const FIXED: usize = 16;
/// Longest variable part, in bytes.
const MAX_LENGTH: usize = 65_519;
/// Longest path of a socket that systems have room for, in bytes.
const MAX_PATH: usize = 107;
/// Where a path stands that does not fill its field.
const PATH_FIELD: usize = 108;
/// First bytes of the text form.
const TEXT: &[u8] = b"PROXY ";

/// Who is at the other end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Client {
    /// The proxy itself: a check of its own (`LOCAL`).
    Proxy,
    /// A client on the network.
    Address(SocketAddr),
    /// A program on the proxy's machine.
    Socket,
}

/// Why a connection is closed; the text is what is logged.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProxyError {
    /// There are fewer bytes than the addresses need.
    #[error("protocol error (address info too short)")]
    AddressLength,
    /// The command is neither `LOCAL` nor `PROXY`.
    #[error("protocol error (unknown command)")]
    Command,
    /// The family is none of those that streams have.
    #[error("protocol error (unsupported address family)")]
    Family,
    /// The header says that it is longer than one may be.
    #[error("protocol error (header too long)")]
    Length,
    /// The path of a socket is longer than systems allow.
    #[error("address translation (Unix socket path longer than supported)")]
    Path,
    /// It does not begin like a header.
    #[error("protocol error (invalid signature)")]
    Signature,
    /// It begins like a header of version 1.
    #[error("protocol error (invalid signature)")]
    Text,
    /// `PROXY`, but from nowhere.
    #[error("address translation (UNSPEC family not supported for PROXYing)")]
    Unspecified,
    /// The version is not 2.
    #[error("protocol error (invalid version)")]
    Version,
}

/// How the addresses are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Family {
    Unspecified,
    Tcp4,
    Tcp6,
    Unix,
}

impl Family {
    fn of(byte: u8) -> Result<Self, ProxyError> {
        match byte {
            0x00 => Ok(Self::Unspecified),
            0x11 => Ok(Self::Tcp4),
            0x21 => Ok(Self::Tcp6),
            0x31 => Ok(Self::Unix),
            _ => Err(ProxyError::Family),
        }
    }

    /// Bytes of both addresses with their ports.
    fn length(self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::Tcp4 => 12,
            Self::Tcp6 => 36,
            Self::Unix => 2 * PATH_FIELD,
        }
    }
}

/// The reader of one header.
#[derive(Debug, Default)]
pub struct HeaderReader {
    /// What was received of the fixed part and of the addresses.
    held: Vec<u8>,
    /// Bytes behind them that are skipped, and were not received yet; known with the fixed part.
    skipped: Option<usize>,
}

impl HeaderReader {
    /// Takes received bytes. Returns how many of them belong to the header, and the client once
    /// it is complete; then what is behind belongs to whatever is proxied.
    ///
    /// # Errors
    /// The connection is to be closed without a word. Nothing may be taken after that.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<Client>), ProxyError> {
        let mut used = self.hold(bytes, FIXED);
        self.check_signature()?;
        if self.held.len() < FIXED {
            return Ok((used, None));
        }
        let (command, family, length) = self.fixed()?;
        let addresses = family.length();
        let skipped = self.skipped.get_or_insert(length - addresses);
        let mut skipped = *skipped;
        used += self.hold(bytes.get(used..).unwrap_or_default(), FIXED + addresses);
        if self.held.len() < FIXED + addresses {
            return Ok((used, None));
        }
        let passed = skipped.min(bytes.len() - used);
        used += passed;
        skipped -= passed;
        self.skipped = Some(skipped);
        if skipped > 0 {
            return Ok((used, None));
        }
        let client = match command {
            0 => Client::Proxy,
            1 => self.client(family)?,
            _ => return Err(ProxyError::Command),
        };
        Ok((used, Some(client)))
    }

    /// Keeps bytes until `length` are held; returns how many.
    fn hold(&mut self, bytes: &[u8], length: usize) -> usize {
        let count = length.saturating_sub(self.held.len()).min(bytes.len());
        self.held.extend_from_slice(bytes.get(..count).unwrap_or_default());
        count
    }

    fn check_signature(&self) -> Result<(), ProxyError> {
        let received = self.held.get(..SIGNATURE.len()).unwrap_or(&self.held);
        if SIGNATURE.starts_with(received) {
            return Ok(());
        }
        // One byte is enough to know that it is no signature; how it goes on is told where it can.
        let is_text = received.get(..TEXT.len()).is_some_and(|start| start == TEXT);
        Err(if is_text { ProxyError::Text } else { ProxyError::Signature })
    }

    /// Command, family and length of the variable part.
    fn fixed(&self) -> Result<(u8, Family, usize), ProxyError> {
        let Some(&[version, family, high, low]) =
            self.held.get(SIGNATURE.len()..).and_then(|rest| rest.first_chunk::<4>())
        else {
            return Err(ProxyError::Signature);
        };
        if version >> 4 != 2 {
            return Err(ProxyError::Version);
        }
        let family = Family::of(family)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_LENGTH {
            return Err(ProxyError::Length);
        }
        if length < family.length() {
            return Err(ProxyError::AddressLength);
        }
        Ok((version & 0xf, family, length))
    }

    /// The source of what is proxied.
    fn client(&self, family: Family) -> Result<Client, ProxyError> {
        let addresses = self.held.get(FIXED..).unwrap_or_default();
        let port = |at: usize| {
            let bytes = addresses.get(at..).and_then(|rest| rest.first_chunk::<2>());
            bytes.map(|bytes| u16::from_be_bytes(*bytes))
        };
        let (address, port): (Option<IpAddr>, _) = match family {
            Family::Unspecified => return Err(ProxyError::Unspecified),
            Family::Tcp4 => {
                let bytes = addresses.first_chunk::<4>();
                (bytes.map(|bytes| Ipv4Addr::from(*bytes).into()), port(8))
            }
            Family::Tcp6 => {
                let bytes = addresses.first_chunk::<16>();
                (bytes.map(|bytes| Ipv6Addr::from(*bytes).into()), port(32))
            }
            Family::Unix => {
                let path = addresses.get(..PATH_FIELD).unwrap_or_default();
                let length = path.iter().position(|&byte| byte == 0).unwrap_or(path.len());
                let fits = length <= MAX_PATH;
                return if fits { Ok(Client::Socket) } else { Err(ProxyError::Path) };
            }
        };
        match (address, port) {
            (Some(address), Some(port)) => Ok(Client::Address(SocketAddr::new(address, port))),
            _ => Err(ProxyError::AddressLength),
        }
    }
}

/// What must hold for a header in pieces of any size: driven by a fuzz target and a test.
///
/// # Errors
/// Names what did not hold.
pub fn exercise(bytes: &[u8]) -> Result<(), String> {
    let Some((&size, input)) = bytes.split_first() else { return Ok(()) };
    let read = |size: usize| {
        let mut reader = HeaderReader::default();
        let mut used = 0;
        for piece in input.chunks(size) {
            match reader.take(piece) {
                Ok((count, Some(client))) => return Ok((used + count, Some(client))),
                Ok((count, None)) if count == piece.len() => used += count,
                Ok((count, None)) => return Err(format!("{count} of {} bytes", piece.len())),
                // Whether the text form is recognised depends on how much is there.
                Err(ProxyError::Text) => return Err(ProxyError::Signature.to_string()),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok((used, None))
    };
    let (pieces, whole) = (read(usize::from(size) + 1), read(input.len().max(1)));
    if pieces != whole {
        return Err(format!("{pieces:?} in pieces, {whole:?} as a whole"));
    }
    match whole {
        Ok((used, Some(_))) if !(FIXED..=FIXED + MAX_LENGTH).contains(&used) => {
            Err(format!("a header of {used} bytes"))
        }
        Ok((used, None)) if used != input.len() => Err("bytes are left to an open header".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spec_case::ran;

    /// A header with this second and third byte behind the signature, and what follows the length.
    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    fn tcp4() -> Vec<u8> {
        [192, 0, 2, 1, 10, 9, 8, 7, 0x30, 0x39, 0, 25].to_vec()
    }

    fn tcp6() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::1".parse().unwrap();
        [&source.octets()[..], &[0; 16], &[1, 2], &[0, 25]].concat()
    }

    fn unix(path: &[u8]) -> Vec<u8> {
        let mut block = [0; 2 * PATH_FIELD];
        block[..path.len()].copy_from_slice(path);
        block.to_vec()
    }

    #[test]
    fn a_header_says_whom_a_connection_comes_from() {
        let address = |text: &str| Ok(Client::Address(text.parse().unwrap()));
        let tlv = [tcp4(), vec![3, 0, 4, 1, 2, 3, 4]].concat();
        let long = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
        let longest = header(0x21, 0x11, &[tcp4(), vec![0; MAX_LENGTH - 12]].concat());
        let cases = [
            (195, header(0x21, 0x11, &tcp4()), address("192.0.2.1:12345")),
            (196, header(0x21, 0x11, &tlv), address("192.0.2.1:12345")),
            (197, header(0x21, 0x21, &tcp6()), address("[2001:db8::1]:258")),
            (198, header(0x20, 0, b""), Ok(Client::Proxy)),
            (0, header(0x20, 0x11, &tcp4()), Ok(Client::Proxy)),
            (0, header(0x20, 0, b"more"), Ok(Client::Proxy)),
            (0, longest, address("192.0.2.1:12345")),
            (199, header(0x21, 0, b""), Err(ProxyError::Unspecified)),
            (200, header(0x21, 0x12, &tcp4()), Err(ProxyError::Family)),
            (0, header(0x20, 0x22, &tcp6()), Err(ProxyError::Family)),
            (201, header(0x22, 0x11, &tcp4()), Err(ProxyError::Command)),
            (201, header(0x11, 0x11, &tcp4()), Err(ProxyError::Version)),
            (202, header(0x21, 0x11, &[0; 8]), Err(ProxyError::AddressLength)),
            (0, header(0x20, 0x21, &[0; 35]), Err(ProxyError::AddressLength)),
            (0, header(0x21, 0x31, &[0; 215]), Err(ProxyError::AddressLength)),
            (202, long, Err(ProxyError::Length)),
            (203, b"PROXY TCP4 192.0.2.1 10.9.8.7 1 25\r\n".to_vec(), Err(ProxyError::Text)),
            (203, b"EHLO a.b\r\n".to_vec(), Err(ProxyError::Signature)),
            (206, header(0x21, 0x31, &unix(b"/run/x")), Ok(Client::Socket)),
            (0, header(0x21, 0x31, &unix(&[b'x'; 107])), Ok(Client::Socket)),
            (0, header(0x21, 0x31, &unix(&[b'x'; 108])), Err(ProxyError::Path)),
        ];
        for (number, bytes, expected) in cases {
            let mut reader = HeaderReader::default();
            let taken = reader.take(&[&bytes[..], b"EHLO"].concat());
            let expected = expected.map(|client| (bytes.len(), Some(client)));
            assert_eq!(taken, expected, "smtp case {number}: {bytes:?}");
            for size in [0, 2, 15] {
                assert_eq!(exercise(&[&[size], &bytes[..]].concat()), Ok(()), "case {number}");
            }
            ran("smtp", number);
        }
    }

    // The checks of the fixed part do not wait for the rest, that of the command does.
    #[test]
    fn what_cannot_be_a_header_is_known_at_once() {
        let first = |bytes: &[u8]| HeaderReader::default().take(bytes);
        assert_eq!(first(b"E"), Err(ProxyError::Signature));
        assert_eq!(first(b"\r\n\r\n\0\r\nQUIT\r"), Err(ProxyError::Signature));
        assert_eq!(first(&header(0x11, 0x11, &tcp4())[..16]), Err(ProxyError::Version));
        assert_eq!(first(&header(0x22, 0x11, &tcp4())[..27]), Ok((27, None)));
        assert_eq!(first(b""), Ok((0, None)));
    }

    #[test]
    fn the_text_of_an_error_is_that_of_the_log() {
        let cases = [
            (ProxyError::Signature, "protocol error (invalid signature)"),
            (ProxyError::Text, "protocol error (invalid signature)"),
            (ProxyError::Version, "protocol error (invalid version)"),
            (ProxyError::Family, "protocol error (unsupported address family)"),
            (ProxyError::Length, "protocol error (header too long)"),
            (ProxyError::AddressLength, "protocol error (address info too short)"),
            (ProxyError::Command, "protocol error (unknown command)"),
            (
                ProxyError::Unspecified,
                "address translation (UNSPEC family not supported for PROXYing)",
            ),
            (ProxyError::Path, "address translation (Unix socket path longer than supported)"),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(
            bytes: Vec<u8>,
            begins_well: bool,
            command in 0x1f_u8..0x23,
            family in prop::sample::select(vec![0_u8, 0x11, 0x12, 0x21, 0x31]),
        ) {
            let bytes = match begins_well {
                true => [&[3][..], &SIGNATURE, &[command, family, 0], &bytes].concat(),
                false => bytes,
            };
            prop_assert_eq!(exercise(&bytes), Ok(()));
        }
    }
}
