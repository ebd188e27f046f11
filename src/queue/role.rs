//! The loop of the queue role: one event after the other, in one thread.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use platform::Role;
use platform::dir::Dir;
use tokio::sync::mpsc;

use super::intake::Intake;
use super::log::{LogStore, Options};
use super::record;
use super::release::Releases;
use super::reports::Reports;
use super::store::{Completion, Cursor, Health, Store, StoreError};
use super::suspects::Suspects;
use crate::config::{Action, ActionKind};
use crate::ipc::link::{Arrived, Link, LinkError, Reply};
use crate::ipc::message::control::{ControlToQueue, QueueToControl};
use crate::ipc::message::parent::{ParentToRole, Peer, RoleToParent, Setup};
use crate::ipc::message::queue::{DispatcherToQueue, QueueToDispatcher};
use crate::ipc::message::scheduler::{Due, DueKind, QueueToScheduler, SchedulerToQueue, Unfit};
use crate::ipc::message::worker::Method;
use crate::model::{DeliveryKind, Envelope, EnvelopeId};
use crate::process::{self, Context, Memory, StartError, Threads};

/// Events handled before what they led to is sent on.
const EVENTS_AT_ONCE: usize = 256;
/// Envelopes read at once when the scheduler is filled.
const PAGE: usize = 512;
/// Envelopes in one frame to the scheduler: each takes at most about 400 bytes.
const ENVELOPES_IN_FRAME: usize = 128;

/// Actions that are named in the log for want of them.
const UNFIT_SAID: usize = 1000;

/// A step that goes on when the store has answered.
pub(super) type Step = Box<dyn FnOnce(&mut Queue) + Send>;

/// What the loop deals with.
pub(super) enum Event {
    Control(Arrived<QueueToControl, ControlToQueue>),
    /// The end of a channel to the dispatcher.
    DispatcherGone,
    Dispatcher(Arrived<QueueToDispatcher, DispatcherToQueue>),
    Go(Step),
    Order(Arrived<RoleToParent, ParentToRole>),
    /// The channel to the parent ended, or it said so: leave.
    Leave,
    /// What came of a delivery.
    Settled(EnvelopeId, Result<Reply<DispatcherToQueue>, LinkError>),
    Scheduler(Arrived<QueueToScheduler, SchedulerToQueue>),
    Store(super::store::Event),
    Tick,
}

/// The role.
pub(super) struct Queue {
    pub(super) setup: Arc<Setup>,
    pub(super) store: Box<dyn Store>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) dispatcher: Option<Link<QueueToDispatcher, DispatcherToQueue>>,
    pub(super) intake: Intake,
    pub(super) releases: Releases,
    pub(super) reports: Reports,
    pub(super) suspects: Suspects,
    pub(super) memory: Memory,
    pub(super) mda_paused: bool,
    pub(super) mta_paused: bool,
    pub(super) health: Health,
    pub(super) counters: Counters,
    pub(super) parent: process::ParentLink,
    scheduler: Option<mpsc::UnboundedSender<QueueToScheduler>>,
    /// Ends that the scheduler was not told about yet.
    pub(super) endings: Vec<(EnvelopeId, crate::ipc::message::scheduler::End)>,
    /// New envelopes that the scheduler was not told about yet.
    added: Vec<Due>,
    /// Actions whose envelopes are held, and that was said.
    unfit_actions: HashSet<String>,
    /// Everything that was stored at start is in [`Self::added`], or was told.
    filled: bool,
    leaving: bool,
}

/// What the queue counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) bounces: i64,
    pub(super) commits: i64,
    pub(super) refused: i64,
    pub(super) panics: i64,
}

/// Runs the role.
pub fn run() -> ExitCode {
    process::run(Role::Queue, Threads::One, prepare, serve)
}

/// The spool's own directory may be searched by everybody and read by root alone, so it is opened
/// before the rights go. Everything in it is opened by the confined process.
fn prepare(setup: &Setup) -> Result<Dir, StartError> {
    Dir::open(Path::new(&setup.spool))
        .map_err(|source| StartError::Prepare { what: setup.spool.clone(), source })
}

async fn serve(context: Context, root: Dir) {
    let (events, mut inbox) = mpsc::unbounded_channel();
    let told = events.clone();
    let opened = LogStore::open(&root, Options::default(), move |event| {
        let _ended = told.send(Event::Store(event));
    });
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            tracing::error!("fatal: queue: spool {}: {error}", context.setup.spool);
            return;
        }
    };
    context.ready().await;
    let Context { setup, parent, mut orders, memory, .. } = context;
    let forward = events.clone();
    tokio::spawn(async move {
        while let Some(order) = orders.recv().await {
            let _ended = forward.send(Event::Order(order));
        }
        let _ended = forward.send(Event::Leave);
    });
    let tick = events.clone();
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(Duration::from_secs(1));
        while tick.send(Event::Tick).is_ok() {
            interval.tick().await;
        }
    });
    let mut queue = Queue::new(setup, Box::new(store), parent, memory, events);
    let mut batch = Vec::with_capacity(EVENTS_AT_ONCE);
    while !queue.leaving && inbox.recv_many(&mut batch, EVENTS_AT_ONCE).await > 0 {
        for event in batch.drain(..) {
            queue.guard(event);
        }
        queue.flush();
    }
    queue.last_word().await;
    queue.store.shutdown();
}

impl Queue {
    /// A queue without neighbours.
    pub(super) fn new(
        setup: Setup,
        store: Box<dyn Store>,
        parent: process::ParentLink,
        memory: Memory,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            intake: Intake::new(&setup),
            releases: Releases::new(&setup),
            reports: Reports::default(),
            suspects: Suspects::new(&setup.suspects),
            mda_paused: setup.switches.mda_paused,
            mta_paused: setup.switches.mta_paused,
            setup: Arc::new(setup),
            store,
            events,
            dispatcher: None,
            memory,
            health: Health::default(),
            counters: Counters::default(),
            parent,
            scheduler: None,
            endings: Vec::new(),
            added: Vec::new(),
            unfit_actions: HashSet::new(),
            filled: false,
            leaving: false,
        }
    }

    /// Handles one event; a panic ends that one alone.
    pub(super) fn guard(&mut self, event: Event) {
        if catch_unwind(AssertUnwindSafe(|| self.handle(event))).is_err() {
            self.counters.panics += 1;
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Control(arrived) => self.answer_control(arrived),
            Event::DispatcherGone => {
                let closed = self.dispatcher.as_ref().is_some_and(Link::is_closed);
                if closed {
                    self.dispatcher = None;
                }
            }
            Event::Dispatcher(arrived) => self.hear_dispatcher(arrived),
            Event::Go(step) => step(self),
            Event::Leave => self.leaving = true,
            Event::Order(order) => self.obey(order),
            Event::Settled(id, reply) => self.settled(id, reply),
            Event::Scheduler(arrived) => self.hear_scheduler(arrived.message),
            Event::Store(event) => self.hear_store(event),
            Event::Tick => self.store.tick(Instant::now()),
        }
    }

    fn obey(&mut self, order: Arrived<RoleToParent, ParentToRole>) {
        match (order.message, order.descriptor) {
            (ParentToRole::Attach { peer }, Some(descriptor)) => {
                if let Err(error) = self.attach(peer, descriptor) {
                    tracing::error!("warn: queue: channel: {error}");
                }
            }
            (ParentToRole::Switch(switches), _) => {
                self.mda_paused = switches.mda_paused;
                self.mta_paused = switches.mta_paused;
                crate::log::set_verbose(switches.verbose);
            }
            // The dispatcher has left before: what it still said comes before this.
            (ParentToRole::Shutdown, _) => {
                let events = self.events.clone();
                let _ended = events.send(Event::Leave);
            }
            _ => {}
        }
    }

    pub(super) fn attach(
        &mut self,
        peer: Peer,
        descriptor: std::os::fd::OwnedFd,
    ) -> std::io::Result<()> {
        let credits = self.setup.credits;
        match peer {
            Peer::Control => {
                let (_, arrivals) = Link::open(descriptor, credits)?;
                self.forward(arrivals, Event::Control);
            }
            Peer::Dispatcher => {
                let (link, mut arrivals) = Link::open(descriptor, credits)?;
                self.dispatcher = Some(link);
                let events = self.events.clone();
                tokio::spawn(async move {
                    while let Some(arrived) = arrivals.recv().await {
                        let _ended = events.send(Event::Dispatcher(arrived));
                    }
                    let _ended = events.send(Event::DispatcherGone);
                });
            }
            Peer::Scheduler => {
                let (link, arrivals) = Link::open(descriptor, credits)?;
                self.forward(arrivals, Event::Scheduler);
                self.scheduler = Some(pump(link));
                self.added.clear();
                self.fill_scheduler(Cursor::start());
            }
            Peer::Keys | Peer::Lookup | Peer::Queue => {}
        }
        Ok(())
    }

    fn forward<T: Send + 'static>(
        &self,
        mut arrivals: mpsc::UnboundedReceiver<T>,
        event: impl Fn(T) -> Event + Send + 'static,
    ) {
        let events = self.events.clone();
        tokio::spawn(async move {
            while let Some(arrived) = arrivals.recv().await {
                let _ended = events.send(event(arrived));
            }
        });
    }

    /// A completion that goes on with `next` in the loop.
    pub(super) fn then<T: Send + 'static>(
        &self,
        next: impl FnOnce(&mut Self, Result<T, StoreError>) + Send + 'static,
    ) -> Completion<T> {
        let events = self.events.clone();
        Box::new(move |result| {
            // Without a loop nobody waits any more.
            let _ended = events.send(Event::Go(Box::new(move |queue| next(queue, result))));
        })
    }

    fn hear_store(&mut self, event: super::store::Event) {
        use super::store::Event as Told;
        match event {
            Told::Health(health) => {
                let text = match health {
                    Health::Accepting => "",
                    Health::Failing => "the spool cannot be written",
                    Health::Full => {
                        "the spool is full, less than 5 % of its disk is free: no mail is accepted"
                    }
                    Health::Stopped => "the spool is full: nothing is accepted or delivered",
                };
                if text.is_empty() {
                    tracing::info!("info: queue: the spool is writable again");
                } else {
                    tracing::warn!("warn: queue: {text}");
                }
                self.health = health;
                let parent = self.parent.clone();
                let trouble = RoleToParent::Trouble { text: text.to_owned() };
                tokio::spawn(async move {
                    let _gone = parent.notice(&trouble, None).await;
                });
            }
            Told::Quarantined { id, reason } => {
                tracing::warn!("warn: quarantined {id}: {reason}");
            }
            Told::Recovered { envelopes, messages } => {
                tracing::debug!("debug: queue: {envelopes} envelopes of {messages} messages");
            }
            Told::Unusable(reason) => {
                tracing::error!("fatal: queue: {reason}");
                self.leaving = true;
            }
            Told::Torn { segment, offset } => {
                tracing::info!("info: queue: segment {segment} ends torn at byte {offset}");
            }
        }
    }

    // The scheduler.

    /// Tells the scheduler something.
    pub(super) fn tell_scheduler(&self, message: QueueToScheduler) {
        if let Some(scheduler) = &self.scheduler {
            // A scheduler that is gone is filled anew when it is back.
            let _gone = scheduler.send(message);
        }
    }

    /// Tells the scheduler about an envelope, with the others of this turn.
    pub(super) fn add_to_scheduler(&mut self, envelope: &Envelope, in_flight: bool) {
        let due = self.due(envelope, in_flight);
        if let Some(unfit) = due.unfit {
            self.say_unfit(envelope, unfit);
        }
        self.added.push(due);
    }

    /// Sends on what this turn gathered: what began before what ended.
    pub(super) fn flush(&mut self) {
        let mut added = std::mem::take(&mut self.added).into_iter().peekable();
        while added.peek().is_some() {
            let some = added.by_ref().take(ENVELOPES_IN_FRAME).collect();
            self.tell_scheduler(QueueToScheduler::Added(some));
        }
        if std::mem::take(&mut self.filled) {
            self.tell_scheduler(QueueToScheduler::Filled);
        }
        self.flush_ended();
        self.flush_suspects();
    }

    /// Tells a new scheduler everything that is stored, page by page.
    fn fill_scheduler(&mut self, cursor: Cursor) {
        let done = self.then(|queue, page: Result<super::store::Page, StoreError>| {
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!("warn: queue: cannot list the spool: {error}");
                    return;
                }
            };
            for stored in page.envelopes {
                match record::decode(&stored.payload) {
                    Ok(envelope) => {
                        let in_flight = queue.releases.contains(envelope.id);
                        queue.add_to_scheduler(&envelope, in_flight);
                    }
                    Err(error) => tracing::warn!("warn: quarantined {}: {error}", stored.id),
                }
            }
            match page.next {
                Some(next) => queue.fill_scheduler(next),
                None => queue.filled = true,
            }
        });
        self.store.iterate(cursor, PAGE, done);
    }

    pub(super) fn due(&self, envelope: &Envelope, in_flight: bool) -> Due {
        let action = self.action_of(envelope);
        let kind = match envelope.route.kind {
            DeliveryKind::Bounce(_) => DueKind::Bounce,
            DeliveryKind::Local(_) => DueKind::Local,
            DeliveryKind::Relay => DueKind::Relay,
        };
        let bounce = kind == DueKind::Bounce;
        let ttl = action.and_then(|action| action.ttl).filter(|_| !bounce);
        let ttl = ttl.unwrap_or(self.setup.config.queue.ttl).as_secs();
        let destination = match &envelope.route.kind {
            DeliveryKind::Bounce(_) => String::new(),
            DeliveryKind::Local(local) => local.user.clone(),
            DeliveryKind::Relay => envelope.route.destination.domain().to_ascii_lowercase(),
        };
        Due {
            id: envelope.id,
            kind,
            destination,
            created: envelope.progress.created,
            ttl,
            retries: envelope.progress.retries,
            last_bounce: envelope.progress.last_bounce,
            in_flight,
            unfit: self.unfit(envelope),
            suspect: self.suspects.is_held(envelope.id),
        }
    }

    /// The action of the configuration that the envelope names.
    pub(super) fn action_of(&self, envelope: &Envelope) -> Option<&Action> {
        let config = &self.setup.config;
        config.action_named(&envelope.route.action).and_then(|id| config.action(id))
    }

    /// Why the configuration cannot deliver the envelope, if it cannot. A report needs no action.
    pub(super) fn unfit(&self, envelope: &Envelope) -> Option<Unfit> {
        let action = self.action_of(envelope).map(|action| &action.kind);
        match (&envelope.route.kind, action) {
            (DeliveryKind::Bounce(_), _) | (DeliveryKind::Relay, Some(ActionKind::Relay(_))) => {
                None
            }
            (DeliveryKind::Local(local), Some(ActionKind::Local(action))) => {
                // It only forwards or expands now.
                let method = Method::of(action, local.exec.as_ref());
                method.is_none().then_some(Unfit::ActionChanged)
            }
            (DeliveryKind::Local(_) | DeliveryKind::Relay, None) => Some(Unfit::ActionGone),
            (DeliveryKind::Local(_) | DeliveryKind::Relay, Some(_)) => Some(Unfit::ActionChanged),
        }
    }

    /// Says once for each action that its envelopes are held.
    fn say_unfit(&mut self, envelope: &Envelope, unfit: Unfit) {
        let (id, action) = (envelope.id, &envelope.route.action);
        if self.unfit_actions.len() >= UNFIT_SAID || !self.unfit_actions.insert(action.clone()) {
            return;
        }
        let because = match unfit {
            Unfit::ActionChanged => "is of another kind now",
            Unfit::ActionGone => "is not in the configuration",
        };
        tracing::warn!(
            "warn: invalid envelope {id}: unknown dispatcher: action \"{action}\" {because}; \
             its envelopes are held"
        );
    }

    /// How long an envelope may stay.
    pub(super) fn ttl_of(&self, envelope: &Envelope) -> u64 {
        let action = self.action_of(envelope).and_then(|action| action.ttl);
        action.unwrap_or(self.setup.config.queue.ttl).as_secs()
    }
}

/// Sends what it is given as fast as the scheduler has credits, in order.
fn pump(link: Link<QueueToScheduler, SchedulerToQueue>) -> mpsc::UnboundedSender<QueueToScheduler> {
    let (sender, mut waiting) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(message) = waiting.recv().await {
            if link.notice(&message, None).await.is_err() {
                return;
            }
        }
    });
    sender
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Deliveries by message, so that only what is in flight may be read.
pub(super) type MessageCounts = HashMap<crate::model::MessageId, u32>;
