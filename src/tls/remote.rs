//! A private key that another process holds: handshakes have it sign there.
//!
//! This is the one place where rustls' traits of keys are implemented.

use std::fmt::Debug;
use std::sync::Arc;

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::certificate::{Chain, KeyKind};
use crate::model::tls::KeyId;

/// Has keys sign that it does not hold itself. May block: handshakes run on threads of their own.
pub trait Signatory: Debug + Send + Sync {
    /// The signature of `message`, which is not hashed yet, in the way that `scheme` names
    /// (`SignatureScheme` of RFC 8446, section 4.2.3).
    ///
    /// # Errors
    /// There is none; the handshake fails.
    fn sign(&self, key: KeyId, scheme: u16, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// Why there is no signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SignError {
    /// The key is not there, or does not sign this.
    #[error("the key was not used")]
    Refused,
    /// Who holds the key did not answer in time.
    #[error("the key is out of reach")]
    Unreachable,
}

/// The key of a certificate, wherever it is.
#[derive(Clone, Debug)]
pub struct RemoteKey {
    id: KeyId,
    kind: KeyKind,
    public_key_info: Box<[u8]>,
    signatory: Arc<dyn Signatory>,
}

impl RemoteKey {
    /// The key of this certificate, as `signatory` has it used.
    #[must_use]
    pub fn of(chain: &Chain, signatory: Arc<dyn Signatory>) -> Self {
        Self {
            id: chain.key(),
            kind: chain.kind(),
            public_key_info: Box::from(chain.public_key_info()),
            signatory,
        }
    }
}

impl SigningKey for RemoteKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = self.kind.schemes().iter().find(|scheme| offered.contains(scheme))?;
        let (id, signatory) = (self.id, Arc::clone(&self.signatory));
        Some(Box::new(RemoteSigner { id, scheme: *scheme, signatory }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(&*self.public_key_info))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.kind.algorithm()
    }
}

/// One way in which such a key signs.
#[derive(Debug)]
struct RemoteSigner {
    id: KeyId,
    scheme: SignatureScheme,
    signatory: Arc<dyn Signatory>,
}

impl Signer for RemoteSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.signatory
            .sign(self.id, self.scheme.into(), message)
            .map_err(|error| rustls::Error::General(error.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}
