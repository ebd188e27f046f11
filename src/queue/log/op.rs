//! What the log is asked to do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::record::{ENTRY, HEADER, LargeRef, padded};
use super::segment::record_space;
use crate::model::id::{EnvelopeId, MessageId};
use crate::queue::store::{Completion, MAX_PAYLOAD, NewEnvelope, StoreError};

/// The body of a message on its way into the log.
#[derive(Debug)]
pub(super) enum LogBody {
    Inline(Vec<u8>),
    Large(LargeRef),
}

/// The answer to a commit: given once, by the log or, past the deadline, by the owner.
#[derive(Clone)]
pub(super) struct Answer(Arc<Mutex<Option<Completion<()>>>>);

impl Answer {
    pub(super) fn new(done: Completion<()>) -> Self {
        Self(Arc::new(Mutex::new(Some(done))))
    }

    /// Gives the answer; `false` if another was given before.
    pub(super) fn give(&self, result: Result<(), StoreError>) -> bool {
        let done = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        done.map(|done| done(result)).is_some()
    }

    pub(super) fn is_given(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

/// A change to be logged.
pub(super) enum Op {
    /// A message that nobody waits for any more is taken back.
    Cancel { message: MessageId },
    /// A new message.
    Commit {
        message: MessageId,
        body: LogBody,
        envelopes: Vec<NewEnvelope>,
        deadline: Instant,
        answer: Answer,
    },
    /// An envelope ends.
    End { envelope: EnvelopeId, done: Option<Completion<()>> },
    /// An envelope's new payload, and others that begin with it.
    Extend { update: NewEnvelope, new: Vec<NewEnvelope>, done: Completion<()> },
    /// An envelope is held or let go.
    Hold { envelope: EnvelopeId, held: bool, done: Completion<()> },
    /// An envelope ends and others begin.
    Replace { end: EnvelopeId, new: Vec<NewEnvelope>, done: Completion<()> },
    /// An envelope's new payload.
    Update { envelope: EnvelopeId, payload: Vec<u8>, done: Completion<()> },
}

impl Op {
    /// At most how many bytes it takes in the log.
    pub(super) fn space(&self) -> usize {
        let payloads = |envelopes: &[NewEnvelope]| -> usize {
            record_space(0, envelopes.iter().map(|new| new.payload.len()))
        };
        match self {
            Op::Cancel { .. } => HEADER + ENTRY,
            Op::End { .. } => ENTRY,
            Op::Commit { body, envelopes, .. } => {
                let body = match body {
                    LogBody::Inline(bytes) => bytes.len(),
                    LogBody::Large(_) => LargeRef::LENGTH,
                };
                payloads(envelopes) + padded(body)
            }
            Op::Hold { .. } => record_space(0, std::iter::once(MAX_PAYLOAD)),
            Op::Extend { update, new, .. } => payloads(new) + ENTRY + padded(update.payload.len()),
            Op::Replace { new, .. } => payloads(new) + ENTRY,
            Op::Update { payload, .. } => record_space(0, std::iter::once(payload.len())),
        }
    }

    /// Answers it without carrying it out.
    pub(super) fn refuse(self, error: &StoreError) {
        match self {
            Op::Cancel { .. } => {}
            Op::Commit { answer, .. } => {
                answer.give(Err(error.clone()));
            }
            Op::End { done, .. } => {
                if let Some(done) = done {
                    done(Err(error.clone()));
                }
            }
            Op::Extend { done, .. }
            | Op::Hold { done, .. }
            | Op::Replace { done, .. }
            | Op::Update { done, .. } => done(Err(error.clone())),
        }
    }
}
