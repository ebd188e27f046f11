//! Handing envelopes to the dispatcher: new ones at once, the others when the scheduler says so.

use std::collections::HashMap;

use super::record;
use super::role::{Event, MessageCounts, Queue};
use super::store::{Health, StoreError, StoredEnvelope};
use super::suspects::Turn;
use crate::config::{ActionKind, LocalAction, Method as ConfigMethod};
use crate::ipc::message::parent::Setup;
use crate::ipc::message::queue::{Delivery, QueueToDispatcher};
use crate::ipc::message::scheduler::{HoldRelease, QueueToScheduler, SchedulerToQueue};
use crate::ipc::message::worker::{Identity, JobRecord, Method, identity_key};
use crate::ipc::seal::{Key, Sealed};
use crate::model::envelope::{Exec, LocalDelivery};
use crate::model::outcome::{EnhancedStatus, Failure, Outcome};
use crate::model::{DeliveryKind, Envelope, EnvelopeId, MessageId};

/// Envelopes in the dispatcher's hands at most, where the configuration sets no limit.
const MAX_IN_FLIGHT: usize = 5000;
/// Keys of identities kept; beyond it they are derived anew.
const KEYS_KEPT: usize = 4096;

/// What is in the dispatcher's hands.
#[derive(Debug)]
pub(super) struct Releases {
    in_flight: HashMap<EnvelopeId, Envelope>,
    messages: MessageCounts,
    /// Were in the hands of a dispatcher that ended.
    lost: Vec<EnvelopeId>,
    /// Something was handed out or came back since it was last asked.
    changed: bool,
    limit: usize,
    next_job: u64,
    job_key: Option<Key>,
    keys: HashMap<Identity, Key>,
}

impl Releases {
    pub(super) fn new(setup: &Setup) -> Self {
        let limit = setup.config.scheduler.max_inflight.get();
        Self {
            in_flight: HashMap::new(),
            messages: HashMap::new(),
            lost: Vec::new(),
            changed: false,
            limit: limit.map_or(MAX_IN_FLIGHT, |limit| limit as usize),
            next_job: 1,
            job_key: setup.keys.job.clone(),
            keys: HashMap::new(),
        }
    }

    /// Whether an attempt at this envelope runs.
    pub(super) fn contains(&self, id: EnvelopeId) -> bool {
        self.in_flight.contains_key(&id)
    }

    /// Whether an envelope of this message is in flight, so that it may be read.
    pub(super) fn holds_message(&self, message: MessageId) -> bool {
        self.messages.contains_key(&message)
    }

    pub(super) fn begin(&mut self, envelope: Envelope) {
        *self.messages.entry(envelope.id.message()).or_default() += 1;
        self.in_flight.insert(envelope.id, envelope);
        self.changed = true;
    }

    /// Takes an envelope back from the dispatcher.
    pub(super) fn end(&mut self, id: EnvelopeId) -> Option<Envelope> {
        let envelope = self.in_flight.remove(&id)?;
        self.changed = true;
        if let Some(count) = self.messages.get_mut(&id.message()) {
            *count -= 1;
            if *count == 0 {
                self.messages.remove(&id.message());
            }
        }
        Some(envelope)
    }

    /// Takes an envelope back that went down with the dispatcher; whether it was there.
    pub(super) fn lose(&mut self, id: EnvelopeId) -> bool {
        let there = self.end(id).is_some();
        if there {
            self.lost.push(id);
        }
        there
    }

    /// What is in flight, or was when the dispatcher ended.
    pub(super) fn ids(&self) -> impl Iterator<Item = EnvelopeId> {
        self.lost.iter().chain(self.in_flight.keys()).copied()
    }

    /// Whether that has changed since this was asked before.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    fn key_of(&mut self, identity: &Identity) -> Option<Key> {
        if let Some(key) = self.keys.get(identity) {
            return Some(key.clone());
        }
        let key = identity_key(self.job_key.as_ref()?, identity);
        if self.keys.len() >= KEYS_KEPT {
            self.keys.clear();
        }
        self.keys.insert(identity.clone(), key.clone());
        Some(key)
    }
}

impl Queue {
    /// Hands out an envelope that has just become durable, or leaves it to the scheduler.
    pub(super) fn release_new(&mut self, envelope: Envelope, size: u64) {
        let paused = match envelope.route.kind {
            DeliveryKind::Local(_) => self.mda_paused,
            DeliveryKind::Relay => self.mta_paused,
            DeliveryKind::Bounce(_) => true,
        };
        let room = self.releases.len() < self.releases.limit && self.can_hand_out();
        let at_once = room && !paused && self.action_of(&envelope).is_some();
        self.add_to_scheduler(&envelope, at_once);
        if at_once {
            self.hand_out(envelope, size);
        }
    }

    /// Deals with what the scheduler says.
    pub(super) fn hear_scheduler(&mut self, message: SchedulerToQueue) {
        match message {
            SchedulerToQueue::Expire(ids) => {
                for id in ids {
                    self.load(id, Self::expire);
                }
            }
            SchedulerToQueue::Release(ids) if !self.can_hand_out() => self.give_back(ids),
            SchedulerToQueue::Release(ids) => {
                for id in ids {
                    self.release_by_id(id);
                }
            }
            SchedulerToQueue::Remove(ids) => {
                for id in ids {
                    self.load(id, |queue, envelope| queue.remove(&envelope));
                }
            }
            SchedulerToQueue::Warn { id, delay } => {
                self.load(id, move |queue, envelope| queue.warn(envelope, delay));
            }
        }
    }

    /// Reads an envelope and goes on with it.
    fn load(&mut self, id: EnvelopeId, next: impl FnOnce(&mut Self, Envelope) + Send + 'static) {
        let done = self.then(move |queue, stored: Result<StoredEnvelope, StoreError>| {
            let envelope = stored
                .map_err(|error| error.to_string())
                .and_then(|stored| record::decode(&stored.payload).map_err(|e| e.to_string()));
            match envelope {
                Ok(envelope) => next(queue, envelope),
                Err(reason) => {
                    tracing::warn!("warn: queue: envelope {id} cannot be read: {reason}");
                    queue.ended(id, crate::ipc::message::scheduler::End::Removed);
                }
            }
        });
        self.store.load_envelope(id, done);
    }

    /// Whether an outcome could be had and remembered: without a dispatcher nothing is tried, and
    /// when not even the reserve of the spool has room, what is tried could not be written down.
    fn can_hand_out(&self) -> bool {
        let dispatcher = self.dispatcher.as_ref().is_some_and(|dispatcher| !dispatcher.is_closed());
        dispatcher && self.health != Health::Stopped
    }

    /// Gives envelopes back to the scheduler that were not tried.
    pub(super) fn give_back(&mut self, ids: Vec<EnvelopeId>) {
        self.tell_scheduler(QueueToScheduler::Returned(ids.clone()));
        for id in ids {
            self.is_back(id, false);
        }
    }

    pub(super) fn release_by_id(&mut self, id: EnvelopeId) {
        self.load(id, Self::release);
    }

    fn release(&mut self, envelope: Envelope) {
        if self.releases.contains(envelope.id) {
            return;
        }
        if !self.can_hand_out() {
            self.give_back(vec![envelope.id]);
            return;
        }
        match self.suspects.turn(envelope.id) {
            Turn::Now => {}
            Turn::Waits => return,
            Turn::Back => {
                self.give_back(vec![envelope.id]);
                return;
            }
        }
        if matches!(envelope.route.kind, DeliveryKind::Bounce(_)) {
            self.report(envelope);
            return;
        }
        // The size is learned with the body.
        self.hand_out(envelope, 0);
    }

    fn hand_out(&mut self, envelope: Envelope, size: u64) {
        let Some(dispatcher) = self.dispatcher.clone() else {
            self.give_back(vec![envelope.id]);
            return;
        };
        let id = envelope.id;
        let ticket = match self.ticket(&envelope) {
            Ok(ticket) => ticket,
            Err(failure) => {
                self.releases.begin(envelope);
                self.settle(id, Outcome::Temporary(failure));
                return;
            }
        };
        self.releases.begin(envelope.clone());
        let delivery = QueueToDispatcher::Deliver(Box::new(Delivery { envelope, size, ticket }));
        let events = self.events.clone();
        tokio::spawn(async move {
            let reply = dispatcher.request(&delivery, None).await;
            let _ended = events.send(Event::Settled(id, reply));
        });
    }

    /// For a local delivery: whose worker does it, and the sealed record of the job.
    fn ticket(&mut self, envelope: &Envelope) -> Result<Option<(Identity, Sealed)>, Failure> {
        let DeliveryKind::Local(local) = &envelope.route.kind else { return Ok(None) };
        let gone = || Failure {
            text: "the action of this envelope is no local one any more".to_owned(),
            status: EnhancedStatus::new(4, 3, 5),
        };
        let action = self.action_of(envelope).ok_or_else(gone)?;
        let ActionKind::Local(action) = &action.kind else { return Err(gone()) };
        let record = self.job(envelope, local, action).ok_or_else(gone)?;
        let identity = record.identity.clone();
        let key = self.releases.key_of(&identity).ok_or_else(gone)?;
        self.releases.next_job += 1;
        let sealed = key.seal(&record).map_err(|_| gone())?;
        Ok(Some((identity, sealed)))
    }

    /// What a worker is to do; `None` if the action delivers nothing by itself.
    fn job(
        &self,
        envelope: &Envelope,
        local: &LocalDelivery,
        action: &LocalAction,
    ) -> Option<JobRecord> {
        let config = &self.setup.config;
        let method = match (&local.exec, &action.method) {
            (Some(Exec::Command(line)), _) => Method::Pipe { line: line.clone() },
            (Some(Exec::File(path)), _) => Method::File { path: path.clone() },
            (None, ConfigMethod::ExpandOnly | ConfigMethod::ForwardOnly) => return None,
            (None, ConfigMethod::Lmtp { destination, recipient_address }) => Method::Lmtp {
                destination: destination.clone(),
                recipient_address: *recipient_address,
            },
            (None, ConfigMethod::Maildir { path, junk }) => {
                Method::Maildir { path: path.clone(), junk: *junk }
            }
            (None, ConfigMethod::Mbox) => Method::Mbox,
            (None, ConfigMethod::Mda { command }) => Method::Command { line: command.clone() },
        };
        let account = action.user.clone().unwrap_or_else(|| local.user.clone());
        let root_mailbox = account == "root" && method == Method::Mbox;
        let wrapper = action.wrapper.and_then(|id| config.wrapper(id));
        let is_overridden = |helper: &str| self.setup.overridden.iter().any(|name| name == helper);
        let overridden = method.helper().is_some_and(is_overridden);
        let programs = wrapper.is_some() || overridden || method.starts_programs();
        Some(JobRecord {
            job: self.releases.next_job,
            envelope: envelope.id,
            identity: Identity { account, root_mailbox, programs },
            user: local.user.clone(),
            method,
            overridden,
            wrapper: wrapper.map(|wrapper| wrapper.command.clone()),
            sender: envelope.origin.sender.clone(),
            recipient: envelope.route.recipient.clone(),
            destination: envelope.route.destination.clone(),
            subaddress: local.subaddress.clone(),
            delimiter: config.smtp.sub_address_delimiter.to_string(),
        })
    }

    /// Passes on that envelopes may leave a hold queue.
    pub(super) fn released(&self, hold_queue: u64, release: HoldRelease) {
        self.tell_scheduler(QueueToScheduler::Released { hold_queue, release });
    }

    /// Passes on that a host takes mail again.
    pub(super) fn retry(&self, envelopes: Vec<EnvelopeId>) {
        self.tell_scheduler(QueueToScheduler::Retry(envelopes));
    }
}
