//! What there is to say about a connection whose handshake is done.

use rustls::{ConnectionCommon, ProtocolVersion};
use sha2::{Digest as _, Sha256};

use super::suite;
use crate::model::tls::Secured;

/// Label of the binding of SASL to a connection (RFC 9266, section 2).
const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";

/// What is known about a connection; `None` before the end of its handshake. `verified` says that
/// only a certificate that holds was let through: if the peer showed one, it holds.
#[must_use]
pub fn secured<T>(connection: &ConnectionCommon<T>, verified: bool) -> Option<Secured> {
    if connection.is_handshaking() {
        return None;
    }
    let version = connection.protocol_version()?;
    let (cipher, bits) = suite::name_and_bits(connection.negotiated_cipher_suite()?);
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    // Without the extended master secret, TLS 1.2 has no binding that is worth something.
    let exporter = match version {
        ProtocolVersion::TLSv1_3 => {
            connection.export_keying_material([0; 32], EXPORTER, Some(&[])).ok()
        }
        _ => None,
    };
    Some(Secured {
        version: suite::version_name(version).to_owned(),
        cipher: cipher.to_owned(),
        bits,
        verified: verified && certificate.is_some(),
        fingerprint: certificate.map(|certificate| hexadecimal(&Sha256::digest(certificate))),
        exporter,
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
