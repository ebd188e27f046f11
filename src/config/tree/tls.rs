//! Keys, certificates and encryption in the tree of a configuration.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::Span;
pub use crate::config::cipher::{Bulk, Cipher, Ciphers, Protocols};

/// Index of a certificate with its key in [`super::Config::pki`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct PkiId(pub u32);

/// Index of an authority in [`super::Config::authorities`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct AuthorityId(pub u32);

/// `pki`: a certificate and its key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Pki {
    /// Its name, lower-cased; `*` is one.
    pub name: String,
    /// The first statement with this name.
    pub span: Span,
    /// `cert`: path of the file with the certificate and its chain.
    pub certificate: String,
    /// `key`: path of the file with the private key.
    pub key: String,
    /// `dhe`, of the first certificate of a listener.
    pub dhe: Dhe,
}

/// `dhe`: key exchange over finite fields.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Dhe {
    /// With parameters that suit the certificate's key.
    Auto,
    /// With parameters of 1,024 bits.
    Legacy,
    /// Not offered.
    #[default]
    None,
}

/// `ca`: certificates that others are checked against.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Authority {
    /// Its name, lower-cased.
    pub name: String,
    /// The first statement with this name.
    pub span: Span,
    /// `cert`: path of the file.
    pub certificate: String,
}

/// Encryption of a listener's sessions.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ListenerTls {
    /// When a session is encrypted.
    pub mode: TlsMode,
    /// `verify`: whether clients must show a certificate.
    pub verify: bool,
    /// `pki`: one to 32 certificates; the first is shown to clients that ask for no other name.
    pub pki: Vec<PkiId>,
    /// `ca`: whom clients' certificates are checked against, instead of the system's authorities.
    pub authority: Option<AuthorityId>,
    /// `ciphers`, instead of [`crate::config::Smtp::ciphers`].
    pub ciphers: Option<Ciphers>,
    /// `protocols`, instead of all.
    pub protocols: Option<Protocols>,
}

/// When a session is encrypted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum TlsMode {
    /// `tls`: when the client asks for it (STARTTLS).
    Offered,
    /// `tls-require`: before the first transaction.
    Required,
    /// `smtps`: from the first byte.
    Immediate,
}

/// `tls` of a relay: encryption or no delivery.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum RelayTls {
    /// `tls no-verify`: with any certificate.
    Unverified,
    /// `tls`: with a certificate that holds.
    Verified,
}

/// Text that none but those who need it may see: not in logs, and not in the configuration that
/// roles are sent, where it arrives empty. Erased when it is dropped.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Self::default())
    }
}

impl PartialEq for Secret {
    /// Of two configurations, not of a guess: the time it takes may tell about the text.
    fn eq(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_neither_shown_nor_sent() {
        let secret = Secret::from("hush".to_owned());
        assert_eq!(secret.reveal(), "hush");
        assert!(!format!("{secret:?}").contains("hush"));
        let sent = postcard::to_stdvec(&secret).unwrap();
        assert!(sent.is_empty());
        assert_eq!(postcard::from_bytes::<Secret>(&sent).unwrap().reveal(), "");
    }
}
