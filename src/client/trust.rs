//! Whose certificates are good, and which name they must have.

use std::fs;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use super::options::TlsOptions;
use crate::tls::client::authorities;
use crate::tls::{ClientOptions, Trust, client_config, system_roots};

/// What handshakes are done with.
#[derive(Debug)]
pub struct Demands<'a> {
    options: &'a TlsOptions,
    /// `cafile`, read.
    authorities: Option<Arc<RootCertStore>>,
    /// What the certificate must name.
    name: &'a str,
}

impl<'a> Demands<'a> {
    /// What `options` demand of the server `host`. Reads the file of authorities, if there is one.
    ///
    /// # Errors
    /// The file cannot be used: a text that names it.
    pub fn new(options: &'a TlsOptions, host: &'a str) -> Result<Self, String> {
        let authorities = match &options.authorities {
            Some(path) => {
                let told = |reason: String| format!("{}: {reason}", path.display());
                let pem = fs::read(path).map_err(|error| told(error.to_string()))?;
                Some(Arc::new(authorities(&pem).map_err(|error| told(error.to_string()))?))
            }
            None => None,
        };
        let name = options.server_name.as_deref().unwrap_or(host);
        Ok(Self { options, authorities, name })
    }

    /// Whether only a certificate that holds is good.
    #[must_use]
    pub fn verify(&self) -> bool {
        !self.options.any_certificate
    }

    /// The configuration of a connection and the name that it is made for. Without a file of
    /// authorities, those of the system are read.
    ///
    /// # Errors
    /// The name can stand in no certificate, or there is nobody to trust.
    pub fn for_handshake(&self) -> Result<(Arc<ClientConfig>, ServerName<'static>), String> {
        let name = ServerName::try_from(self.name.to_owned())
            .map_err(|_| format!("{} is no name of a server", self.name))?;
        let trust = match &self.authorities {
            _ if self.options.any_certificate => Trust::Anyone,
            Some(authorities) => Trust::Authorities(Arc::clone(authorities)),
            None => Trust::Authorities(Arc::new(system_roots())),
        };
        let mut wanted = ClientOptions::new(trust);
        wanted.ciphers = self.options.ciphers.as_ref();
        wanted.protocols = self.options.protocols;
        let config = client_config(wanted).map_err(|error| error.to_string())?;
        let mut config = Arc::unwrap_or_clone(config);
        config.enable_sni = !self.options.no_name_indication;
        Ok((Arc::new(config), name))
    }
}
