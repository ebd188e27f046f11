//! What is known about an encrypted connection.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The outcome of a TLS handshake.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Secured {
    /// Protocol version as logs and headers have it: `TLSv1.2`, `TLSv1.3`.
    pub version: String,
    /// Cipher by its OpenSSL name, e.g. `TLS_AES_256_GCM_SHA384`, `ECDHE-RSA-AES256-GCM-SHA384`.
    pub cipher: String,
    /// Strength of the cipher in bits.
    pub bits: u16,
    /// Whether the peer's certificate was required and holds.
    pub verified: bool,
    /// SHA-256 of the peer's certificate (DER), lower-case hexadecimal; `None` if it sent none.
    pub fingerprint: Option<String>,
    /// Binding of SASL to this connection: `tls-exporter` of RFC 9266; TLS 1.3 alone has it.
    pub exporter: Option<[u8; 32]>,
}

impl Secured {
    /// `VERSION:CIPHER:BITS`
    #[must_use]
    pub fn description(&self) -> String {
        format!("{}:{}:{}", self.version, self.cipher, self.bits)
    }
}

/// Names a key: SHA-256 of its public half as certificates have it (SubjectPublicKeyInfo, RFC 5280
/// section 4.1.2.7).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct KeyId(pub [u8; 32]);

impl KeyId {
    /// The name of the key with this public half (DER).
    #[must_use]
    pub fn of(public_key_info: &[u8]) -> Self {
        Self(Sha256::digest(public_key_info).into())
    }
}
