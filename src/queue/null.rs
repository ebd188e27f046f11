//! A store that accepts everything and keeps nothing, for measuring what is in front of it.
//!
//! Ids are leased and commits are answered as if durable; there is never anything to read, list or
//! end.

use std::time::Instant;

use platform::dir::Dir;

use super::ram::nameless;
use super::store::{
    Commit, Completion, Cursor, LargeTicket, LargeWriter, NewEnvelope, Page, Statistics, Store,
    StoreError, StoredBody, StoredEnvelope,
};
use crate::model::id::{EnvelopeId, MessageId};

/// The store.
pub struct NullStore {
    scratch: Dir,
    next_id: u32,
}

impl NullStore {
    /// A store whose large bodies are written to files without a name in `scratch`.
    #[must_use]
    pub fn new(scratch: Dir) -> Self {
        Self { scratch, next_id: 0 }
    }

    fn lease(&mut self) -> MessageId {
        loop {
            self.next_id = self.next_id.wrapping_add(1);
            if let Some(id) = MessageId::new(self.next_id) {
                return id;
            }
        }
    }
}

impl Store for NullStore {
    fn lease_ids(&mut self, count: usize, done: Completion<Vec<MessageId>>) {
        done(Ok((0..count).map(|_| self.lease()).collect()));
    }

    fn commit(&mut self, commit: Commit, done: Completion<()>) {
        done(commit.check());
    }

    fn update(&mut self, _envelope: EnvelopeId, _payload: Vec<u8>, done: Completion<()>) {
        done(Err(StoreError::NotFound));
    }

    fn extend(&mut self, _update: NewEnvelope, _new: Vec<NewEnvelope>, done: Completion<()>) {
        done(Err(StoreError::NotFound));
    }

    fn done(&mut self, _envelope: EnvelopeId) {}

    fn replace(&mut self, _end: EnvelopeId, _new: Vec<NewEnvelope>, done: Completion<()>) {
        done(Err(StoreError::NotFound));
    }

    fn hold(&mut self, _envelope: EnvelopeId, _held: bool, done: Completion<()>) {
        done(Err(StoreError::NotFound));
    }

    fn remove(&mut self, _envelope: EnvelopeId, done: Completion<()>) {
        done(Err(StoreError::NotFound));
    }

    fn load_envelope(&mut self, _envelope: EnvelopeId, done: Completion<StoredEnvelope>) {
        done(Err(StoreError::NotFound));
    }

    fn load_body(&mut self, _message: MessageId, done: Completion<StoredBody>) {
        done(Err(StoreError::NotFound));
    }

    fn open_large(&mut self, message: MessageId, done: Completion<LargeWriter>) {
        let ticket = LargeTicket { message, sequence: 0 };
        done(nameless(&self.scratch).map(|file| LargeWriter { file, ticket }));
    }

    fn discard_large(&mut self, _ticket: LargeTicket) {}

    fn iterate(&mut self, _cursor: Cursor, _limit: usize, done: Completion<Page>) {
        done(Ok(Page { envelopes: Vec::new(), next: None }));
    }

    fn known(&self, _envelope: EnvelopeId) -> bool {
        false
    }

    fn statistics(&self) -> Statistics {
        Statistics::default()
    }

    fn tick(&mut self, _now: Instant) {}

    fn shutdown(self: Box<Self>) {}
}
