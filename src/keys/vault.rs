//! The keys that are held, and what is signed with them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::ipc::blob::Blob;
use crate::ipc::message::keys::{Sign, Signed};
use crate::model::tls::KeyId;
use crate::tls::key::{LocalKey, SigningError};

/// The keys of all entries of the configuration.
#[derive(Debug, Default)]
pub struct Vault {
    held: RwLock<Held>,
    signed: AtomicI64,
    refused: AtomicI64,
    /// Questions for something else than the signature of a handshake.
    malformed: AtomicU64,
}

#[derive(Debug, Default)]
struct Held {
    /// Keys by their names.
    keys: HashMap<KeyId, LocalKey>,
    /// The name of each entry's key, and that of the one before it.
    entries: HashMap<u32, (KeyId, Option<KeyId>)>,
}

impl Vault {
    /// Whether this key is held for the entry: there is no need to read its file.
    pub fn holds(&self, pki: u32, key: KeyId) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.entries.get(&pki).is_some_and(|(current, _)| *current == key)
    }

    /// Holds a key for the entry, and for a while the one before it: handshakes with the certificate
    /// before may be under way.
    pub fn hold(&self, pki: u32, key: LocalKey) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let current = key.id();
        let before = held.entries.get(&pki).map(|(known, _)| *known);
        held.entries.insert(pki, (current, before.filter(|before| *before != current)));
        held.keys.insert(current, key);
        let Held { keys, entries } = &mut *held;
        keys.retain(|id, _| {
            entries.values().any(|(current, before)| current == id || *before == Some(*id))
        });
    }

    /// Signs, or refuses.
    pub fn sign(&self, question: &Sign) -> Signed {
        let key = {
            let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
            held.keys.get(&question.key).cloned()
        };
        let Some(key) = key else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Signed(None);
        };
        match key.sign_handshake(question.scheme, &question.message.0) {
            Ok(signature) => {
                self.signed.fetch_add(1, Ordering::Relaxed);
                Signed(Some(Blob(signature)))
            }
            Err(error) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                if matches!(error, SigningError::Form(_)) {
                    self.complain(&error);
                }
                Signed(None)
            }
        }
    }

    /// Whoever asks for something else is not the dispatcher that we know, and may ask as often as it
    /// likes: each doubling is worth a line.
    fn complain(&self, error: &SigningError) {
        let malformed = self.malformed.fetch_add(1, Ordering::Relaxed) + 1;
        if malformed.is_power_of_two() {
            tracing::warn!(
                "warn: keys: refused to sign for the dispatcher: {error} ({malformed} times so far)"
            );
        }
    }

    /// What was counted.
    pub fn counters(&self) -> Vec<(String, i64)> {
        let count = |counter: &AtomicI64| counter.load(Ordering::Relaxed);
        let counters =
            [("keys.refused", count(&self.refused)), ("keys.signed", count(&self.signed))];
        let named = counters.into_iter().filter(|(_, value)| *value != 0);
        named.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::fixture::{Kind, certificate};

    fn key() -> LocalKey {
        LocalKey::from_pem(certificate(Kind::P256, "a.example").key.as_bytes()).unwrap()
    }

    fn question(key: KeyId, message: Vec<u8>) -> Sign {
        Sign { key, scheme: 0x0403, message: Blob(message) }
    }

    fn handshake() -> Vec<u8> {
        [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &[3; 32]].concat()
    }

    #[test]
    fn the_key_before_is_held_for_handshakes_under_way_and_no_longer() {
        let vault = Vault::default();
        let keys = [key(), key(), key()];
        let usable = |vault: &Vault| {
            keys.each_ref().map(|key| vault.sign(&question(key.id(), handshake())).0.is_some())
        };
        assert_eq!(usable(&vault), [false, false, false]);
        for (index, expected) in
            [[true, false, false], [true, true, false], [false, true, true]].into_iter().enumerate()
        {
            vault.hold(7, keys[index].clone());
            assert!(vault.holds(7, keys[index].id()) && !vault.holds(8, keys[index].id()));
            assert_eq!(usable(&vault), expected);
        }
        // What another entry has is kept for it.
        vault.hold(8, keys[1].clone());
        vault.hold(7, keys[0].clone());
        assert_eq!(usable(&vault), [true, true, true]);
    }

    #[test]
    fn what_is_not_signed_is_counted() {
        let vault = Vault::default();
        let key = key();
        vault.hold(0, key.clone());
        for (message, scheme, expected) in [
            (handshake(), 0x0403, true),
            (b"a certificate".to_vec(), 0x0403, false),
            (handshake(), 0x0804, false),
        ] {
            let question = Sign { scheme, ..question(key.id(), message) };
            assert_eq!(vault.sign(&question).0.is_some(), expected);
        }
        let expected = [("keys.refused".to_owned(), 2), ("keys.signed".to_owned(), 1)];
        assert_eq!(vault.counters(), expected);
    }
}
