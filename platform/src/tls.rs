//! The implementation of cryptography that this system's TLS uses. It is named here alone.
//!
//! aws-lc is the fastest where it builds, and has X25519MLKEM768, which is offered first; *ring* is
//! for the systems where it does not.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::ProducesTickets;
use rustls::sign::SigningKey;

#[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "macos"))]
use rustls::crypto::aws_lc_rs as chosen;
#[cfg(any(target_os = "openbsd", target_os = "netbsd", target_os = "dragonfly"))]
use rustls::crypto::ring as chosen;

/// What the implementation is called.
#[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "macos"))]
pub const PROVIDER: &str = "aws-lc-rs";
/// What the implementation is called.
#[cfg(any(target_os = "openbsd", target_os = "netbsd", target_os = "dragonfly"))]
pub const PROVIDER: &str = "ring";

/// Cipher suites, key exchange groups, signatures and random numbers.
#[must_use]
pub fn crypto_provider() -> CryptoProvider {
    chosen::default_provider()
}

/// Draws a first random number. To be called before a process is confined: the cryptography then looks
/// at the system, which it may not later.
///
/// # Errors
/// There are no random numbers.
pub fn prepare() -> Result<(), rustls::Error> {
    let filled = crypto_provider().secure_random.fill(&mut [0]);
    filled.map_err(|_| rustls::Error::FailedToGetRandomBytes)
}

/// Makes tickets that clients resume sessions with (RFC 5077, section 4): nothing is kept of a
/// session. Their keys are random and change every 6 hours; a ticket is good for at most 12.
///
/// # Errors
/// There are no random numbers.
pub fn ticketer() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    chosen::Ticketer::new()
}

/// A private key that signs in this process. `key` is only read: whoever has it can erase it.
///
/// # Errors
/// It is no key, or of a kind that this system's cryptography does not have.
pub fn signing_key(key: &PrivateKeyDer<'_>) -> Result<Arc<dyn SigningKey>, rustls::Error> {
    chosen::sign::any_supported_type(key)
}
