//! Between dispatcher and keys: which keys are held, and signatures.
//!
//! The dispatcher has one channel to say which keys it needs, and passes over it one end of a channel
//! for each thread that does handshakes: on those, signatures are asked for.

use serde::{Deserialize, Serialize};

use crate::ipc::blob::Blob;
use crate::model::tls::KeyId;

/// What the dispatcher says to keys.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum DispatcherToKeys {
    /// Hold the key of a certificate, reading its file again if need be (answered by
    /// [`KeysToDispatcher::Held`]). The key that was held for this entry before is kept beside it, for
    /// handshakes that are under way.
    Hold {
        /// Index into the configuration's `pki`.
        pki: u32,
        /// The key that the certificate belongs to.
        key: KeyId,
    },
    /// Sign for who holds the other end of the channel that comes with this, which speaks [`Sign`]
    /// and [`Signed`] (notice, carries a descriptor).
    Serve,
}

/// What keys answers the dispatcher.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum KeysToDispatcher {
    /// Whether the key is held.
    Held {
        /// Why not, in words.
        error: Option<String>,
    },
}

/// A question for a signature (answered by [`Signed`]).
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub struct Sign {
    /// The key.
    pub key: KeyId,
    /// `SignatureScheme` (RFC 8446, section 4.2.3).
    pub scheme: u16,
    /// What to sign, not hashed yet: only what has the form of a server's handshake is signed.
    pub message: Blob,
}

/// The signature; `None` if this is not signed.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub struct Signed(pub Option<Blob>);
