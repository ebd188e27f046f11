//! The server's side: which certificate a client is shown, and the configuration of a listener.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use super::certificate::Chain;
use super::remote::{RemoteKey, SignError, Signatory};
use super::{TlsError, suite};
use crate::config::{Ciphers, Protocols};
use crate::model::tls::KeyId;

/// A certificate in the place of a `pki` statement. It can be replaced while connections are made:
/// those that began with the old one finish with it.
#[derive(Debug, Default)]
pub struct Certified(RwLock<Option<Shown>>);

#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) chain: Arc<Chain>,
    certified: Arc<CertifiedKey>,
    /// The same without the use of its key.
    unsigned: Arc<CertifiedKey>,
}

impl Certified {
    /// Shows this one from now on. Its key signs through `signatory`.
    pub fn replace(&self, chain: Arc<Chain>, signatory: Arc<dyn Signatory>) {
        let certified = |signatory| {
            let key = Arc::new(RemoteKey::of(&chain, signatory));
            Arc::new(CertifiedKey::new(chain.certificates().to_vec(), key))
        };
        let (certified, unsigned) = (certified(signatory), certified(Arc::new(Nobody)));
        let shown = Shown { chain, certified, unsigned };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(shown);
    }

    /// Shows none from now on; what was shown.
    pub fn withdraw(&self) -> Option<Arc<Chain>> {
        let shown = self.0.write().unwrap_or_else(PoisonError::into_inner).take();
        shown.map(|shown| shown.chain)
    }

    /// The certificate that is shown now.
    #[must_use]
    pub fn chain(&self) -> Option<Arc<Chain>> {
        self.shown().map(|shown| shown.chain)
    }

    fn shown(&self) -> Option<Shown> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Chooses among the certificates of a listener by the name that a client asks for (RFC 6066,
/// section 3): the names in the certificates decide, not those of the statements. Of several that
/// fit, the first whose key the client understands; the first of all where none fits, or no name is
/// given, or an address in the place of one.
#[derive(Debug)]
pub struct Resolver(Vec<Arc<Certified>>);

impl Resolver {
    /// Chooses among these; the first is the usual one.
    #[must_use]
    pub fn new(certificates: Vec<Arc<Certified>>) -> Self {
        Self(certificates)
    }

    /// Whether there is a certificate to show.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.first().is_some_and(|first| first.shown().is_some())
    }

    pub(super) fn choose(
        &self,
        name: Option<&str>,
        understood: impl Fn(&Shown) -> bool,
    ) -> Option<Shown> {
        let mut usual = None;
        let mut fitting = None;
        for (index, certified) in self.0.iter().enumerate() {
            let Some(shown) = certified.shown() else { continue };
            if name.is_some_and(|name| shown.chain.is_for(name)) {
                if understood(&shown) {
                    return Some(shown);
                }
                fitting.get_or_insert_with(|| shown.clone());
            }
            if index == 0 {
                usual = Some(shown);
            }
        }
        fitting.or(usual)
    }
}

impl Resolver {
    fn choose_for(&self, client: &ClientHello<'_>) -> Option<Shown> {
        let schemes = client.signature_schemes();
        self.choose(client.server_name(), |shown| {
            shown.certified.key.choose_scheme(schemes).is_some()
        })
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose_for(&client).map(|shown| shown.certified)
    }
}

/// Chooses as a [`Resolver`] does, but what it chooses signs nothing.
#[derive(Debug)]
struct Unsigned(Arc<Resolver>);

impl ResolvesServerCert for Unsigned {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.choose_for(&client).map(|shown| shown.unsigned)
    }
}

/// Signs nothing, and says so at once.
#[derive(Debug)]
struct Nobody;

impl Signatory for Nobody {
    fn sign(&self, _: KeyId, _: u16, _: &[u8]) -> Result<Vec<u8>, SignError> {
        Err(SignError::Refused)
    }
}

/// What a listener demands of connections.
#[derive(Debug)]
pub struct ServerOptions<'a> {
    /// Cipher suites of TLS 1.2; all without it.
    pub ciphers: Option<&'a Ciphers>,
    /// Versions; all without it.
    pub protocols: Option<Protocols>,
    /// Authorities, one of which must have signed the certificate that a client shows. Without them
    /// none is asked for.
    pub verify: Option<Arc<RootCertStore>>,
}

/// The configuration of a listener's connections.
///
/// The server's order decides about suites. Sessions are resumed by tickets, whose keys are the
/// listener's own, so that a session of one is not resumed on another that demands more. Where a
/// certificate is asked for none is resumed: a ticket would stand for the certificate long after that has
/// ended. There is no early data, which could be replayed, and no ALPN: a client that offers protocols is
/// answered without one.
///
/// # Errors
/// See [`TlsError`].
pub fn server_config(
    options: &ServerOptions<'_>,
    resolver: Arc<Resolver>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(suite::provider(options.ciphers));
    let versions = suite::versions(options.protocols);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)?;
    let builder = match &options.verify {
        Some(roots) if roots.is_empty() => return Err(TlsError::NoAuthorities),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider)
                // The list of all authorities of a system would take several packets.
                .clear_root_hint_subjects()
                .build()?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(resolver);
    config.ignore_client_order = true;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    if options.verify.is_some() {
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = platform::tls::ticketer()?;
    }
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The same for connections that may not wait for a key: a session of TLS 1.2 is resumed, and every other
/// handshake fails. `None` where none is resumed. `resolver` is the one that `config` was made with.
///
/// Who resumes a session gets no other ticket for it: in TLS 1.2 its secret stays the same, and should
/// not outlive the ticket (RFC 5246, section F.1.4).
#[must_use]
pub fn resuming(config: &ServerConfig, resolver: Arc<Resolver>) -> Option<Arc<ServerConfig>> {
    if !config.ticketer.enabled() {
        return None;
    }
    let mut config = config.clone();
    config.cert_resolver = Arc::new(Unsigned(resolver));
    config.ticketer = Arc::new(Opener(Arc::clone(&config.ticketer)));
    Some(Arc::new(config))
}

/// Opens tickets, and makes none.
#[derive(Debug)]
struct Opener(Arc<dyn ProducesTickets>);

impl ProducesTickets for Opener {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(ticket)
    }
}
