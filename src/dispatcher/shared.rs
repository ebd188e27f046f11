//! What all sessions of the dispatcher share: its neighbours, leased ids, names of clients, counters.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use super::bodies::Bodies;
use super::filters::Filters;
use super::smtp::ceiling::Ceiling;
use super::smtp::{Lease, Refusal};
use super::tls::Tls;
use crate::filter::engine::Settings;
use crate::ipc::message::lookup::{DispatcherToLookup, LookupToDispatcher};
use crate::ipc::message::parent::Setup;
use crate::ipc::message::queue::{DispatcherToQueue, QueueToDispatcher};
use crate::ipc::neighbour::Neighbour;
use crate::model::MessageId;
use crate::model::dns::{Confirmed, Reverse};
use crate::model::limits::{BODIES_IN_MEMORY, COMMIT_DEADLINE, LEASED_IDS};
use crate::process::ParentLink;

/// Leased ids below which more are asked for.
const FEW_IDS: usize = 256;
/// How long the name of an address is remembered.
const NAME_LIFETIME: Duration = Duration::from_secs(60);
/// Questions that wait for slow filters at most: sessions that wait for one program do not become all
/// sessions that there may be.
const FILTER_QUESTIONS: usize = 2048;
/// Names remembered at most.
const NAMES: usize = 10_000;

/// What all sessions share.
#[derive(Debug)]
pub struct Shared {
    /// What the parent told the role.
    pub setup: Setup,
    /// The channel to the parent.
    pub parent: ParentLink,
    /// The lookup role.
    pub lookup: Neighbour<DispatcherToLookup, LookupToDispatcher>,
    /// The queue.
    pub queue: Neighbour<DispatcherToQueue, QueueToDispatcher>,
    /// Encryption of sessions.
    pub tls: Arc<Tls>,
    /// What listeners and relays are filtered with.
    pub filters: Filters,
    /// Messages in memory.
    pub bodies: Bodies,
    /// What is counted.
    pub counters: Counters,
    /// Bytes of bodies in the memory of all sessions.
    body_bytes: AtomicUsize,
    ids: Mutex<Vec<MessageId>>,
    leasing: tokio::sync::Mutex<()>,
    names: Mutex<HashMap<IpAddr, (Instant, Reverse)>>,
    random: Mutex<Random>,
    /// Whether sessions are accepted.
    pub ceiling: Ceiling,
    leaving: watch::Sender<bool>,
}

/// What the dispatcher counts, by the names of `smtpctl show stats`.
#[derive(Debug, Default)]
pub struct Counters {
    /// `smtp.session`: sessions now.
    pub sessions: AtomicI64,
    /// `smtp.session.local`
    pub local: AtomicI64,
    /// `smtp.session.inet4`
    pub inet4: AtomicI64,
    /// `smtp.session.inet6`
    pub inet6: AtomicI64,
    /// `smtp.tls`: sessions now that were encrypted by STARTTLS.
    pub starttls: AtomicI64,
    /// `smtp.smtps`: sessions now that began encrypted.
    pub smtps: AtomicI64,
    /// `mda.running`: workers now.
    pub workers: AtomicI64,
    /// Deliveries under way.
    pub delivering: AtomicI64,
    /// Messages whose commit is under way.
    pub committing: AtomicI64,
}

/// A session's part of the memory that all bodies together may have.
#[derive(Debug)]
pub struct BodyShare {
    shared: Arc<Shared>,
    bytes: usize,
}

impl BodyShare {
    /// Nothing yet.
    #[must_use]
    pub fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), bytes: 0 }
    }

    /// Notes how much the session holds now. False if all sessions together hold too much.
    pub fn set(&mut self, bytes: usize) -> bool {
        let all = &self.shared.body_bytes;
        let total = if bytes >= self.bytes {
            let more = bytes - self.bytes;
            all.fetch_add(more, Ordering::Relaxed) + more
        } else {
            let less = self.bytes - bytes;
            all.fetch_sub(less, Ordering::Relaxed) - less
        };
        self.bytes = bytes;
        total <= BODIES_IN_MEMORY
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Tells when the role leaves.
#[derive(Debug)]
pub struct Leaving(watch::Receiver<bool>);

impl Leaving {
    /// Completes when the role leaves.
    pub async fn begun(&mut self) {
        // Without the other end it has left.
        let _gone = self.0.wait_for(|leaving| *leaving).await;
    }
}

/// Random numbers, drawn from the system a page at a time.
#[derive(Debug)]
struct Random {
    bytes: [u8; 1024],
    used: usize,
}

impl Random {
    fn next(&mut self) -> Result<u64, getrandom::Error> {
        if self.used + 8 > self.bytes.len() {
            getrandom::fill(&mut self.bytes)?;
            self.used = 0;
        }
        let Some((eight, _)) = self.bytes.get(self.used..).and_then(<[u8]>::split_first_chunk)
        else {
            return Err(getrandom::Error::UNEXPECTED);
        };
        self.used += 8;
        Ok(u64::from_ne_bytes(*eight))
    }
}

impl Shared {
    /// Nothing is connected yet, and no filter runs.
    ///
    /// # Errors
    /// The system has no random numbers to give.
    pub fn new(setup: Setup, parent: ParentLink) -> Result<Arc<Self>, getrandom::Error> {
        let lookup = Neighbour::default();
        let settings = Settings {
            server_name: setup.server_name.clone(),
            seed: getrandom::u64()?,
            waiting: FILTER_QUESTIONS,
        };
        Ok(Arc::new(Self {
            tls: Arc::new(Tls::new(&setup.config)),
            filters: Filters::new(&setup.config, &settings, &lookup),
            setup,
            parent,
            lookup,
            queue: Neighbour::default(),
            bodies: Bodies::default(),
            counters: Counters::default(),
            body_bytes: AtomicUsize::new(0),
            ids: Mutex::new(Vec::new()),
            leasing: tokio::sync::Mutex::new(()),
            names: Mutex::new(HashMap::new()),
            random: Mutex::new(Random { bytes: [0; 1024], used: 1024 }),
            ceiling: Ceiling::default(),
            leaving: watch::Sender::new(false),
        }))
    }

    /// Tells all sessions that the role leaves.
    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// Who wants to know when the role leaves.
    pub fn leaving(&self) -> Leaving {
        Leaving(self.leaving.subscribe())
    }

    /// A random number.
    ///
    /// # Errors
    /// The system has none to give.
    pub fn random(&self) -> Result<u64, getrandom::Error> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    /// An unused message id, leased from the queue in blocks.
    ///
    /// # Errors
    /// The queue does not give any now, or does not answer in the time of a commit.
    pub async fn lease(&self) -> Result<Lease, Refusal> {
        let nonce = self.random().map_err(|_| Refusal::Failure)?;
        let leased = timeout(COMMIT_DEADLINE, self.lease_id()).await;
        let id = leased.map_err(|_| Refusal::Timeout)??;
        Ok(Lease { id, nonce })
    }

    async fn lease_id(&self) -> Result<MessageId, Refusal> {
        loop {
            let (id, few) = {
                let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
                (ids.pop(), ids.len() < FEW_IDS)
            };
            if let Some(id) = id {
                if few && let Ok(_asking) = self.leasing.try_lock() {
                    // There is one at hand; who finds none is told.
                    let _later = self.lease_more().await;
                }
                return Ok(id);
            }
            // One asks, the others wait for what it gets.
            let _asking = self.leasing.lock().await;
            let empty = self.ids.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
            if empty {
                self.lease_more().await?;
            }
        }
    }

    async fn lease_more(&self) -> Result<(), Refusal> {
        let request = DispatcherToQueue::LeaseIds { count: LEASED_IDS };
        match self.queue.request(&request, None).await {
            Ok((QueueToDispatcher::Leased(more), _)) if !more.is_empty() => {
                self.ids.lock().unwrap_or_else(PoisonError::into_inner).extend(more);
                Ok(())
            }
            Ok(_) | Err(_) => Err(Refusal::Failure),
        }
    }

    /// Forgets leased ids: another queue has taken over.
    pub fn forget_leases(&self) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The name of an address, by reverse look-up.
    pub async fn name_of(&self, address: IpAddr) -> Reverse {
        let now = Instant::now();
        {
            let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((until, name)) = names.get(&address)
                && *until > now
            {
                return name.clone();
            }
        }
        let request = DispatcherToLookup::Client { address };
        let name = match self.lookup.request(&request, None).await {
            Ok((LookupToDispatcher::Client(name), _)) => name,
            Ok(_) | Err(_) => return Reverse { name: None, confirmed: Confirmed::Error },
        };
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMES {
            names.retain(|_, (until, _)| *until > now);
            if names.len() >= NAMES {
                names.clear();
            }
        }
        names.insert(address, (now + NAME_LIFETIME, name.clone()));
        name
    }
}

impl Counters {
    /// The counters that are not 0, with their names.
    #[must_use]
    pub fn list(&self) -> Vec<(String, i64)> {
        let all = [
            ("dispatcher.commit", &self.committing),
            ("dispatcher.delivery", &self.delivering),
            ("mda.running", &self.workers),
            ("smtp.session", &self.sessions),
            ("smtp.session.inet4", &self.inet4),
            ("smtp.session.inet6", &self.inet6),
            ("smtp.session.local", &self.local),
            ("smtp.smtps", &self.smtps),
            ("smtp.tls", &self.starttls),
        ];
        all.into_iter()
            .map(|(name, counter)| (name.to_owned(), counter.load(Ordering::Relaxed)))
            .filter(|(_, value)| *value != 0)
            .collect()
    }
}

/// Counts for as long as it lives, also if its task panics.
#[derive(Debug)]
pub struct Counted<'a>(&'a AtomicI64);

impl<'a> Counted<'a> {
    /// Counts one more.
    #[must_use]
    pub fn new(counter: &'a AtomicI64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
