//! The client's side: the configuration of connections that this server opens, and those of smtp(1).

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::certificate::{CertificateError, certificates};
use super::{TlsError, suite};
use crate::config::{Ciphers, Protocols};

/// Which certificates of servers are good.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Any: the connection is secret, the other end may be anybody.
    Anyone,
    /// Those for the name of the server that one of these authorities has signed.
    Authorities(Arc<RootCertStore>),
}

/// What a client demands of a connection, and what it shows.
#[derive(Debug)]
pub struct ClientOptions<'a> {
    /// Which certificates are good.
    pub trust: Trust,
    /// Cipher suites of TLS 1.2; all without it.
    pub ciphers: Option<&'a Ciphers>,
    /// Versions; all without it.
    pub protocols: Option<Protocols>,
    /// The client's own certificate with its chain, and the key.
    pub certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl ClientOptions<'_> {
    /// Nothing but `trust` is demanded.
    #[must_use]
    pub fn new(trust: Trust) -> Self {
        Self { trust, ciphers: None, protocols: None, certificate: None }
    }
}

/// The configuration of a client's connections. Whose certificate is checked is said by the name
/// that a connection is made for: `rustls::ClientConnection::new(config, name)`.
///
/// # Errors
/// See [`TlsError`].
pub fn client_config(options: ClientOptions<'_>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(suite::provider(options.ciphers));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&suite::versions(options.protocols))?;
    let builder = match options.trust {
        Trust::Anyone => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        }
        Trust::Authorities(roots) if roots.is_empty() => return Err(TlsError::NoAuthorities),
        Trust::Authorities(roots) => builder.with_root_certificates(roots),
    };
    let config = match options.certificate {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// The authorities that the system trusts. Reads files: to be called before the process is confined.
#[must_use]
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // A bundle with one damaged entry is still one.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// The authorities in PEM text, as `ca` names them.
///
/// # Errors
/// There is none, or one is damaged.
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|_| CertificateError::Malformed)?;
    }
    Ok(roots)
}

/// Takes any certificate whose key the server has.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
