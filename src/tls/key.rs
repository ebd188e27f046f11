//! A private key in this process: from PEM text to signatures.
//!
//! Only *keys* holds any while the server runs; who checks a configuration looks at them and erases
//! them again. The text is the caller's to erase; what is made of it here is erased here, as far as
//! the cryptography lets us (the parsed key itself erases its memory when it is freed).

use std::fmt;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::sign::SigningKey;
use zeroize::Zeroize as _;

use super::certificate::{CertificateError, Chain};
use super::signable::{self, NotSignable};
use crate::model::tls::KeyId;

/// A private key.
#[derive(Clone)]
pub struct LocalKey {
    key: Arc<dyn SigningKey>,
    id: KeyId,
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why the text of a file is no usable key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyError {
    /// A pass phrase protects it, which nobody could be asked for at a restart.
    #[error("the key is encrypted; a server needs one without a pass phrase")]
    Encrypted,
    /// There is none.
    #[error("there is no private key in the file")]
    None,
    /// It is damaged, too short, or of a kind that is not used with TLS 1.2 and 1.3.
    #[error("the private key is damaged or of a kind that cannot be used")]
    Unusable,
}

/// Why nothing was signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SigningError {
    /// What was to be signed is not what a handshake signs.
    #[error(transparent)]
    Form(#[from] NotSignable),
    /// The key does not sign in this way.
    #[error("the key does not sign in this way")]
    Scheme,
    /// The cryptography failed.
    #[error("signing failed")]
    Failed,
}

/// Why a certificate and a key cannot be used together.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PairError {
    /// There is no usable certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// There is no usable key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// They do not belong together.
    #[error("the key does not belong to the certificate")]
    Mismatch,
}

impl LocalKey {
    /// The first key in PEM text: PKCS #8, PKCS #1 or SEC 1.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let is_encrypted = || memchr::memmem::find(text, b"ENCRYPTED").is_some();
        let mut der = match PrivateKeyDer::from_pem_slice(text) {
            Ok(der) => der,
            Err(_) if is_encrypted() => return Err(KeyError::Encrypted),
            Err(pem::Error::NoItemsFound) => return Err(KeyError::None),
            Err(_) => return Err(KeyError::Unusable),
        };
        let key = platform::tls::signing_key(&der);
        der.zeroize();
        let key = match key {
            Ok(key) => key,
            Err(_) if is_encrypted() => return Err(KeyError::Encrypted),
            Err(_) => return Err(KeyError::Unusable),
        };
        let id = KeyId::of(&key.public_key().ok_or(KeyError::Unusable)?);
        Ok(Self { key, id })
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Signs what a server signs in a handshake of TLS 1.2 or 1.3, and nothing else.
    ///
    /// # Errors
    /// See [`SigningError`].
    pub fn sign_handshake(&self, scheme: u16, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        let scheme = SignatureScheme::from(scheme);
        signable::check(scheme, message)?;
        let signer = self.key.choose_scheme(&[scheme]).ok_or(SigningError::Scheme)?;
        signer.sign(message).map_err(|_| SigningError::Failed)
    }
}

/// Whether a certificate and a key, both PEM text, can be used together.
///
/// # Errors
/// See [`PairError`].
pub fn check_pair(certificate: &[u8], key: &[u8]) -> Result<(), PairError> {
    let chain = Chain::from_pem(certificate)?;
    let key = LocalKey::from_pem(key)?;
    if chain.key() == key.id() { Ok(()) } else { Err(PairError::Mismatch) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::fixture::{Kind, certificate};

    #[test]
    fn a_key_fits_its_own_certificate_alone() {
        let made = [Kind::P256, Kind::P384, Kind::Ed25519, Kind::Rsa]
            .map(|kind| certificate(kind, "mx.example.org"));
        for (one, certificate) in made.iter().enumerate() {
            for (other, key) in made.iter().enumerate() {
                let found = check_pair(certificate.certificate.as_bytes(), key.key.as_bytes());
                let expected = if one == other { Ok(()) } else { Err(PairError::Mismatch) };
                assert_eq!(found, expected, "{one} {other}");
            }
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let made = certificate(Kind::P256, "mx.example.org");
        let short = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n\
                         -----END ENCRYPTED PRIVATE KEY-----\n";
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                   DEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        for (text, expected) in [
            ("", KeyError::None),
            (made.certificate.as_str(), KeyError::None),
            (short, KeyError::Unusable),
            (encrypted, KeyError::Encrypted),
            (old, KeyError::Encrypted),
        ] {
            assert_eq!(LocalKey::from_pem(text.as_bytes()).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        let made = certificate(Kind::P256, "mx.example.org");
        let key = LocalKey::from_pem(made.key.as_bytes()).unwrap();
        assert!(format!("{key:?}").starts_with("LocalKey { id: KeyId("), "{key:?}");
    }
}
