//! Answers about what is stored: bodies for deliveries, envelopes and bodies for control.

use super::intake::reply;
use super::reports::piece_of;
use super::role::Queue;
use super::store::{StoreError, StoredBody, StoredEnvelope};
use crate::ipc::blob::Blob;
use crate::ipc::link::{Arrived, Responder};
use crate::ipc::message::control::{ControlToQueue, QueueToControl};
use crate::ipc::message::queue::{BodyPiece, DispatcherToQueue, QueueToDispatcher};
use crate::model::{EnvelopeId, MessageId};

/// Bytes of envelopes in one answer.
const ENVELOPES: usize = 48 * 1024;

impl Queue {
    /// Hands out the body of a message in flight, or a piece of it.
    pub(super) fn load_body(
        &mut self,
        message: MessageId,
        offset: u64,
        answer: Responder<QueueToDispatcher, DispatcherToQueue>,
    ) {
        if !self.releases.holds_message(message) {
            tracing::warn!("warn: queue: message {message} is not in flight");
            reply(answer, &QueueToDispatcher::Body(BodyPiece::Absent));
            return;
        }
        let done = self.then(move |_, body: Result<StoredBody, StoreError>| match body {
            Ok(StoredBody::Inline(bytes)) => {
                reply(answer, &QueueToDispatcher::Body(piece_of(&bytes, offset)));
            }
            Ok(StoredBody::Large { file, size }) => {
                let body = QueueToDispatcher::Body(BodyPiece::Descriptor { size });
                // A dispatcher that is gone does not read.
                let _gone = answer.reply(&body, Some(file.into()));
            }
            Err(error) => {
                tracing::warn!("warn: queue: message {message} cannot be read: {error}");
                reply(answer, &QueueToDispatcher::Body(BodyPiece::Absent));
            }
        });
        self.store.load_body(message, done);
    }

    /// Deals with what control asks.
    pub(super) fn answer_control(&mut self, arrived: Arrived<QueueToControl, ControlToQueue>) {
        let answer = arrived.responder;
        match arrived.message {
            ControlToQueue::Envelopes(ids) => self.load_envelopes(ids, 0, Vec::new(), answer),
            ControlToQueue::LoadBody { message, offset } => {
                self.show_body(message, offset, answer);
            }
            ControlToQueue::Statistics => {
                let snapshot = self.memory.snapshot(self.counters());
                let _gone = answer.reply(&QueueToControl::Statistics(snapshot), None);
            }
        }
    }

    /// Reads one envelope after the other until the answer is full.
    fn load_envelopes(
        &mut self,
        ids: Vec<EnvelopeId>,
        looked_at: u32,
        mut found: Vec<Blob>,
        answer: Responder<QueueToControl, ControlToQueue>,
    ) {
        let size: usize = found.iter().map(|envelope: &Blob| envelope.0.len() + 4).sum();
        let next = ids.get(looked_at as usize).copied().filter(|_| size < ENVELOPES / 2);
        let Some(id) = next else {
            let _gone = answer.reply(&QueueToControl::Envelopes { looked_at, found }, None);
            return;
        };
        let done = self.then(move |queue, stored: Result<StoredEnvelope, StoreError>| {
            if let Ok(stored) = stored {
                // The version byte is the queue's own business.
                found.push(Blob(stored.payload.get(1..).unwrap_or_default().to_vec()));
            }
            queue.load_envelopes(ids, looked_at + 1, found, answer);
        });
        self.store.load_envelope(id, done);
    }

    fn show_body(
        &mut self,
        message: MessageId,
        offset: u64,
        answer: Responder<QueueToControl, ControlToQueue>,
    ) {
        let done = self.then(move |_, body: Result<StoredBody, StoreError>| {
            let (piece, descriptor) = match body {
                Ok(StoredBody::Inline(bytes)) => (piece_of(&bytes, offset), None),
                Ok(StoredBody::Large { file, size }) => {
                    (BodyPiece::Descriptor { size }, Some(file.into()))
                }
                Err(_) => (BodyPiece::Absent, None),
            };
            let _gone = answer.reply(&QueueToControl::Body(piece), descriptor);
        });
        self.store.load_body(message, done);
    }

    fn counters(&self) -> Vec<(String, i64)> {
        let store = self.store.statistics();
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let mut counters = vec![
            ("queue.bounce", self.counters.bounces),
            ("queue.commit", self.counters.commits),
            ("queue.refused", self.counters.refused),
            ("queue.panic", self.counters.panics),
            ("queue.spool.envelopes", number(store.envelopes)),
            ("queue.spool.messages", number(store.messages)),
            ("queue.spool.batches", number(store.batches)),
            ("queue.spool.bytes", number(store.log_bytes)),
            ("queue.spool.bytes.live", number(store.live_bytes)),
            ("queue.spool.segments", number(store.segments)),
            ("queue.spool.failures", number(store.failures)),
        ];
        counters.retain(|(_, value)| *value != 0);
        counters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
