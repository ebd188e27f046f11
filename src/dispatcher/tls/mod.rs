//! TLS of the listeners: certificates that can change while sessions run, handshakes on threads of
//! their own, and the streams that come of them.
//!
//! This process holds no private key. [`signers`] has *keys* sign, [`certificates`] reads what the
//! parent opens and sees to it that a certificate and its key change together, [`handshake`] goes
//! from bytes to a [`TlsStream`].
//!
//! Sources: the SMTP page of the specification, section 3; RFC 3207; RFC 8314 for `smtps`.

mod certificates;
mod handshake;
mod signers;
mod stream;
#[cfg(test)]
mod tests;
mod threads;
mod transport;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::{RootCertStore, ServerConfig};
use tokio::sync::{Notify, watch};

use self::signers::Signers;
use self::threads::HandshakeThreads;
use crate::config::{Config, ListenerTls};
use crate::ipc::message::keys::{DispatcherToKeys, KeysToDispatcher};
use crate::ipc::message::parent::Setup;
use crate::ipc::neighbour::Neighbour;
use crate::process::ParentLink;
use crate::tls::{Certified, Resolver, resuming};

pub use self::handshake::HandshakeError;
pub use self::stream::TlsStream;
pub use self::transport::Transport;

/// How long listeners wait for the first look at certificates and keys.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// Threads for handshakes at most: *keys* serves twice as many channels.
const MAX_THREADS: usize = 64;

/// What has to be read before the process is confined.
#[derive(Debug)]
pub struct Surroundings {
    /// Threads for handshakes.
    threads: usize,
    /// The system's authorities, if a listener checks certificates against them.
    system_roots: Option<Arc<RootCertStore>>,
}

/// TLS of all listeners.
#[derive(Debug)]
pub struct Tls {
    /// The keys role.
    pub keys: Neighbour<DispatcherToKeys, KeysToDispatcher>,
    /// There is another process that plays it.
    attached: Notify,
    /// Whether certificates and keys were looked at.
    looked: watch::Sender<bool>,
    signers: Arc<Signers>,
    threads: HandshakeThreads,
    /// By index of the `pki` statement.
    certified: Vec<Arc<Certified>>,
    /// By index of the listener.
    doors: Vec<Option<Arc<Door>>>,
}

/// TLS of one listener.
#[derive(Debug)]
pub struct Door {
    settings: ListenerTls,
    resolver: Arc<Resolver>,
    configs: RwLock<Option<Configs>>,
    /// Whether handshakes can be done: sessions see it too.
    available: Arc<AtomicBool>,
}

/// The configurations of a listener's connections.
#[derive(Clone, Debug)]
struct Configs {
    /// For every handshake.
    full: Arc<ServerConfig>,
    /// For those that resume a session and need no key; `None` where none may.
    resuming: Option<Arc<ServerConfig>>,
}

impl Surroundings {
    /// Reads what the configuration needs.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn read(setup: &Setup) -> std::io::Result<Self> {
        // It takes a while, which only those who encrypt should wait.
        if !setup.config.pki.is_empty() {
            platform::tls::prepare().map_err(std::io::Error::other)?;
        }
        let checks = |tls: &ListenerTls| tls.verify && tls.authority.is_none();
        let listeners = &setup.config.listeners;
        let needed = listeners.iter().filter_map(|listener| listener.tls.as_ref()).any(checks);
        let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Ok(Self {
            threads: processors.min(MAX_THREADS),
            system_roots: needed.then(|| Arc::new(crate::tls::system_roots())),
        })
    }
}

impl Tls {
    /// TLS as the configuration has it. Nothing is loaded yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let certified: Vec<_> = config.pki.iter().map(|_| Arc::new(Certified::default())).collect();
        let door = |tls: &ListenerTls| {
            let shown = tls.pki.iter().filter_map(|id| certified.get(id.0 as usize).cloned());
            Arc::new(Door {
                settings: tls.clone(),
                resolver: Arc::new(Resolver::new(shown.collect())),
                configs: RwLock::new(None),
                available: Arc::new(AtomicBool::new(false)),
            })
        };
        let doors =
            config.listeners.iter().map(|listener| listener.tls.as_ref().map(door)).collect();
        Self {
            keys: Neighbour::default(),
            attached: Notify::new(),
            looked: watch::Sender::new(false),
            signers: Arc::new(Signers::default()),
            threads: HandshakeThreads::default(),
            certified,
            doors,
        }
    }

    /// Begins to serve, if a listener has TLS: starts the threads, loads certificates and watches
    /// them from now on.
    ///
    /// # Errors
    /// There are no threads to be had.
    pub fn serve(
        self: &Arc<Self>,
        setup: &Setup,
        parent: ParentLink,
        surroundings: Surroundings,
    ) -> std::io::Result<()> {
        if self.doors.iter().all(Option::is_none) {
            return Ok(());
        }
        self.threads.start(surroundings.threads)?;
        let watch =
            certificates::Watch::new(Arc::clone(self), parent, setup.config.clone(), surroundings);
        tokio::spawn(watch.run());
        Ok(())
    }

    /// Notes that another process plays the keys role.
    pub fn attached(&self) {
        self.attached.notify_one();
    }

    /// TLS of the listener with this index; `None` for one without.
    #[must_use]
    pub fn door(&self, listener: usize) -> Option<Arc<Door>> {
        self.doors.get(listener).cloned().flatten()
    }

    /// Waits for the first look at certificates and keys, so that the first clients find them.
    pub async fn first_look(&self) {
        let mut looked = self.looked.subscribe();
        // Whoever waited long enough finds out by 454.
        let _late = tokio::time::timeout(FIRST_LOOK, looked.wait_for(|looked| *looked)).await;
    }

    /// Tells sessions whether handshakes can be done now.
    fn refresh(&self) {
        let reachable = self.signers.is_reachable();
        for door in self.doors.iter().flatten() {
            let ready = reachable && door.resolver.is_ready() && door.configs().is_some();
            door.available.store(ready, Ordering::Relaxed);
        }
    }
}

impl Door {
    /// What is demanded of connections.
    #[must_use]
    pub fn settings(&self) -> &ListenerTls {
        &self.settings
    }

    /// Whether handshakes can be done, now and later.
    #[must_use]
    pub fn available(&self) -> &Arc<AtomicBool> {
        &self.available
    }

    fn configs(&self) -> Option<Configs> {
        self.configs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses this configuration, made with the door's resolver, from now on.
    fn replace(&self, config: Option<Arc<ServerConfig>>) {
        let configs = config.map(|full| {
            let resuming = resuming(&full, Arc::clone(&self.resolver));
            Configs { full, resuming }
        });
        *self.configs.write().unwrap_or_else(PoisonError::into_inner) = configs;
    }
}
