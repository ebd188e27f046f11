//! A queue without processes around it, for tests: its neighbours are the test's own.

use std::time::{Duration, Instant};

use platform::dir::Dir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::ram::RamStore;
use super::record;
use super::role::{Event, Queue};
use super::store::{
    Body, Commit, Cursor, Health, NewEnvelope, Page, Store, StoreError, StoredEnvelope,
};
use crate::config::tests::good;
use crate::ipc::link::{Arrived, Link};
use crate::ipc::message::parent::{
    ParentToRole, Peer, RoleKeys, RoleToParent, Setup, SuspectLists, Switches,
};
use crate::ipc::message::queue::{DispatcherToQueue, QueueToDispatcher};
use crate::ipc::message::scheduler::{DueKind, QueueToScheduler, SchedulerToQueue, Unfit};
use crate::model::envelope::{BounceKind, LocalDelivery};
use crate::model::fixture::relay_envelope;
use crate::model::outcome::{EnhancedStatus, Failure, Outcome};
use crate::model::{DeliveryKind, Envelope, EnvelopeId};
use crate::process::Memory;

const PATIENCE: Duration = Duration::from_secs(20);

type Arrivals<O, I> = mpsc::UnboundedReceiver<Arrived<O, I>>;

/// A queue over a store in memory, its inbox, and its neighbours' ends of the channels.
struct Rehearsal {
    queue: Queue,
    inbox: mpsc::UnboundedReceiver<Event>,
    parent: Arrivals<ParentToRole, RoleToParent>,
    scheduler: Arrivals<SchedulerToQueue, QueueToScheduler>,
    dispatcher: Link<DispatcherToQueue, QueueToDispatcher>,
    deliveries: Arrivals<DispatcherToQueue, QueueToDispatcher>,
    scheduler_link: Link<SchedulerToQueue, QueueToScheduler>,
    parent_link: Link<ParentToRole, RoleToParent>,
    _scratch: tempfile::TempDir,
}

fn setup(suspects: SuspectLists) -> Setup {
    Setup {
        config: good(
            "action \"out\" relay host \"smtp://127.0.0.1\"\nmatch from any for any action \"out\"",
        ),
        generation: 1,
        server_name: "mx.test".to_owned(),
        foreground: true,
        rootless: true,
        daemon_user: "_smtpd".to_owned(),
        overridden: Vec::new(),
        keys: RoleKeys::default(),
        switches: Switches::default(),
        descriptors: 1024,
        spool: String::new(),
        empty: String::new(),
        control_socket: String::new(),
        credits: 64,
        resolvers: Vec::new(),
        suspects,
    }
}

impl Rehearsal {
    /// A queue with these envelopes of one message in its store.
    async fn start(suspects: SuspectLists, envelopes: &[Envelope]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut store = RamStore::new(Dir::open(scratch.path()).unwrap());
        let stored = envelopes.iter().map(|envelope| NewEnvelope {
            id: envelope.id,
            payload: record::encode(envelope).unwrap(),
        });
        let commit = Commit {
            message: envelopes[0].id.message(),
            body: Body::Inline(b"Subject: x\n\nbody\n".to_vec()),
            envelopes: stored.collect(),
            deadline: Instant::now() + PATIENCE,
        };
        store.commit(commit, Box::new(|stored| stored.unwrap()));
        let pair = || platform::fd::socketpair().unwrap();
        let (near, far) = pair();
        let (to_parent, _) = Link::open(near, 64).unwrap();
        let (parent_link, parent) = Link::open(far, 64).unwrap();
        let (events, inbox) = mpsc::unbounded_channel();
        let setup = setup(suspects);
        let mut queue = Queue::new(setup, Box::new(store), to_parent, Memory::open(), events);
        let (near, far) = pair();
        queue.attach(Peer::Scheduler, near).unwrap();
        let (scheduler_link, scheduler) = Link::open(far, 64).unwrap();
        let (near, far) = pair();
        queue.attach(Peer::Dispatcher, near).unwrap();
        let (dispatcher, deliveries) = Link::open(far, 64).unwrap();
        let mut rehearsal = Self {
            queue,
            inbox,
            parent,
            scheduler,
            dispatcher,
            deliveries,
            scheduler_link,
            parent_link,
            _scratch: scratch,
        };
        let QueueToScheduler::Added(added) = rehearsal.scheduler_hears().await else {
            panic!("the scheduler is told what there is");
        };
        assert_eq!(added.len(), envelopes.len());
        assert_eq!(rehearsal.scheduler_hears().await, QueueToScheduler::Filled);
        rehearsal
    }

    /// Runs the loop until `found` has something.
    async fn run_until<T>(&mut self, mut found: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "nothing came");
            if let Ok(Some(event)) = timeout(Duration::from_millis(5), self.inbox.recv()).await {
                self.queue.guard(event);
                self.queue.flush();
            }
        }
    }

    async fn scheduler_hears(&mut self) -> QueueToScheduler {
        self.run_until(|own| own.scheduler.try_recv().ok()).await.message
    }

    /// The next delivery that the dispatcher is asked for.
    async fn delivery(&mut self) -> (EnvelopeId, Arrived<DispatcherToQueue, QueueToDispatcher>) {
        let arrived = self.run_until(|own| own.deliveries.try_recv().ok()).await;
        let QueueToDispatcher::Deliver(delivery) = &arrived.message else {
            panic!("{:?}", arrived.message);
        };
        (delivery.envelope.id, arrived)
    }

    async fn parent_hears(&mut self) -> Arrived<ParentToRole, RoleToParent> {
        self.run_until(|own| own.parent.try_recv().ok()).await
    }

    fn scheduler_says(&mut self, message: SchedulerToQueue) {
        self.queue.hear_scheduler(message);
    }

    fn store_says(&mut self, health: Health) {
        let event = Event::Store(super::store::Event::Health(health));
        self.queue.guard(event);
    }

    fn stored(&mut self) -> Vec<Envelope> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let done = Box::new(move |page: Result<Page, StoreError>| sender.send(page).unwrap());
        self.queue.store.iterate(Cursor::start(), 100, done);
        let page = receiver.recv().unwrap().unwrap();
        let decode = |one: StoredEnvelope| record::decode(&one.payload).unwrap();
        page.envelopes.into_iter().map(decode).collect()
    }
}

fn numbered(numbers: std::ops::RangeInclusive<u64>) -> Vec<Envelope> {
    numbers.map(|number| relay_envelope(number, "someone@example.org")).collect()
}

fn temporary() -> DispatcherToQueue {
    let status = EnhancedStatus::new(4, 4, 1);
    DispatcherToQueue::Outcome(Outcome::Temporary(Failure { text: "later".to_owned(), status }))
}

#[tokio::test]
async fn a_delay_is_reported_and_noted_in_the_envelope() {
    let mut late = relay_envelope(1, "someone@example.org");
    late.progress.created = super::role::now() - 15_000;
    late.progress.error = "451 later".to_owned();
    let created = late.progress.created;
    let mut rehearsal = Rehearsal::start(SuspectLists::default(), &[late.clone()]).await;
    rehearsal.scheduler_says(SchedulerToQueue::Warn { id: late.id, delay: 14_400 });
    let QueueToScheduler::Added(added) = rehearsal.scheduler_hears().await else {
        panic!("the report is scheduled");
    };
    let stored = rehearsal.stored();
    let [first, second] = &stored[..] else { panic!("{stored:?}") };
    let (original, report) = if first.id == late.id { (first, second) } else { (second, first) };
    assert_eq!(original.progress.last_bounce, created + 14_400);
    assert_eq!(original.route.kind, DeliveryKind::Relay);
    assert_eq!(added.iter().map(|due| due.id).collect::<Vec<_>>(), [report.id]);
    let ttl = rehearsal.queue.ttl_of(original);
    let kind = BounceKind::Delayed { delay: 14_400, ttl };
    assert_eq!(report.route.kind, DeliveryKind::Bounce(kind));
    assert_eq!(report.progress.error, "451 later");
}

#[tokio::test]
async fn a_delay_that_nobody_wants_to_hear_of_is_noted_all_the_same() {
    let mut late = relay_envelope(1, "someone@example.org");
    late.progress.created = 1_000;
    late.dsn.notify.0 = crate::model::envelope::Notify::NEVER;
    let mut rehearsal = Rehearsal::start(SuspectLists::default(), &[late.clone()]).await;
    rehearsal.scheduler_says(SchedulerToQueue::Warn { id: late.id, delay: 14_400 });
    let noted = |own: &mut Rehearsal| {
        let stored = own.stored();
        (stored[0].progress.last_bounce == 15_400).then_some(stored)
    };
    assert_eq!(rehearsal.run_until(noted).await.len(), 1);
}

#[tokio::test]
async fn an_envelope_whose_action_does_not_fit_is_left_to_the_scheduler_as_such() {
    let local = || {
        let user = "alice".to_owned();
        DeliveryKind::Local(LocalDelivery { user, exec: None, subaddress: String::new() })
    };
    let report = || DeliveryKind::Bounce(BounceKind::Failed);
    let cases = [
        ("out", DeliveryKind::Relay, DueKind::Relay, None),
        ("out", local(), DueKind::Local, Some(Unfit::ActionChanged)),
        ("gone", local(), DueKind::Local, Some(Unfit::ActionGone)),
        ("gone", DeliveryKind::Relay, DueKind::Relay, Some(Unfit::ActionGone)),
        ("gone", report(), DueKind::Bounce, None),
        ("out", report(), DueKind::Bounce, None),
    ];
    let envelopes = numbered(1..=1);
    let mut rehearsal = Rehearsal::start(SuspectLists::default(), &envelopes).await;
    for (action, kind, due_kind, unfit) in cases {
        let mut envelope = envelopes[0].clone();
        envelope.route.action = action.to_owned();
        envelope.route.kind = kind;
        let due = rehearsal.queue.due(&envelope, false);
        assert_eq!((due.kind, due.unfit), (due_kind, unfit), "{action}");
        if unfit.is_some() {
            rehearsal.queue.release_new(envelope, 0);
            rehearsal.queue.flush();
            let heard = rehearsal.scheduler_hears().await;
            assert_eq!(heard, QueueToScheduler::Added(vec![due]), "not handed out");
        }
    }
    assert!(rehearsal.deliveries.try_recv().is_err());
}

#[tokio::test]
async fn nothing_is_handed_out_while_outcomes_cannot_be_written_down() {
    let envelopes = numbered(1..=2);
    let id = envelopes[0].id;
    let mut rehearsal = Rehearsal::start(SuspectLists::default(), &envelopes).await;
    rehearsal.store_says(Health::Stopped);
    rehearsal.scheduler_says(SchedulerToQueue::Release(vec![id]));
    assert_eq!(rehearsal.scheduler_hears().await, QueueToScheduler::Returned(vec![id]));
    assert!(rehearsal.deliveries.try_recv().is_err());
    rehearsal.queue.release_new(envelopes[1].clone(), 0);
    rehearsal.queue.flush();
    let QueueToScheduler::Added(added) = rehearsal.scheduler_hears().await else {
        panic!("left to the scheduler");
    };
    assert!(!added[0].in_flight);
    // Full, it still delivers; and afterwards all goes on.
    rehearsal.store_says(Health::Full);
    rehearsal.scheduler_says(SchedulerToQueue::Release(vec![id]));
    assert_eq!(rehearsal.delivery().await.0, id);
}

#[tokio::test]
async fn a_delivery_cut_short_by_the_dispatchers_end_counts_no_failure_and_is_remembered() {
    let envelopes = numbered(1..=1);
    let id = envelopes[0].id;
    let mut rehearsal = Rehearsal::start(SuspectLists::default(), &envelopes).await;
    rehearsal.scheduler_says(SchedulerToQueue::Release(vec![id]));
    let (_, delivery) = rehearsal.delivery().await;
    rehearsal.dispatcher.close();
    assert_eq!(rehearsal.scheduler_hears().await, QueueToScheduler::Returned(vec![id]));
    drop(delivery);
    // Without a dispatcher it comes back as it went.
    rehearsal.scheduler_says(SchedulerToQueue::Release(vec![id]));
    assert_eq!(rehearsal.scheduler_hears().await, QueueToScheduler::Returned(vec![id]));
    assert_eq!(rehearsal.stored()[0].progress.retries, 0);
    let Rehearsal { queue, mut parent, .. } = rehearsal;
    let hear = async {
        loop {
            let arrived = parent.recv().await.unwrap();
            if arrived.message == RoleToParent::InFlight(vec![id]) {
                let _gone = arrived.responder.reply(&ParentToRole::Noted, None);
                return;
            }
        }
    };
    let both = async { tokio::join!(queue.last_word(), hear) };
    timeout(PATIENCE, both).await.unwrap();
}

#[tokio::test]
async fn the_parent_hears_what_is_in_flight_and_not_more_often_than_it_answers() {
    let envelopes = numbered(1..=20);
    let ids: Vec<_> = envelopes.iter().map(|envelope| envelope.id).collect();
    let mut rehearsal = Rehearsal::start(SuspectLists::default(), &envelopes).await;
    rehearsal.scheduler_says(SchedulerToQueue::Release(ids.clone()));
    for _ in &ids {
        let (_, delivery) = rehearsal.delivery().await;
        let _gone = delivery.responder.reply(&temporary(), None);
    }
    let first = rehearsal.parent_hears().await;
    let RoleToParent::InFlight(told) = &first.message else { panic!("{:?}", first.message) };
    assert!(!told.is_empty() && told.iter().all(|id| ids.contains(id)), "{told:?}");
    for _ in &ids {
        let failed = rehearsal.scheduler_hears().await;
        assert!(matches!(failed, QueueToScheduler::TemporaryFailures(_)), "{failed:?}");
    }
    assert!(rehearsal.parent.try_recv().is_err(), "one report at a time");
    let _gone = first.responder.reply(&ParentToRole::Noted, None);
    assert_eq!(rehearsal.parent_hears().await.message, RoleToParent::InFlight(Vec::new()));
}

#[tokio::test]
async fn suspects_are_tried_one_at_a_time_and_cleared_when_their_attempt_ends() {
    let envelopes = numbered(1..=4);
    let ids: Vec<_> = envelopes.iter().map(|envelope| envelope.id).collect();
    let suspects = SuspectLists { tried: vec![ids[0], ids[1]], held: vec![ids[2]] };
    let mut rehearsal = Rehearsal::start(suspects, &envelopes).await;
    let due = |own: &Rehearsal, at: usize| own.queue.due(&envelopes[at], false).suspect;
    assert_eq!([0, 1, 2, 3].map(|at| due(&rehearsal, at)), [false, false, true, false]);

    // The third was scheduled by an administrator; the last one is above suspicion.
    rehearsal.scheduler_says(SchedulerToQueue::Release(vec![ids[0], ids[2], ids[1], ids[3]]));
    let (one, first) = rehearsal.delivery().await;
    let (other, innocent) = rehearsal.delivery().await;
    assert_eq!([one, other], [ids[0], ids[3]]);
    let _gone = innocent.responder.reply(&temporary(), None);
    let failed = QueueToScheduler::TemporaryFailures(vec![ids[3]]);
    assert_eq!(rehearsal.scheduler_hears().await, failed);
    assert!(rehearsal.deliveries.try_recv().is_err(), "the others wait");

    let _gone = first.responder.reply(&temporary(), None);
    let (second, delivery) = rehearsal.delivery().await;
    assert_eq!(second, ids[2]);
    let failed = QueueToScheduler::TemporaryFailures(vec![ids[0]]);
    assert_eq!(rehearsal.scheduler_hears().await, failed);
    assert_eq!(rehearsal.scheduler_hears().await, QueueToScheduler::Cleared(vec![ids[0]]));
    let cleared = loop {
        let arrived = rehearsal.parent_hears().await;
        match arrived.message {
            RoleToParent::Cleared(ids) => break ids,
            _ => drop(arrived.responder.reply(&ParentToRole::Noted, None)),
        }
    };
    assert_eq!(cleared, [ids[0]]);

    let outcome = Outcome::Delivered { dsn_relayed: false };
    let _gone = delivery.responder.reply(&DispatcherToQueue::Outcome(outcome), None);
    assert_eq!(rehearsal.delivery().await.0, ids[1]);
    assert!(!due(&rehearsal, 2), "delivered: no suspect any more");
    assert!(!rehearsal.parent_link.is_closed() && !rehearsal.scheduler_link.is_closed());
}
