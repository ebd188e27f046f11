//! TLS as logic: certificates, keys, configurations and what there is to say about a connection.
//!
//! Nothing here opens a file, holds a socket or waits. Who serves TLS hands in the bytes of files
//! and a [`Signatory`], and drives rustls itself; the implementation of cryptography is the choice of
//! `platform::tls`. Of the server, the *keys* role alone calls [`key::LocalKey`].
//!
//! Sources: the SMTP page of the specification, section 3; RFC 8446, 5246, 8422, 9266, 9525.

pub mod certificate;
pub mod client;
pub mod hello;
pub mod key;
pub mod record;
pub mod remote;
pub mod secured;
pub mod server;
pub mod signable;
pub mod suite;

#[cfg(test)]
pub mod fixture;
#[cfg(test)]
mod tests;

pub use certificate::{CertificateError, Chain, KeyKind};
pub use client::{ClientOptions, Trust, client_config, system_roots};
pub use remote::{RemoteKey, SignError, Signatory};
pub use secured::secured;
pub use server::{Certified, Resolver, ServerOptions, resuming, server_config};

/// Why a configuration for connections cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// There are no authorities to check certificates against.
    #[error("there are no authorities to check certificates against")]
    NoAuthorities,
    /// The cryptography refuses.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// Certificates of clients cannot be checked.
    #[error("certificates of clients cannot be checked: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}
