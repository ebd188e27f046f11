//! The scheduler role: hears from the queue what there is, and tells it what is due.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use platform::Role;
use tokio::sync::mpsc;

use super::clock::Reading;
use super::run_queue::Scheduler;
use super::work::{
    Block, Due, End, HoldQueue, Kind, Operation, Release, Settings, State, Target, Work,
};
use crate::ipc::link::{Arrived, Link};
use crate::ipc::message::parent::{ParentToRole, Peer, RoleToParent, Setup, Switches};
use crate::ipc::message::scheduler::{
    self as wire, ControlToScheduler, DueKind, EnvelopeOrder, HoldReason, HoldRelease,
    ListedEnvelope, QueueToScheduler, SchedulerToControl, SchedulerToQueue, Selection, Unfit,
};
use crate::ipc::message::statistics::Snapshot;
use crate::model::EnvelopeId;
use crate::process::{self, Context, Memory, Threads};

/// Envelopes released in one turn, so that the queue is never far behind.
const CREDITS: usize = 512;
/// Envelopes of one answer to control at most.
const LISTED: u32 = 1024;
/// Longest sleep: clocks are looked at at least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// The channel to the queue.
type QueueLink = Link<SchedulerToQueue, QueueToScheduler>;

/// Runs the role.
pub fn run() -> ExitCode {
    process::run(Role::Scheduler, Threads::One, |_| Ok(()), serve)
}

enum Event {
    Control(Arrived<SchedulerToControl, ControlToScheduler>),
    Order(Arrived<RoleToParent, ParentToRole>),
    Queue(Arrived<SchedulerToQueue, QueueToScheduler>),
    Leave,
}

async fn serve(context: Context, (): ()) {
    context.ready().await;
    let Context { setup, parent: _parent, mut orders, memory, .. } = context;
    let (events, mut inbox) = mpsc::unbounded_channel();
    let forward = events.clone();
    tokio::spawn(async move {
        while let Some(order) = orders.recv().await {
            let _ended = forward.send(Event::Order(order));
        }
        let _ended = forward.send(Event::Leave);
    });
    let clock = Clock { start: Instant::now() };
    let mut role = Loop {
        scheduler: Scheduler::new(settings_of(&setup), clock.read()),
        clock,
        setup,
        memory,
        queue: None,
        complete: false,
        events,
    };
    role.switch(role.setup.switches);
    loop {
        let sleep = role.work().await;
        let event = tokio::select! {
            event = inbox.recv() => event,
            () = tokio::time::sleep(sleep) => continue,
        };
        match event {
            None | Some(Event::Leave) => return,
            Some(event) => role.handle(event),
        }
        // What came meanwhile is heard before more is released.
        while let Ok(event) = inbox.try_recv() {
            if matches!(event, Event::Leave) {
                return;
            }
            role.handle(event);
        }
    }
}

struct Clock {
    start: Instant,
}

impl Clock {
    fn read(&self) -> Reading {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Reading {
            monotonic: self.start.elapsed(),
            wall: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

struct Loop {
    setup: Setup,
    scheduler: Scheduler,
    clock: Clock,
    memory: Memory,
    queue: Option<QueueLink>,
    /// The queue has told everything that it holds.
    complete: bool,
    events: mpsc::UnboundedSender<Event>,
}

fn settings_of(setup: &Setup) -> Settings {
    let limits = &setup.config.scheduler;
    let usual = Settings::default();
    let count =
        |limit: crate::config::Limit, usual| limit.get().map_or(usual, |most| most as usize);
    Settings {
        max_inflight: count(limits.max_inflight, usize::MAX),
        max_schedule: count(limits.max_schedule, usize::MAX),
        overdue_per_second: usual.overdue_per_second,
        warn_intervals: setup.config.bounce.warn_intervals.clone(),
    }
}

impl Loop {
    /// Releases what is due; says how long nothing more will be.
    async fn work(&mut self) -> Duration {
        let Some(queue) = self.queue.clone().filter(|queue| !queue.is_closed()) else {
            return LONGEST_SLEEP;
        };
        let batches = self.scheduler.poll(self.clock.read(), CREDITS);
        let released = !batches.is_empty();
        for batch in batches {
            let message = match batch.work {
                Work::Deliver(_) => SchedulerToQueue::Release(batch.envelopes),
                Work::Expire => SchedulerToQueue::Expire(batch.envelopes),
                Work::Remove => SchedulerToQueue::Remove(batch.envelopes),
            };
            // A queue that is gone is told anew when it is back: everything is inserted again.
            if queue.notice(&message, None).await.is_err() {
                return LONGEST_SLEEP;
            }
        }
        if released {
            return Duration::ZERO;
        }
        let wake = self.scheduler.next_wake(self.clock.read());
        wake.map_or(LONGEST_SLEEP, |wake| wake.clamp(Duration::from_millis(1), LONGEST_SLEEP))
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Control(arrived) => self.answer(arrived),
            Event::Leave => {}
            Event::Order(order) => self.obey(order),
            Event::Queue(arrived) => self.hear(arrived.message),
        }
    }

    fn obey(&mut self, order: Arrived<RoleToParent, ParentToRole>) {
        match (order.message, order.descriptor) {
            (ParentToRole::Attach { peer }, Some(descriptor)) => {
                if let Err(error) = self.attach(peer, descriptor) {
                    tracing::error!("warn: scheduler: channel: {error}");
                }
            }
            (ParentToRole::Switch(switches), _) => {
                crate::log::set_verbose(switches.verbose);
                self.switch(switches);
            }
            _ => {}
        }
    }

    fn switch(&mut self, switches: Switches) {
        self.setup.switches = switches;
        for (kind, paused) in
            [(Kind::Local, switches.mda_paused), (Kind::Relay, switches.mta_paused)]
        {
            if paused {
                self.scheduler.pause(kind)
            } else {
                self.scheduler.resume(kind)
            };
        }
        // A report needs a session with ourselves.
        if switches.smtp_paused {
            self.scheduler.pause(Kind::Bounce);
        } else {
            self.scheduler.resume(Kind::Bounce);
        }
    }

    fn attach(&mut self, peer: Peer, descriptor: OwnedFd) -> io::Result<()> {
        let credits = self.setup.credits;
        let events = self.events.clone();
        match peer {
            Peer::Control => {
                let (_, mut arrivals) = Link::open(descriptor, credits)?;
                tokio::spawn(async move {
                    while let Some(arrived) = arrivals.recv().await {
                        let _ended = events.send(Event::Control(arrived));
                    }
                });
            }
            Peer::Queue => {
                let (link, mut arrivals) = Link::open(descriptor, credits)?;
                self.queue = Some(link);
                self.complete = false;
                // What an earlier queue had in hand, nobody has any more.
                self.scheduler = Scheduler::new(settings_of(&self.setup), self.clock.read());
                self.switch(self.setup.switches);
                tokio::spawn(async move {
                    while let Some(arrived) = arrivals.recv().await {
                        let _ended = events.send(Event::Queue(arrived));
                    }
                });
            }
            Peer::Dispatcher | Peer::Keys | Peer::Lookup | Peer::Scheduler => {}
        }
        Ok(())
    }

    fn hear(&mut self, message: QueueToScheduler) {
        let now = self.clock.read();
        match message {
            QueueToScheduler::Added(envelopes) => {
                for due in &envelopes {
                    self.insert(due, now);
                }
            }
            QueueToScheduler::Cleared(ids) => {
                for id in ids {
                    self.scheduler.unblock(id, Block::Suspect, now);
                }
            }
            QueueToScheduler::Ended(ends) => {
                for (id, end) in ends {
                    self.scheduler.ended(id, end_of(end));
                }
            }
            QueueToScheduler::Filled => self.complete = true,
            QueueToScheduler::Held { id, hold_queue } => {
                self.scheduler.hold(id, HoldQueue(hold_queue), now);
            }
            QueueToScheduler::Released { hold_queue, release } => {
                let release = match release {
                    HoldRelease::All => Release::All,
                    HoldRelease::Failed => Release::Failed,
                    HoldRelease::Some(count) => Release::Some(count as usize),
                };
                self.scheduler.release(HoldQueue(hold_queue), release, now);
            }
            QueueToScheduler::Retry(ids) => {
                for id in ids {
                    self.scheduler.administer(Operation::Schedule, Target::Envelope(id), now);
                }
            }
            QueueToScheduler::Returned(ids) => {
                for id in ids {
                    self.scheduler.returned(id, now);
                }
            }
            QueueToScheduler::TemporaryFailures(ids) => {
                for id in ids {
                    self.failed(id, now);
                }
            }
        }
    }

    fn insert(&mut self, due: &wire::Due, now: Reading) {
        self.scheduler.insert(
            &Due {
                id: due.id,
                kind: match due.kind {
                    DueKind::Bounce => Kind::Bounce,
                    DueKind::Local => Kind::Local,
                    DueKind::Relay => Kind::Relay,
                },
                destination: &due.destination,
                created: due.created,
                ttl: Duration::from_secs(due.ttl),
                retries: due.retries,
                last_bounce: due.last_bounce,
                in_flight: due.in_flight,
                blocked: due.unfit.map(|unfit| match unfit {
                    Unfit::ActionChanged => Block::OtherAction,
                    Unfit::ActionGone => Block::NoAction,
                }),
            },
            now,
        );
        if due.suspect {
            self.scheduler.block(due.id, Block::Suspect);
        }
    }

    fn failed(&mut self, id: EnvelopeId, now: Reading) {
        let Some(deferred) = self.scheduler.temporary(id, now) else { return };
        let (Some(delay), Some(queue)) = (deferred.warn, self.queue.clone()) else { return };
        let delay = delay.as_secs();
        tokio::spawn(async move {
            let _gone = queue.notice(&SchedulerToQueue::Warn { id, delay }, None).await;
        });
    }

    fn answer(&mut self, arrived: Arrived<SchedulerToControl, ControlToScheduler>) {
        let now = self.clock.read();
        let answer = match arrived.message {
            ControlToScheduler::List { message, after, count } => {
                let target = message.map_or(Target::All, Target::Message);
                let seconds = now.wall / 1000;
                let listed = self.scheduler.list(target, after, now);
                let listed = listed.take(count.min(LISTED) as usize);
                let envelopes = listed.map(|one| listed_of(&one, seconds)).collect();
                let served = self.queue.as_ref().is_some_and(|queue| !queue.is_closed());
                SchedulerToControl::Listed { envelopes, complete: self.complete && served }
            }
            ControlToScheduler::Order(order, selection) => {
                let operation = match order {
                    EnvelopeOrder::Pause => Operation::Pause,
                    EnvelopeOrder::Remove => Operation::Remove,
                    EnvelopeOrder::Resume => Operation::Resume,
                    EnvelopeOrder::Schedule => Operation::Schedule,
                };
                let target = match selection {
                    Selection::All => Target::All,
                    Selection::Envelope(id) => Target::Envelope(id),
                    Selection::Message(id) => Target::Message(id),
                };
                let count = self.scheduler.administer(operation, target, now);
                SchedulerToControl::Counted(u32::try_from(count).unwrap_or(u32::MAX))
            }
            ControlToScheduler::Statistics => SchedulerToControl::Statistics(self.statistics()),
        };
        // An administrator who has left does not wait.
        let _gone = arrived.responder.reply(&answer, None);
    }

    fn statistics(&self) -> Snapshot {
        let statistics = self.scheduler.statistics();
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let size = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let mut counters = vec![
            ("scheduler.delivery.loop", count(statistics.looped)),
            ("scheduler.delivery.ok", count(statistics.delivered)),
            ("scheduler.delivery.permfail", count(statistics.permanent)),
            ("scheduler.delivery.tempfail", count(statistics.temporary)),
            ("scheduler.envelope", size(statistics.envelopes)),
            ("scheduler.envelope.expired", count(statistics.expired)),
            ("scheduler.envelope.inflight", size(statistics.in_flight)),
            ("scheduler.envelope.removed", count(statistics.removed)),
            ("scheduler.envelope.updated", count(statistics.updated)),
            ("scheduler.ramqueue.envelope", size(statistics.envelopes)),
            ("scheduler.ramqueue.hold", size(statistics.held)),
            ("scheduler.ramqueue.hold-overflow", count(statistics.hold_overflow)),
            ("scheduler.ramqueue.holdq", size(statistics.hold_queues)),
        ];
        counters.retain(|(_, value)| *value != 0);
        let counters = counters.into_iter().map(|(name, value)| (name.to_owned(), value));
        self.memory.snapshot(counters.collect())
    }
}

fn end_of(end: wire::End) -> End {
    match end {
        wire::End::Delivered => End::Delivered,
        wire::End::Expired => End::Expired,
        wire::End::Loop => End::Loop,
        wire::End::Permanent => End::Permanent,
        wire::End::Removed => End::Removed,
    }
}

fn listed_of(listed: &super::work::Listed, now: i64) -> ListedEnvelope {
    let (in_flight, delay) = match listed.state {
        State::InFlight(since) => (true, since),
        State::Pending(wait) => (false, wait),
    };
    ListedEnvelope {
        id: listed.id,
        in_flight,
        delay,
        suspended: listed.suspended,
        held: listed.held || listed.blocked.is_some(),
        reason: listed.blocked.and_then(|block| match block {
            // That is said by `suspended`.
            Block::Administrator => None,
            Block::NoAction => Some(HoldReason::Unfit(Unfit::ActionGone)),
            Block::OtherAction => Some(HoldReason::Unfit(Unfit::ActionChanged)),
            Block::Suspect => Some(HoldReason::Suspect),
        }),
        expires: now.saturating_add(listed.expires_in),
    }
}
