//! What a client's request needs of the other roles, asked over their channels.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::timeout;

use super::role::Shared;
use super::session::{Answer, Ask, BodyAnswer, SessionAnswer};
use super::statistics::Sum;
use crate::ipc::message::client::{
    Change, ListedState, Place, Selection, Service, Status, Verbosity,
};
use crate::ipc::message::control::{
    ControlToDispatcher, ControlToKeys, ControlToLookup, ControlToQueue, DispatcherToControl,
    KeysToControl, LookupToControl, QueueToControl,
};
use crate::ipc::message::parent::{self, Administration, ParentToRole, RoleToParent};
use crate::ipc::message::queue::BodyPiece;
use crate::ipc::message::scheduler::{
    self, ControlToScheduler, EnvelopeOrder, ListedEnvelope, SchedulerToControl,
};
use crate::ipc::message::statistics::Snapshot;
use crate::ipc::neighbour::Neighbour;
use crate::model::{Envelope, EnvelopeId};
use crate::process::ParentLink;

/// How long the counters of one role are waited for.
const COUNTERS_PATIENCE: Duration = Duration::from_secs(2);
/// Envelopes that the queue is asked for in one request; several are under way at once.
const ENVELOPES: usize = 32;
/// Requests for envelopes that one listing has under way.
const UNDER_WAY: usize = 32;

/// The channels to the other roles.
pub(super) struct Roles {
    parent: ParentLink,
    pub(super) dispatcher: Neighbour<ControlToDispatcher, DispatcherToControl>,
    pub(super) keys: Neighbour<ControlToKeys, KeysToControl>,
    pub(super) lookup: Neighbour<ControlToLookup, LookupToControl>,
    pub(super) queue: Neighbour<ControlToQueue, QueueToControl>,
    pub(super) scheduler: Neighbour<ControlToScheduler, SchedulerToControl>,
}

/// An answer, and the descriptor that goes on to the client with it.
type Answered = (Answer, Option<OwnedFd>);

impl Roles {
    pub(super) fn new(parent: ParentLink) -> Self {
        Self {
            parent,
            dispatcher: Neighbour::default(),
            keys: Neighbour::default(),
            lookup: Neighbour::default(),
            queue: Neighbour::default(),
            scheduler: Neighbour::default(),
        }
    }
}

impl Shared {
    /// Asks whom it concerns. A role that does not answer is [`Answer::Unavailable`].
    pub(super) async fn ask(&self, ask: Ask) -> Answered {
        let answer = match ask {
            Ask::Body { message, offset } => {
                return self.body(ControlToQueue::LoadBody { message, offset }).await;
            }
            Ask::OpenSession { uid } => return self.open_session(uid).await,
            Ask::Change(change, selection) => self.change(change, selection).await,
            Ask::Envelopes(ids) => self.envelopes(&ids).await,
            Ask::Pause { service, paused } => {
                self.administer(match service {
                    Service::Mda => Administration::Mda { paused },
                    Service::Mta => Administration::Mta { paused },
                    Service::Smtp => Administration::Smtp { paused },
                })
                .await
            }
            Ask::Places { message, after, count } => {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                self.places(ControlToScheduler::List { message, after, count }).await
            }
            Ask::SetVerbosity(verbosity) => {
                let on = verbosity == Verbosity::Verbose;
                self.administer(Administration::Verbose { on }).await
            }
            Ask::Statistics => self.statistics().await,
            Ask::Status => match self.parent_status().await {
                Some(status) => Answer::Status(status_for_client(&status)),
                None => Answer::Unavailable,
            },
            Ask::Reload => self.administer(Administration::Reload).await,
            Ask::Stop => self.administer(Administration::Stop).await,
            Ask::UpdateTable(name) => self.update_table(name).await,
        };
        (answer, None)
    }

    async fn body(&self, request: ControlToQueue) -> Answered {
        match self.roles.queue.request(&request, None).await {
            Ok((QueueToControl::Body(piece), passed)) => match piece {
                BodyPiece::Absent | BodyPiece::Damaged => (Answer::Body(BodyAnswer::Absent), None),
                BodyPiece::Descriptor { size } if passed.is_some() => {
                    (Answer::Body(BodyAnswer::File { size }), passed)
                }
                BodyPiece::Descriptor { .. } => (Answer::Unavailable, None),
                BodyPiece::Inline { size, bytes } => {
                    (Answer::Body(BodyAnswer::Piece { size, bytes: bytes.0 }), None)
                }
            },
            _ => (Answer::Unavailable, None),
        }
    }

    /// Gives the dispatcher one end of a new socket, and the other to the client.
    async fn open_session(&self, uid: u32) -> Answered {
        if self.state().switches.smtp_paused {
            return (Answer::Session(SessionAnswer::Disallowed), None);
        }
        let (near, far) = match platform::fd::socketpair() {
            Ok(pair) => pair,
            Err(error) => {
                tracing::warn!("warn: control: no session for uid {uid}: {error}");
                return (Answer::Session(SessionAnswer::Busy), None);
            }
        };
        match self.roles.dispatcher.notice(&ControlToDispatcher::Submission, Some(far)).await {
            Ok(()) => (Answer::Session(SessionAnswer::Open), Some(near)),
            Err(_) => (Answer::Session(SessionAnswer::Busy), None),
        }
    }

    async fn change(&self, change: Change, selection: Selection) -> Answer {
        let order = match change {
            Change::Pause => EnvelopeOrder::Pause,
            Change::Remove => EnvelopeOrder::Remove,
            Change::Resume => EnvelopeOrder::Resume,
            Change::Schedule => EnvelopeOrder::Schedule,
        };
        let selection = match selection {
            Selection::All => scheduler::Selection::All,
            Selection::Envelope(id) => scheduler::Selection::Envelope(id),
            Selection::Message(id) => scheduler::Selection::Message(id),
        };
        let request = ControlToScheduler::Order(order, selection);
        match self.roles.scheduler.request(&request, None).await {
            Ok((SchedulerToControl::Counted(number), _)) => Answer::Count(number.into()),
            _ => Answer::Unavailable,
        }
    }

    /// Asks the queue in several requests at once: it reads one envelope after the other for each.
    async fn envelopes(&self, ids: &[EnvelopeId]) -> Answer {
        let mut looked_at = 0;
        let mut found = Vec::with_capacity(ids.len());
        for wave in ids.chunks(ENVELOPES * UNDER_WAY) {
            let mut tasks = Vec::with_capacity(UNDER_WAY);
            for some in wave.chunks(ENVELOPES) {
                let queue = self.roles.queue.clone();
                let request = ControlToQueue::Envelopes(some.to_vec());
                let task = tokio::spawn(async move { queue.request(&request, None).await });
                tasks.push((some.len(), task));
            }
            for (asked, task) in tasks {
                let Ok(Ok((QueueToControl::Envelopes { looked_at: some, found: blobs }, _))) =
                    task.await
                else {
                    return Answer::Unavailable;
                };
                let some = usize::try_from(some).unwrap_or(asked).min(asked);
                looked_at += some;
                let envelopes = blobs.iter().map(|blob| postcard::from_bytes::<Envelope>(&blob.0));
                found.extend(envelopes.filter_map(Result::ok));
                if some < asked {
                    // Those after the gap are asked for again, in order.
                    return Answer::Envelopes { looked_at, found };
                }
            }
        }
        Answer::Envelopes { looked_at, found }
    }

    async fn places(&self, request: ControlToScheduler) -> Answer {
        match self.roles.scheduler.request(&request, None).await {
            Ok((SchedulerToControl::Listed { envelopes, complete }, _)) => {
                Answer::Places { places: envelopes.iter().map(place).collect(), complete }
            }
            _ => Answer::Unavailable,
        }
    }

    async fn administer(&self, order: Administration) -> Answer {
        match self.roles.parent.request(&RoleToParent::Administer(order), None).await {
            Ok((ParentToRole::Administered { done }, _)) => Answer::Done(done),
            _ => Answer::Unavailable,
        }
    }

    async fn update_table(&self, name: String) -> Answer {
        match self.roles.lookup.request(&ControlToLookup::UpdateTable { name }, None).await {
            Ok((LookupToControl::Updated { done }, _)) => Answer::Done(done),
            _ => Answer::Unavailable,
        }
    }

    async fn parent_status(&self) -> Option<parent::Status> {
        match self.roles.parent.request(&RoleToParent::Status, None).await {
            Ok((ParentToRole::Status(status), _)) => Some(status),
            _ => None,
        }
    }

    /// The counters of all roles that answer in time.
    async fn statistics(&self) -> Answer {
        let roles = &self.roles;
        let (dispatcher, keys, lookup, queue, scheduler, status) = tokio::join!(
            timeout(
                COUNTERS_PATIENCE,
                roles.dispatcher.request(&ControlToDispatcher::Statistics, None)
            ),
            timeout(COUNTERS_PATIENCE, roles.keys.request(&ControlToKeys::Statistics, None)),
            timeout(COUNTERS_PATIENCE, roles.lookup.request(&ControlToLookup::Statistics, None)),
            timeout(COUNTERS_PATIENCE, roles.queue.request(&ControlToQueue::Statistics, None)),
            timeout(
                COUNTERS_PATIENCE,
                roles.scheduler.request(&ControlToScheduler::Statistics, None)
            ),
            timeout(COUNTERS_PATIENCE, self.parent_status()),
        );
        let mut sum = Sum::default();
        if let Ok(Ok((DispatcherToControl::Statistics(snapshot), _))) = dispatcher {
            add(&mut sum, "dispatcher", &snapshot);
        }
        if let Ok(Ok((KeysToControl::Statistics(snapshot), _))) = keys {
            add(&mut sum, "keys", &snapshot);
        }
        if let Ok(Ok((LookupToControl::Statistics(snapshot), _))) = lookup {
            add(&mut sum, "lookup", &snapshot);
        }
        if let Ok(Ok((QueueToControl::Statistics(snapshot), _))) = queue {
            add(&mut sum, "queue", &snapshot);
        }
        if let Ok(Ok((SchedulerToControl::Statistics(snapshot), _))) = scheduler {
            add(&mut sum, "scheduler", &snapshot);
        }
        if let Ok(Some(status)) = status {
            add(&mut sum, "parent", &status.snapshot);
            sum.add("uptime", i64::try_from(status.uptime).unwrap_or(i64::MAX));
            for (role, ends) in &status.restarts {
                sum.add(&format!("restarts.{role}"), i64::from(*ends));
            }
        }
        let mut state = self.state();
        let sessions = i64::from(state.connections.len());
        let own = vec![("control.session".to_owned(), sessions)];
        add(&mut sum, "control", &self.memory.snapshot(own));
        Answer::Statistics(state.registry.list(sum))
    }
}

fn add(sum: &mut Sum, role: &str, snapshot: &Snapshot) {
    sum.add_all(snapshot.counters.iter().map(|(name, value)| (name.as_str(), *value)));
    let memory = i64::try_from(snapshot.memory).unwrap_or(i64::MAX);
    sum.add(&format!("memory.{role}"), memory);
    sum.add("memory", memory);
}

fn place(listed: &ListedEnvelope) -> (EnvelopeId, Place) {
    let state = if listed.in_flight {
        ListedState::InFlight(listed.delay)
    } else {
        ListedState::Pending(listed.delay)
    };
    let ListedEnvelope { id, expires, held, reason, suspended, .. } = *listed;
    (id, Place { state, expires, held, reason, suspended })
}

/// What an administrator should know: troubles, roles that ended, confinement that is not whole.
fn status_for_client(status: &parent::Status) -> Status {
    let mut notices = status.troubles.clone();
    for (role, ends) in status.restarts.iter().filter(|(_, ends)| *ends > 0) {
        notices.push(format!("{role}: restarted, {ends} times since the start"));
    }
    for (role, words) in &status.confinement {
        if words.contains("none: ") || words.contains("in part: ") {
            notices.push(format!("{role}: confined by {words}"));
        }
    }
    Status {
        mda_paused: status.switches.mda_paused,
        mta_paused: status.switches.mta_paused,
        smtp_paused: status.switches.smtp_paused,
        notices,
    }
}
