//! The loop of the role: what the parent says, which keys to hold, and a thread for each channel that
//! signatures are asked for on.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use platform::Role;
use zeroize::Zeroizing;

use super::vault::Vault;
use crate::ipc::blocking::Channel;
use crate::ipc::frame::Kind;
use crate::ipc::link::Link;
use crate::ipc::message::control::{ControlToKeys, KeysToControl};
use crate::ipc::message::keys::{DispatcherToKeys, KeysToDispatcher, Sign, Signed};
use crate::ipc::message::parent::{MapAnswer, ParentToRole, Peer, PkiFile, RoleToParent, Setup};
use crate::model::tls::KeyId;
use crate::process::{self, Context, Memory, ParentLink, StartError, Threads};
use crate::tls::key::LocalKey;

/// Channels for signatures at most: a dispatcher has one for each of its few threads, and its
/// successor may come before they are all gone.
const MAX_CHANNELS: usize = 128;
/// Largest file of a key, in bytes.
const MAX_KEY: usize = 256 * 1024;

/// Runs the role.
pub fn run() -> ExitCode {
    let prepare = |setup: &Setup| {
        if setup.config.pki.is_empty() {
            return Ok(());
        }
        platform::tls::prepare().map_err(|error| StartError::Prepare {
            what: "cryptography".to_owned(),
            source: std::io::Error::other(error),
        })
    };
    process::run(Role::Keys, Threads::One, prepare, serve)
}

async fn serve(context: Context, (): ()) {
    context.ready().await;
    let Context { setup, parent, mut orders, memory, .. } = context;
    let keys = Keys {
        vault: Arc::new(Vault::default()),
        parent,
        memory: Arc::new(memory),
        channels: Arc::new(AtomicUsize::new(0)),
        credits: setup.credits,
    };
    while let Some(order) = orders.recv().await {
        match (order.message, order.descriptor) {
            (ParentToRole::Attach { peer }, Some(descriptor)) => {
                if let Err(error) = keys.attach(peer, descriptor) {
                    tracing::error!("warn: keys: {error}");
                }
            }
            (ParentToRole::Switch(switches), _) => crate::log::set_verbose(switches.verbose),
            _ => {}
        }
    }
}

#[derive(Clone)]
struct Keys {
    vault: Arc<Vault>,
    parent: ParentLink,
    memory: Arc<Memory>,
    channels: Arc<AtomicUsize>,
    credits: u32,
}

impl Keys {
    fn attach(&self, peer: Peer, descriptor: OwnedFd) -> std::io::Result<()> {
        let keys = self.clone();
        match peer {
            Peer::Control => {
                let (_, mut arrivals) =
                    Link::<KeysToControl, ControlToKeys>::open(descriptor, self.credits)?;
                tokio::spawn(async move {
                    while let Some(arrived) = arrivals.recv().await {
                        let ControlToKeys::Statistics = arrived.message;
                        let snapshot = keys.memory.snapshot(keys.vault.counters());
                        let _gone =
                            arrived.responder.reply(&KeysToControl::Statistics(snapshot), None);
                    }
                });
            }
            Peer::Dispatcher => {
                let (_, mut arrivals) =
                    Link::<KeysToDispatcher, DispatcherToKeys>::open(descriptor, self.credits)?;
                tokio::spawn(async move {
                    while let Some(arrived) = arrivals.recv().await {
                        match (arrived.message, arrived.descriptor) {
                            (DispatcherToKeys::Hold { pki, key }, _) => {
                                let error = keys.hold(pki, key).await.err();
                                let answer = KeysToDispatcher::Held { error };
                                let _gone = arrived.responder.reply(&answer, None);
                            }
                            (DispatcherToKeys::Serve, Some(channel)) => keys.serve(channel),
                            (DispatcherToKeys::Serve, None) => {}
                        }
                    }
                });
            }
            Peer::Keys | Peer::Lookup | Peer::Queue | Peer::Scheduler => {}
        }
        Ok(())
    }

    /// Holds the key of an entry, from its file if it is another than before.
    async fn hold(&self, pki: u32, key: KeyId) -> Result<(), String> {
        if self.vault.holds(pki, key) {
            return Ok(());
        }
        let file = PkiFile::Key(pki);
        let request = RoleToParent::OpenPki { file, known: None };
        let descriptor = match self.parent.request(&request, None).await {
            Ok((ParentToRole::Pki(MapAnswer::Opened(_)), Some(descriptor))) => descriptor,
            Ok((ParentToRole::Pki(MapAnswer::Failed(error)), _)) => return Err(error),
            Ok(_) => return Err("the parent did not answer the question".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        let text = read(descriptor).map_err(|error| error.to_string())?;
        let found = LocalKey::from_pem(&text).map_err(|error| error.to_string())?;
        if found.id() != key {
            return Err("the key does not belong to the certificate".to_owned());
        }
        self.vault.hold(pki, found);
        Ok(())
    }

    /// Signs on a channel in a thread of its own, until the channel ends.
    fn serve(&self, channel: OwnedFd) {
        let channels = Arc::clone(&self.channels);
        if channels.fetch_add(1, Ordering::Relaxed) >= MAX_CHANNELS {
            channels.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let vault = Arc::clone(&self.vault);
        let signing = move || {
            sign_for(&vault, channel);
            channels.fetch_sub(1, Ordering::Relaxed);
        };
        if let Err(error) = std::thread::Builder::new().name("sign".to_owned()).spawn(signing) {
            self.channels.fetch_sub(1, Ordering::Relaxed);
            tracing::error!("warn: keys: no thread to sign in: {error}");
        }
    }
}

/// Answers questions on a channel; returns when it ends, or says what is no question.
fn sign_for(vault: &Vault, descriptor: OwnedFd) {
    let Ok(mut channel) = Channel::<Signed, Sign>::new(descriptor) else { return };
    while let Ok(received) = channel.receive() {
        let (Kind::Request, Some(question)) = (received.kind, received.message) else { return };
        let signed = vault.sign(&question);
        if channel.reply(received.number, &signed, None).is_err() {
            return;
        }
    }
}

/// The content of a key's file, erased when it is dropped.
fn read(descriptor: OwnedFd) -> std::io::Result<Zeroizing<Vec<u8>>> {
    // With all the room at once: a vector that grows leaves what it held behind.
    let mut text = Zeroizing::new(vec![0; MAX_KEY]);
    let mut file = File::from(descriptor);
    let mut filled = 0;
    while let Some(room) = text.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read(room)? {
            0 => {
                text.truncate(filled);
                return Ok(text);
            }
            count => filled += count,
        }
    }
    Err(std::io::Error::other("the file is too long for a key"))
}
