//! Seals: what one role decided and another carries unread.
//!
//! The lookup role seals each [route](crate::model::envelope::Route), the queue seals each job for
//! a worker. A seal is an HMAC-SHA-256 (RFC 2104) over the serialised value; the key of each use is
//! derived from the daemon's master key, so that one seal can never stand for another.

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::blob::Blob;

/// A key of one use. Wiped when dropped, never printed.
#[derive(Clone, Deserialize, Serialize)]
pub struct Key(Zeroizing<[u8; 32]>);

/// A value and its seal, as carried by roles that may not make or change it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Sealed {
    bytes: Blob,
    code: [u8; 32],
}

/// A seal that was not made with this key, or not for a value of this type.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a sealed record was forged or altered")]
pub struct BrokenSeal;

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// A key from random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// 32 bytes for one use, derived from this key: for what is no seal.
    #[must_use]
    pub fn derived_bytes(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        self.derive(purpose).0
    }

    /// The key of one use, derived from this one.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Self {
        let mut mac = self.mac();
        mac.update(purpose.as_bytes());
        Self::new(mac.finalize().into_bytes().into())
    }

    /// Seals `value`.
    ///
    /// # Errors
    /// Only if the value cannot be serialised, which no type of ours does.
    pub fn seal<T: Serialize>(&self, value: &T) -> Result<Sealed, postcard::Error> {
        let bytes = postcard::to_stdvec(value)?;
        let mut mac = self.mac();
        mac.update(&bytes);
        Ok(Sealed { code: mac.finalize().into_bytes().into(), bytes: Blob(bytes) })
    }

    /// Opens a sealed value, in constant time for a wrong seal.
    ///
    /// # Errors
    /// The seal is not of this key, or the value not a `T`.
    pub fn open<T: DeserializeOwned>(&self, sealed: &Sealed) -> Result<T, BrokenSeal> {
        let mut mac = self.mac();
        mac.update(&sealed.bytes.0);
        mac.verify_slice(&sealed.code).map_err(|_| BrokenSeal)?;
        postcard::from_bytes(&sealed.bytes.0).map_err(|_| BrokenSeal)
    }

    fn mac(&self) -> Hmac<Sha256> {
        // A key shorter than the block is padded with zeros (RFC 2104, section 2).
        let mut block = Zeroizing::new([0; 64]);
        block[..32].copy_from_slice(&*self.0);
        <Hmac<Sha256> as KeyInit>::new((&*block).into())
    }
}

impl Sealed {
    /// Reads the value without trusting it: for a role that carries it and only needs to know.
    ///
    /// # Errors
    /// The bytes are not a `T`.
    pub fn peek<T: DeserializeOwned>(&self) -> Result<T, BrokenSeal> {
        postcard::from_bytes(&self.bytes.0).map_err(|_| BrokenSeal)
    }

    /// Its size in bytes, seal included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.0.len() + self.code.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_opens_only_with_its_key_and_its_bytes() {
        let master = Key::new([7; 32]);
        let key = master.derive("route");
        let sealed = key.seal(&("alice", 3_u8)).unwrap();
        assert_eq!(key.open::<(String, u8)>(&sealed), Ok(("alice".to_owned(), 3)));
        assert_eq!(master.derive("job").open::<(String, u8)>(&sealed), Err(BrokenSeal));
        for position in 0..sealed.bytes.0.len() {
            let mut forged = sealed.clone();
            forged.bytes.0[position] ^= 1;
            assert_eq!(key.open::<(String, u8)>(&forged), Err(BrokenSeal));
        }
    }
}
