//! Taking messages in: seals are checked, then message and envelopes become durable together.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Instant;

use super::record;
use super::role::{Queue, now};
use super::store::{Body, Commit, LargeTicket, LargeWriter, NewEnvelope as Stored, StoreError};
use crate::ipc::link::{Arrived, Responder};
use crate::ipc::message::lookup::SealedRoute;
use crate::ipc::message::parent::Setup;
use crate::ipc::message::queue::{
    CommitBody, DispatcherToQueue, NewEnvelope, QueueToDispatcher, Refusal,
};
use crate::ipc::seal::Key;
use crate::model::envelope::{Origin, Progress};
use crate::model::limits::{BODY_IN_LOG, COMMIT_DEADLINE, LEASED_IDS};
use crate::model::{Envelope, MessageId};

/// Envelopes of one message at most, all frames together.
const MAX_ENVELOPES: usize = 100_000;
/// Messages that may be announced, or have a large body open, and are not yet committed.
const MAX_ANNOUNCED: usize = 8192;
/// Envelopes announced and not yet committed, of all messages together.
const MAX_WAITING: usize = 4 * MAX_ENVELOPES;

/// How the dispatcher is answered.
type Answer = Responder<QueueToDispatcher, DispatcherToQueue>;

/// What is known of messages that are not committed yet.
#[derive(Debug)]
pub(super) struct Intake {
    route_key: Option<Key>,
    announced: HashMap<MessageId, Vec<NewEnvelope>>,
    /// How many envelopes are in `announced`.
    waiting: usize,
    large: HashMap<MessageId, LargeTicket>,
}

impl Intake {
    pub(super) fn new(setup: &Setup) -> Self {
        Self {
            route_key: setup.keys.route.clone(),
            announced: HashMap::new(),
            waiting: 0,
            large: HashMap::new(),
        }
    }

    fn take_announced(&mut self, message: MessageId) -> Vec<NewEnvelope> {
        let announced = self.announced.remove(&message).unwrap_or_default();
        self.waiting -= announced.len();
        announced
    }
}

impl Queue {
    /// Deals with what the dispatcher says.
    pub(super) fn hear_dispatcher(
        &mut self,
        arrived: Arrived<QueueToDispatcher, DispatcherToQueue>,
    ) {
        let answer = arrived.responder;
        match arrived.message {
            DispatcherToQueue::AddEnvelopes { message, envelopes } => {
                self.announce(message, envelopes);
            }
            DispatcherToQueue::Commit { message, transaction, origin, total, envelopes, body } => {
                let mut all = self.intake.take_announced(message);
                all.extend(envelopes);
                if all.len() != total as usize {
                    // More than there was room for.
                    self.forget(message);
                    self.refuse(answer, Refusal::Failed);
                    return;
                }
                self.commit(message, transaction, &origin, all, body, answer);
            }
            DispatcherToQueue::Forget { message } => self.forget(message),
            DispatcherToQueue::LeaseIds { count } => self.lease(count, answer),
            DispatcherToQueue::LoadBody { message, offset } => {
                self.load_body(message, offset, answer);
            }
            DispatcherToQueue::LoadReport { report, offset } => {
                self.load_report(report, offset, answer);
            }
            DispatcherToQueue::OpenMessage { message } => self.open_large(message, answer),
            DispatcherToQueue::Released { hold_queue, release } => {
                self.released(hold_queue, release);
            }
            DispatcherToQueue::Retry(envelopes) => self.retry(envelopes),
            // Only replies.
            DispatcherToQueue::Held { .. } | DispatcherToQueue::Outcome(_) => {}
        }
    }

    fn announce(&mut self, message: MessageId, envelopes: Vec<NewEnvelope>) {
        if self.intake.announced.len() >= MAX_ANNOUNCED
            && !self.intake.announced.contains_key(&message)
        {
            return;
        }
        let announced = self.intake.announced.entry(message).or_default();
        // A commit that lacks some of its envelopes is refused: its count is part of it.
        let room = announced.len() + envelopes.len() <= MAX_ENVELOPES
            && self.intake.waiting + envelopes.len() <= MAX_WAITING;
        if room {
            self.intake.waiting += envelopes.len();
            announced.extend(envelopes);
        }
    }

    fn forget(&mut self, message: MessageId) {
        self.intake.take_announced(message);
        if let Some(ticket) = self.intake.large.remove(&message) {
            self.store.discard_large(ticket);
        }
    }

    fn lease(&mut self, count: u32, answer: Answer) {
        let count = count.min(LEASED_IDS) as usize;
        let done = self.then(move |_, ids| match ids {
            Ok(ids) => reply(answer, &QueueToDispatcher::Leased(ids)),
            // Dropped, the answer refuses.
            Err(error) => tracing::warn!("warn: queue: no message ids: {error}"),
        });
        self.store.lease_ids(count, done);
    }

    fn open_large(&mut self, message: MessageId, answer: Answer) {
        if self.intake.large.contains_key(&message) || self.intake.large.len() >= MAX_ANNOUNCED {
            reply(answer, &QueueToDispatcher::Opened(Err(Refusal::Forbidden)));
            return;
        }
        let done = self.then(move |queue, opened: Result<LargeWriter, StoreError>| match opened {
            Ok(LargeWriter { file, ticket }) => {
                queue.intake.large.insert(message, ticket);
                let message = QueueToDispatcher::Opened(Ok(()));
                // A dispatcher that is gone does not write.
                let _gone = answer.reply(&message, Some(file.into()));
            }
            Err(error) => reply(answer, &QueueToDispatcher::Opened(Err(refusal(&error)))),
        });
        self.store.open_large(message, done);
    }

    fn commit(
        &mut self,
        message: MessageId,
        transaction: u64,
        origin: &Origin,
        envelopes: Vec<NewEnvelope>,
        body: CommitBody,
        answer: Answer,
    ) {
        let body = match self.body_of(message, body) {
            Ok(body) => body,
            Err(refusal) => {
                self.forget(message);
                self.refuse(answer, refusal);
                return;
            }
        };
        let envelopes = match self.open_seals(message, transaction, origin, envelopes) {
            Ok(envelopes) => envelopes,
            Err(refusal) => {
                if let Body::Large { ticket, .. } = body {
                    self.store.discard_large(ticket);
                }
                tracing::warn!("warn: queue: message {message} refused: broken seal");
                self.refuse(answer, refusal);
                return;
            }
        };
        let mut stored = Vec::with_capacity(envelopes.len());
        for envelope in &envelopes {
            let Ok(payload) = record::encode(envelope) else {
                self.refuse(answer, Refusal::Failed);
                return;
            };
            stored.push(Stored { id: envelope.id, payload });
        }
        let size = match &body {
            Body::Inline(bytes) => bytes.len() as u64,
            Body::Large { size, .. } => *size,
        };
        let deadline = Instant::now() + COMMIT_DEADLINE;
        let done = self.then(move |queue, result| match result {
            Ok(()) => {
                reply(answer, &QueueToDispatcher::Committed(Ok(())));
                queue.counters.commits += 1;
                for envelope in envelopes {
                    queue.release_new(envelope, size);
                }
            }
            Err(error) => {
                tracing::warn!("warn: queue: message {message} refused: {error}");
                queue.refuse(answer, refusal(&error));
            }
        });
        self.store.commit(Commit { message, body, envelopes: stored, deadline }, done);
    }

    fn refuse(&mut self, answer: Answer, refusal: Refusal) {
        self.counters.refused += 1;
        reply(answer, &QueueToDispatcher::Committed(Err(refusal)));
    }

    fn body_of(&mut self, message: MessageId, body: CommitBody) -> Result<Body, Refusal> {
        match body {
            CommitBody::Inline(bytes) if bytes.0.len() <= BODY_IN_LOG => Ok(Body::Inline(bytes.0)),
            CommitBody::Inline(_) => Err(Refusal::Forbidden),
            CommitBody::File { size } => match self.intake.large.remove(&message) {
                Some(ticket) => Ok(Body::Large { ticket, size }),
                None => Err(Refusal::Forbidden),
            },
        }
    }

    /// The envelopes that the lookup role decided on, for this transaction and sender alone.
    fn open_seals(
        &self,
        message: MessageId,
        transaction: u64,
        origin: &Origin,
        sealed: Vec<NewEnvelope>,
    ) -> Result<Vec<Envelope>, Refusal> {
        let key = self.intake.route_key.as_ref().ok_or(Refusal::Forbidden)?;
        if sealed.is_empty() || sealed.len() > MAX_ENVELOPES {
            return Err(Refusal::Forbidden);
        }
        let created = now();
        let mut envelopes = Vec::with_capacity(sealed.len());
        for envelope in sealed {
            let low = NonZeroU32::new(envelope.low).ok_or(Refusal::Forbidden)?;
            let opened: SealedRoute = key.open(&envelope.route).map_err(|_| Refusal::Forbidden)?;
            if opened.transaction != transaction || opened.sender != origin.sender {
                return Err(Refusal::Forbidden);
            }
            envelopes.push(Envelope {
                id: message.envelope(low),
                origin: origin.clone(),
                route: opened.route,
                dsn: envelope.dsn,
                progress: Progress { created, ..Progress::default() },
            });
        }
        Ok(envelopes)
    }
}

/// Answers; a dispatcher that is gone does not wait.
pub(super) fn reply(answer: Answer, message: &QueueToDispatcher) {
    let _gone = answer.reply(message, None);
}

fn refusal(error: &StoreError) -> Refusal {
    match error {
        StoreError::Expired => Refusal::Late,
        StoreError::Failing | StoreError::Full => Refusal::Full,
        StoreError::Duplicate | StoreError::TooLarge => Refusal::Forbidden,
        _ => Refusal::Failed,
    }
}
