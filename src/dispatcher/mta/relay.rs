//! One relay: the messages that wait for it, its sessions, and when it may open another.
//!
//! A relay decides and counts; it does no I/O. [`Relay::next_step`] says what to do now and is asked
//! again after everything that could change the answer. Envelopes beyond `task-hiwat` are not
//! taken: they wait in the scheduler until [`Relay::take`] says that there is room.
//!
//! Sources: the queue page of the specification, 3.3, 3.5 to 3.8.

mod choice;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use self::choice::Choice;
use super::RelayJob;
use super::action::RelayKey;
use super::directory::{Event, Release};
use super::limits::Limits;
use super::network::{AddressText, Network, RouteId, Usage, Wait};
use super::task::Task;
use crate::model::{MessageId, ReversePath};

/// Addresses are looked up again after this long; the resolver's cache knows how long they hold.
const STALE: Duration = Duration::from_secs(300);

/// What envelopes must have in common to share a task.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct TaskKey {
    message: MessageId,
    /// The sender that is announced.
    sender: ReversePath,
    /// One that is in ASCII must not fail with others that are not.
    smtputf8: bool,
}

/// An address that takes mail for the relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Address {
    /// Lower is better.
    pub preference: u16,
    /// The address.
    pub ip: IpAddr,
}

/// One of our own addresses to send from, and what to call ourselves there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sender {
    /// `None`: whatever the system takes.
    pub source: Option<IpAddr>,
    /// Argument of EHLO; `None` if the `helo-src` table has no usable entry.
    pub helo: Option<String>,
}

/// What had to be looked up before the first connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Prepared {
    /// Where to connect, sorted by preference.
    pub addresses: Vec<Address>,
    /// Our own preference among them (`backup`); only better ones are used. All are used without
    /// one, and by a backup that is not among them.
    pub below: Option<u16>,
    /// Where to connect from: at least one.
    pub senders: Vec<Sender>,
}

/// Why all that waits on a relay is deferred. The text is the envelopes' status.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RelayFailure {
    /// An administrator's block.
    #[error("All routes to destination blocked")]
    Blocked,
    /// Only addresses of a family that is not used.
    #[error("Address family mismatch on destination MXs")]
    Family,
    /// No address that may be used.
    #[error("No MX found for destination")]
    NoExchange,
    /// Every route is disabled.
    #[error("Network error on destination MXs")]
    Network,
    /// Our own address cannot be used, or has no name.
    #[error("No valid route to destination")]
    Source,
    /// The table of source addresses is empty or fails.
    #[error("Could not retrieve source address")]
    SourceTable,
}

impl RelayFailure {
    /// The connector's flag in logs.
    fn flag(self) -> u8 {
        match self {
            Self::Family => 0x01,
            Self::Source | Self::SourceTable => 0x02,
            Self::NoExchange => 0x04,
            Self::Network => 0x18,
            Self::Blocked => 0x20,
        }
    }

    /// The line for the log, if this failure has one.
    #[must_use]
    pub fn log_line(self, connector: &str) -> Option<String> {
        match self {
            Self::Family => Some(format!("smtp-out: Address family mismatch on {connector}")),
            Self::NoExchange => Some(format!("smtp-out: No MX found for {connector}")),
            Self::Network | Self::Blocked | Self::Source => {
                Some(format!("smtp-out: No valid route for {connector}"))
            }
            Self::SourceTable => None,
        }
    }
}

/// A connection to be made. It is counted as open until [`Relay::session_ended`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// From where to where.
    pub route: RouteId,
    /// Argument of EHLO.
    pub helo: String,
}

/// What a relay wants now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Connect, and ask again.
    Connect(Plan),
    /// Defer everything that waits ([`Relay::drain`]).
    Fail(RelayFailure),
    /// Nothing.
    Idle,
    /// Look up what [`Prepared`] holds, then call [`Relay::prepared`].
    Prepare,
    /// Ask again then, unless something changes before.
    Wait(Instant),
}

/// What became of an envelope that was brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pushed {
    /// Not taken: it waits in the hold queue of the relay. True for the first one.
    Held {
        /// Whether holding just began.
        begins: bool,
    },
    /// It waits here.
    Waits,
}

/// How far the look-ups are.
#[derive(Debug)]
enum Preparation {
    Done(Reach),
    Running,
    Wanted,
}

/// From where and to where the relay can connect.
#[derive(Debug)]
struct Reach {
    connectors: Vec<Connector>,
    addresses: Vec<Address>,
    below: Option<u16>,
    /// When to look all of this up again.
    stale_at: Instant,
    refreshing: bool,
}

/// One own address on a relay.
#[derive(Debug)]
struct Connector {
    sender: Sender,
    usage: Usage,
    /// The address cannot be used.
    is_bad: bool,
}

/// A relay at work.
#[derive(Debug)]
pub struct Relay {
    /// What it is for.
    pub key: RelayKey,
    /// Number of its hold queue.
    pub id: u64,
    /// Its limits.
    pub limits: Limits,
    preparation: Preparation,
    waiting: HashMap<TaskKey, Task>,
    order: VecDeque<TaskKey>,
    usage: Usage,
    /// Sessions that wait for a task.
    idle: usize,
    /// Sessions that are about to end by themselves.
    leaving: usize,
    on_hold: bool,
    /// Envelopes were held and not all released.
    has_held: bool,
}

impl Relay {
    /// A relay without work. `id` is unique among living relays.
    #[must_use]
    pub fn new(key: RelayKey, id: u64, limits: &Limits) -> Self {
        let limits = limits.clone().settled(key.is_host);
        Self {
            key,
            id,
            limits,
            preparation: Preparation::Wanted,
            waiting: HashMap::new(),
            order: VecDeque::new(),
            usage: Usage::default(),
            idle: 0,
            leaving: 0,
            on_hold: false,
            has_held: false,
        }
    }

    /// Messages that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.order.len()
    }

    /// Open sessions.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.usage.sessions
    }

    /// Sessions that wait for a task.
    #[must_use]
    pub fn idle_sessions(&self) -> usize {
        self.idle
    }

    /// Whether new envelopes are held.
    #[must_use]
    pub fn is_on_hold(&self) -> bool {
        self.on_hold
    }

    /// Whether nothing is left to do, so that the relay can go.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let is_running = match &self.preparation {
            Preparation::Done(reach) => reach.refreshing,
            Preparation::Running => true,
            Preparation::Wanted => false,
        };
        self.order.is_empty() && self.usage.sessions == 0 && !is_running
    }

    /// Brings an envelope; envelopes of one message that wait together become one task.
    pub fn push(&mut self, job: RelayJob) -> Pushed {
        if self.on_hold || self.order.len() >= self.limits.task_hiwat {
            let begins = !self.on_hold;
            self.on_hold = true;
            self.has_held = true;
            return Pushed::Held { begins };
        }
        let RelayJob { envelope, sender, body } = job;
        let sender = match (sender, &self.key.action.mail_from) {
            (Some(sender), _) => sender,
            (None, Some(rewrite)) => rewrite.apply(&envelope.origin.sender),
            (None, None) => envelope.origin.sender.clone(),
        };
        let smtputf8 = envelope.needs_smtputf8(&sender);
        let key = TaskKey { message: envelope.id.message(), sender, smtputf8 };
        if let Some(task) = self.waiting.get_mut(&key) {
            task.envelopes.push(envelope);
            return Pushed::Waits;
        }
        let sender = key.sender.clone();
        let task = Task { sender, envelopes: vec![envelope], smtputf8, body };
        self.order.push_back(key.clone());
        self.waiting.insert(key, task);
        Pushed::Waits
    }

    /// The next task for a session, and what the scheduler may release for it.
    pub fn take(&mut self) -> Option<(Task, Option<Event>)> {
        let key = self.order.pop_front()?;
        let task = self.waiting.remove(&key)?;
        Some((task, self.release()))
    }

    /// What the hold queue may release now that fewer messages wait.
    fn release(&mut self) -> Option<Event> {
        let waiting = self.order.len();
        let release = if waiting == 0 && self.has_held {
            self.has_held = false;
            Release::All
        } else if self.on_hold && waiting <= self.limits.task_lowat {
            Release::Count(self.limits.task_release)
        } else {
            return None;
        };
        self.on_hold = false;
        Some(Event::Released { relay: self.id, release })
    }

    /// Takes everything that waits away, because the relay failed.
    pub fn drain(&mut self) -> (Vec<Task>, Option<Event>) {
        let tasks = self.order.drain(..).filter_map(|key| self.waiting.remove(&key)).collect();
        self.on_hold = false;
        let held = std::mem::take(&mut self.has_held);
        let event =
            held.then_some(Event::Released { relay: self.id, release: Release::Reschedule });
        (tasks, event)
    }

    /// The look-ups came to an end.
    pub fn prepared(&mut self, prepared: Prepared, now: Instant) {
        let before = match &self.preparation {
            Preparation::Done(reach) => reach.connectors.as_slice(),
            _ => &[],
        };
        let usage = |sender: &Sender| {
            let same = before.iter().find(|known| known.sender.source == sender.source);
            same.map(|known| known.usage).unwrap_or_default()
        };
        let connectors = prepared
            .senders
            .into_iter()
            .map(|sender| Connector {
                is_bad: sender.helo.is_none(),
                usage: usage(&sender),
                sender,
            })
            .collect();
        self.preparation = Preparation::Done(Reach {
            connectors,
            addresses: prepared.addresses,
            below: prepared.below,
            stale_at: now + STALE,
            refreshing: false,
        });
    }

    /// The look-ups failed: what waits is to be drained; later mail tries them again.
    pub fn preparation_failed(&mut self) {
        self.preparation = Preparation::Wanted;
    }

    /// What to do now.
    pub fn next_step(&mut self, network: &mut Network, now: Instant) -> Step {
        if !self.wants_session() {
            return Step::Idle;
        }
        let reach = match &mut self.preparation {
            Preparation::Done(reach) => reach,
            Preparation::Running => return Step::Idle,
            Preparation::Wanted => {
                self.preparation = Preparation::Running;
                return Step::Prepare;
            }
        };
        if reach.stale_at <= now && !reach.refreshing {
            reach.refreshing = true;
            return Step::Prepare;
        }
        let Reach { connectors, addresses, below, .. } = &*reach;
        let limits = &self.limits;
        let mut wait = Wait::default();
        if !wait.admits(self.usage.room(limits.max_conn_per_relay, now), now) {
            return wait.until().map_or(Step::Idle, Step::Wait);
        }
        // Own addresses take turns.
        let mut turns: Vec<usize> = (0..connectors.len()).collect();
        turns.sort_by_key(|&at| connectors.get(at).map(|connector| connector.usage.sessions));
        let mut failure = RelayFailure::NoExchange;
        let mut found = None;
        for at in turns {
            let Some(connector) = connectors.get(at) else { continue };
            if connector.is_bad {
                failure = RelayFailure::Source;
                continue;
            }
            let source = connector.sender.source;
            let domain = &self.key.domain;
            let admitted = wait
                .admits(connector.usage.room(limits.max_conn_per_connector, now), now)
                && network.admits(source, domain, limits, now, &mut wait);
            if !admitted {
                continue;
            }
            if network.is_blocked(source, domain) {
                failure = RelayFailure::Blocked;
                continue;
            }
            let choice = Choice { network, limits, port: self.key.port, source, now };
            match choice.of(addresses, *below, &mut wait) {
                Ok(Some(route)) => {
                    found = Some((at, route));
                    break;
                }
                Ok(None) => {}
                Err(reason) => failure = reason,
            }
        }
        match (found, wait.until()) {
            (Some((connector, route)), _) => self.connect(connector, route, network, now),
            (None, Some(at)) => Step::Wait(at),
            // Sessions that are open may still take what waits.
            (None, None) if self.usage.sessions > 0 => Step::Idle,
            (None, None) => Step::Fail(failure),
        }
    }

    /// More sessions help when messages wait, unless there are enough already (3.7).
    fn wants_session(&self) -> bool {
        let (tasks, sessions) = (self.order.len(), self.usage.sessions);
        tasks > self.idle && !(sessions > 2 && sessions >= tasks / 2)
    }

    fn connect(&mut self, at: usize, route: RouteId, network: &mut Network, now: Instant) -> Step {
        let limits = &self.limits;
        let Preparation::Done(reach) = &mut self.preparation else { return Step::Idle };
        let Some(connector) = reach.connectors.get_mut(at) else { return Step::Idle };
        connector.usage.open(now, limits.conn_delay_connector);
        self.usage.open(now, limits.conn_delay_relay.unwrap_or_default());
        network.open(route, &self.key.domain, limits, now);
        let helo = connector.sender.helo.clone().unwrap_or_default();
        Step::Connect(Plan { route, helo })
    }

    /// A session waits for a task from now on, until [`Relay::session_wakes`].
    pub fn session_waits(&mut self) {
        self.idle += 1;
    }

    /// A session looks for a task again, or ends.
    pub fn session_wakes(&mut self) {
        self.idle = self.idle.saturating_sub(1);
    }

    /// Whether an idle session may leave before its time: others stay. If so it counts as leaving.
    pub fn may_leave_early(&mut self) -> bool {
        let others = self.usage.sessions.saturating_sub(self.leaving) > 1;
        self.leaving += usize::from(others);
        others
    }

    /// A session that [`Relay::may_leave_early`] told to leave has ended.
    pub fn has_left(&mut self) {
        self.leaving = self.leaving.saturating_sub(1);
    }

    /// The session of `plan` ended, its connection included.
    pub fn session_ended(&mut self, plan: &Plan, network: &mut Network, now: Instant) {
        self.usage.close();
        if let Some(connector) = self.connector_of(plan) {
            connector.usage.close();
        }
        network.close(plan.route, &self.key.domain, &self.limits, now);
    }

    /// Our own address of `plan` cannot be used.
    pub fn source_failed(&mut self, plan: &Plan) {
        if let Some(connector) = self.connector_of(plan) {
            connector.is_bad = true;
        }
    }

    fn connector_of(&mut self, plan: &Plan) -> Option<&mut Connector> {
        let Preparation::Done(reach) = &mut self.preparation else { return None };
        reach.connectors.iter_mut().find(|known| known.sender.source == plan.route.source)
    }

    /// `[connector:SRC->RELAY,0xFLAGS]` as in logs: of the first own address.
    #[must_use]
    pub fn connector_text(&self, failure: RelayFailure) -> String {
        let source = match &self.preparation {
            Preparation::Done(reach) => {
                reach.connectors.first().and_then(|connector| connector.sender.source)
            }
            _ => None,
        };
        let source = source.map_or("[]".to_owned(), |source| AddressText(source).to_string());
        format!("[connector:{source}->{},{:#x}]", self.key, failure.flag())
    }
}

#[cfg(test)]
mod tests;
