//! Answers about what is stored: bodies for deliveries, envelopes and bodies for control.

use std::sync::{Arc, Mutex, PoisonError};

use super::intake::reply;
use super::reports::piece_of;
use super::role::Queue;
use super::store::{StoreError, StoredBody, StoredEnvelope};
use crate::ipc::blob::Blob;
use crate::ipc::link::{Arrived, Responder};
use crate::ipc::message::control::{ControlToQueue, QueueToControl};
use crate::ipc::message::queue::{BodyPiece, DispatcherToQueue, QueueToDispatcher};
use crate::model::{EnvelopeId, MessageId};

/// Bytes of envelopes in one answer, the longest envelope left aside.
const ENVELOPES: usize = 24 * 1024;
/// Envelopes read for one answer.
const ENVELOPES_AT_ONCE: usize = 128;

/// Envelopes that are being read for one answer; it is given when the last one is read.
struct Gathering {
    found: Mutex<Vec<Option<Blob>>>,
    answer: Mutex<Option<Responder<QueueToControl, ControlToQueue>>>,
}

impl Gathering {
    fn put(&self, place: usize, payload: &[u8]) {
        // The version byte is the queue's own business.
        let envelope = Blob(payload.get(1..).unwrap_or_default().to_vec());
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = found.get_mut(place) {
            *slot = Some(envelope);
        }
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        let answer = self.answer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let found = self.found.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut size = 0;
        let mut looked_at = 0;
        let mut fitting = Vec::new();
        for envelope in found.drain(..) {
            if size > ENVELOPES {
                break;
            }
            looked_at += 1;
            size += envelope.as_ref().map_or(0, |envelope| envelope.0.len() + 4);
            fitting.extend(envelope);
        }
        if let Some(answer) = answer {
            let _gone =
                answer.reply(&QueueToControl::Envelopes { looked_at, found: fitting }, None);
        }
    }
}

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
                let damaged = matches!(error, StoreError::Corrupt { .. });
                let piece = if damaged { BodyPiece::Damaged } else { BodyPiece::Absent };
                reply(answer, &QueueToDispatcher::Body(piece));
            }
        });
        self.store.load_body(message, done);
    }

    /// Deals with what control asks.
    pub(super) fn answer_control(&mut self, arrived: Arrived<QueueToControl, ControlToQueue>) {
        let answer = arrived.responder;
        match arrived.message {
            ControlToQueue::Envelopes(ids) => self.load_envelopes(&ids, answer),
            ControlToQueue::LoadBody { message, offset } => {
                self.show_body(message, offset, answer);
            }
            ControlToQueue::Statistics => {
                let snapshot = self.memory.snapshot(self.counters());
                let _gone = answer.reply(&QueueToControl::Statistics(snapshot), None);
            }
        }
    }

    /// Reads the first of the envelopes, all at once, and answers with as many as fit.
    fn load_envelopes(
        &mut self,
        ids: &[EnvelopeId],
        answer: Responder<QueueToControl, ControlToQueue>,
    ) {
        let ids = ids.get(..ids.len().min(ENVELOPES_AT_ONCE)).unwrap_or_default();
        let gathering = Arc::new(Gathering {
            found: Mutex::new(vec![None; ids.len()]),
            answer: Mutex::new(Some(answer)),
        });
        for (place, id) in ids.iter().enumerate() {
            let gathering = Arc::clone(&gathering);
            // On the reading thread: the loop has nothing to add.
            let done = Box::new(move |stored: Result<StoredEnvelope, StoreError>| {
                if let Ok(stored) = stored {
                    gathering.put(place, &stored.payload);
                }
            });
            self.store.load_envelope(*id, done);
        }
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
