//! What is known about an encrypted connection.

use serde::{Deserialize, Serialize};

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
