//! What a server's key may sign: exactly what a handshake of TLS 1.2 or 1.3 signs as a server.
//!
//! The one who asks may be an intruder. A key that signs anything would sign a certificate, a
//! message, or a handshake as a client; of what has the forms here nothing else can be made.
//!
//! Sources: RFC 8446 section 4.4.3 (CertificateVerify); RFC 5246 section 7.4.3 and RFC 8422 section
//! 5.4 (ServerKeyExchange), whose curves are those of this server.

use rustls::SignatureScheme;

/// What begins the input of a CertificateVerify: blanks, which keep it apart from that of TLS 1.2.
const PADDING: [u8; 64] = [b' '; 64];
/// Which side signs, and that it does so for TLS 1.3.
const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";
/// Length of a transcript's hash: SHA-256, SHA-384.
const HASHES: [usize; 2] = [32, 48];
/// Length of the random numbers of client and server together.
const RANDOMS: usize = 64;
/// `named_curve` of RFC 8422, section 5.4.
const NAMED_CURVE: u8 = 3;
/// Curves, and the lengths of their public keys: secp256r1, secp384r1, x25519.
const CURVES: [(u16, usize); 3] = [(23, 65), (24, 97), (29, 32)];
/// What begins an uncompressed point.
const UNCOMPRESSED: u8 = 4;

/// This is not signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not the form of a handshake")]
pub struct NotSignable;

/// Whether `message` has the form of what a server signs in a handshake.
///
/// # Errors
/// It has not, or not in one where this scheme is used.
pub fn check(scheme: SignatureScheme, message: &[u8]) -> Result<(), NotSignable> {
    let good = match message.strip_prefix(&PADDING) {
        Some(rest) if rest.starts_with(CONTEXT) => {
            is_certificate_verify(rest) && is_of_tls_1_3(scheme)
        }
        _ => is_key_exchange(message),
    };
    if good { Ok(()) } else { Err(NotSignable) }
}

fn is_certificate_verify(rest: &[u8]) -> bool {
    rest.strip_prefix(CONTEXT).is_some_and(|hash| HASHES.contains(&hash.len()))
}

/// PKCS #1 v1.5 is not for handshakes of TLS 1.3 (RFC 8446, section 4.2.3).
fn is_of_tls_1_3(scheme: SignatureScheme) -> bool {
    !matches!(
        scheme,
        SignatureScheme::RSA_PKCS1_SHA1
            | SignatureScheme::RSA_PKCS1_SHA256
            | SignatureScheme::RSA_PKCS1_SHA384
            | SignatureScheme::RSA_PKCS1_SHA512
    )
}

fn is_key_exchange(message: &[u8]) -> bool {
    let Some([NAMED_CURVE, high, low, length, point @ ..]) = message.get(RANDOMS..) else {
        return false;
    };
    let curve = u16::from_be_bytes([*high, *low]);
    let Some((_, expected)) = CURVES.iter().find(|(known, _)| *known == curve) else {
        return false;
    };
    let is_point = curve == 29 || point.first() == Some(&UNCOMPRESSED);
    usize::from(*length) == *expected && point.len() == *expected && is_point
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate_verify(context: &str, hash: usize) -> Vec<u8> {
        [&PADDING[..], context.as_bytes(), b"\0", &vec![7; hash]].concat()
    }

    fn key_exchange(curve: u16, length: u8, point: &[u8]) -> Vec<u8> {
        let [high, low] = curve.to_be_bytes();
        [&[9; 64][..], &[NAMED_CURVE, high, low, length], point].concat()
    }

    #[test]
    fn only_what_a_server_signs_in_a_handshake_is_signed() {
        let server = "TLS 1.3, server CertificateVerify";
        let p256 = [&[UNCOMPRESSED][..], &[1; 64]].concat();
        let p384 = [&[UNCOMPRESSED][..], &[1; 96]].concat();
        let pss = SignatureScheme::RSA_PSS_SHA256;
        let old = SignatureScheme::RSA_PKCS1_SHA256;
        let mut explicit = key_exchange(29, 32, &[1; 32]);
        explicit[64] = 1;
        let cases = [
            ("TLS 1.3", pss, certificate_verify(server, 32), true),
            ("TLS 1.3 with SHA-384", pss, certificate_verify(server, 48), true),
            ("TLS 1.3 in an old way", old, certificate_verify(server, 32), false),
            (
                "TLS 1.3 as a client",
                pss,
                certificate_verify("TLS 1.3, client CertificateVerify", 32),
                false,
            ),
            (
                "delegated credential",
                pss,
                certificate_verify("TLS, server delegated credentials", 32),
                false,
            ),
            ("no hash", pss, certificate_verify(server, 0), false),
            ("a short hash", pss, certificate_verify(server, 31), false),
            ("a long hash", pss, certificate_verify(server, 33), false),
            ("one blank less", pss, certificate_verify(server, 32)[1..].to_vec(), false),
            ("one blank more", pss, [b" ", &certificate_verify(server, 32)[..]].concat(), false),
            ("TLS 1.2, x25519", old, key_exchange(29, 32, &[1; 32]), true),
            ("TLS 1.2, P-256", pss, key_exchange(23, 65, &p256), true),
            ("TLS 1.2, P-384", pss, key_exchange(24, 97, &p384), true),
            ("a compressed point", pss, key_exchange(23, 33, &[2; 33]), false),
            ("a point of another form", pss, key_exchange(23, 65, &[6; 65]), false),
            ("another curve", pss, key_exchange(30, 56, &[1; 56]), false),
            ("an explicit curve", pss, explicit, false),
            ("a wrong length", pss, key_exchange(29, 31, &[1; 32]), false),
            ("something after it", pss, key_exchange(29, 32, &[1; 33]), false),
            ("randoms alone", pss, vec![1; 64], false),
            ("nothing", pss, Vec::new(), false),
            ("the digest of a certificate", old, vec![1; 32], false),
            ("a certificate", old, [&[0x30, 0x82, 3, 4][..], &[5; 772]].concat(), false),
        ];
        for (name, scheme, message, expected) in cases {
            assert_eq!(check(scheme, &message).is_ok(), expected, "{name}");
        }
    }

    // What rustls really signs is tried with real handshakes; this is that no other text passes.
    proptest::proptest! {
        #[test]
        fn no_other_text_is_signed(message in proptest::collection::vec(0_u8.., 0..200)) {
            let is_exchange = message.get(64) == Some(&NAMED_CURVE);
            let signed = check(SignatureScheme::ED25519, &message).is_ok();
            proptest::prop_assert!(!signed || is_exchange);
        }
    }
}
