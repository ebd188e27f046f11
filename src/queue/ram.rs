//! A store in memory, for tests and for mail that may be lost with the process.
//!
//! Everything is answered at once, on the caller's thread. Large bodies are files without a name in
//! a directory that the owner gives.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::Arc;
use std::time::Instant;

use platform::dir::{Access, Dir};

use super::store::{
    Body, Commit, Completion, Cursor, LargeTicket, LargeWriter, MAX_PAYLOAD, NewEnvelope, Page,
    Statistics, Store, StoreError, StoredBody, StoredEnvelope, check_envelopes, check_extension,
};
use crate::model::id::{EnvelopeId, MessageId};

/// The store.
pub struct RamStore {
    scratch: Dir,
    next_id: u32,
    bodies: BTreeMap<MessageId, Kept>,
    envelopes: BTreeMap<EnvelopeId, (Vec<u8>, bool)>,
    writing: BTreeMap<MessageId, File>,
}

enum Kept {
    Inline(Vec<u8>),
    Large(File, u64),
}

/// Name under which a large body is made; it is removed at once.
pub(super) const SCRATCH: &str = "large.scratch";

/// Makes a file without a name.
pub(super) fn nameless(scratch: &Dir) -> Result<File, StoreError> {
    let file = scratch.open_file(SCRATCH, Access::Create)?;
    scratch.unlink(SCRATCH)?;
    Ok(file)
}

impl RamStore {
    /// An empty store; large bodies go to `scratch`.
    #[must_use]
    pub fn new(scratch: Dir) -> Self {
        Self {
            scratch,
            next_id: 0,
            bodies: BTreeMap::new(),
            envelopes: BTreeMap::new(),
            writing: BTreeMap::new(),
        }
    }

    fn lease(&mut self) -> MessageId {
        loop {
            self.next_id = self.next_id.wrapping_add(1);
            if let Some(id) = MessageId::new(self.next_id)
                && !self.bodies.contains_key(&id)
            {
                return id;
            }
        }
    }

    fn store(&mut self, commit: Commit) -> Result<(), StoreError> {
        let checked = commit.check();
        let Commit { message, body, envelopes, deadline } = commit;
        let body = match body {
            Body::Inline(bytes) => Kept::Inline(bytes),
            Body::Large { ticket, size } => {
                let file = self.writing.remove(&ticket.message).ok_or(StoreError::NotFound)?;
                if file.metadata()?.len() != size {
                    return Err(std::io::Error::from(std::io::ErrorKind::InvalidData).into());
                }
                Kept::Large(file, size)
            }
        };
        checked?;
        if self.bodies.contains_key(&message) {
            return Err(StoreError::Duplicate);
        }
        if deadline <= Instant::now() {
            return Err(StoreError::Expired);
        }
        self.bodies.insert(message, body);
        self.begin(envelopes);
        Ok(())
    }

    fn begin(&mut self, envelopes: Vec<NewEnvelope>) {
        self.envelopes.extend(envelopes.into_iter().map(|new| (new.id, (new.payload, false))));
    }

    fn end(&mut self, envelope: EnvelopeId) -> Result<(), StoreError> {
        self.envelopes.remove(&envelope).map(drop).ok_or(StoreError::NotFound)
    }

    fn bury(&mut self, message: MessageId) {
        if !self.envelopes.keys().any(|id| id.message() == message) {
            self.bodies.remove(&message);
        }
    }

    fn exchange(&mut self, end: EnvelopeId, new: Vec<NewEnvelope>) -> Result<(), StoreError> {
        check_envelopes(end.message(), &new)?;
        if new.iter().any(|new| self.envelopes.contains_key(&new.id)) {
            return Err(StoreError::Duplicate);
        }
        self.end(end)?;
        self.begin(new);
        self.bury(end.message());
        Ok(())
    }

    fn add(&mut self, update: NewEnvelope, new: Vec<NewEnvelope>) -> Result<(), StoreError> {
        check_extension(&update, &new)?;
        if new.iter().any(|new| self.envelopes.contains_key(&new.id)) {
            return Err(StoreError::Duplicate);
        }
        self.change(update.id, |kept| kept.0 = update.payload)?;
        self.begin(new);
        Ok(())
    }

    fn read(&self, id: EnvelopeId) -> Result<StoredEnvelope, StoreError> {
        let (payload, held) = self.envelopes.get(&id).ok_or(StoreError::NotFound)?;
        Ok(StoredEnvelope { id, payload: payload.clone(), held: *held })
    }

    fn body(&self, message: MessageId) -> Result<StoredBody, StoreError> {
        match self.bodies.get(&message).ok_or(StoreError::NotFound)? {
            Kept::Inline(bytes) => Ok(StoredBody::Inline(bytes.clone())),
            Kept::Large(file, size) => {
                let mut file = file.try_clone()?;
                file.seek(SeekFrom::Start(0))?;
                Ok(StoredBody::Large { file, size: *size })
            }
        }
    }

    fn open(&mut self, message: MessageId) -> Result<LargeWriter, StoreError> {
        let file = nameless(&self.scratch)?;
        self.writing.insert(message, file.try_clone()?);
        Ok(LargeWriter { file, ticket: LargeTicket { message, sequence: 0 } })
    }

    fn change(
        &mut self,
        envelope: EnvelopeId,
        change: impl FnOnce(&mut (Vec<u8>, bool)),
    ) -> Result<(), StoreError> {
        self.envelopes.get_mut(&envelope).map(change).ok_or(StoreError::NotFound)
    }
}

impl Store for RamStore {
    fn lease_ids(&mut self, count: usize, done: Completion<Vec<MessageId>>) {
        done(Ok((0..count).map(|_| self.lease()).collect()));
    }

    fn commit(&mut self, commit: Commit, done: Completion<()>) {
        done(self.store(commit));
    }

    fn update(&mut self, envelope: EnvelopeId, payload: Vec<u8>, done: Completion<()>) {
        if payload.len() > MAX_PAYLOAD {
            return done(Err(StoreError::TooLarge));
        }
        done(self.change(envelope, |kept| kept.0 = payload));
    }

    fn extend(&mut self, update: NewEnvelope, new: Vec<NewEnvelope>, done: Completion<()>) {
        done(self.add(update, new));
    }

    fn done(&mut self, envelope: EnvelopeId) {
        // Ending what has ended changes nothing.
        if self.end(envelope).is_ok() {
            self.bury(envelope.message());
        }
    }

    fn replace(&mut self, end: EnvelopeId, new: Vec<NewEnvelope>, done: Completion<()>) {
        done(self.exchange(end, new));
    }

    fn hold(&mut self, envelope: EnvelopeId, held: bool, done: Completion<()>) {
        done(self.change(envelope, |kept| kept.1 = held));
    }

    fn remove(&mut self, envelope: EnvelopeId, done: Completion<()>) {
        let ended = self.end(envelope);
        self.bury(envelope.message());
        done(ended);
    }

    fn load_envelope(&mut self, envelope: EnvelopeId, done: Completion<StoredEnvelope>) {
        done(self.read(envelope));
    }

    fn load_body(&mut self, message: MessageId, done: Completion<StoredBody>) {
        done(self.body(message));
    }

    fn open_large(&mut self, message: MessageId, done: Completion<LargeWriter>) {
        done(self.open(message));
    }

    fn discard_large(&mut self, ticket: LargeTicket) {
        self.writing.remove(&ticket.message);
    }

    fn iterate(&mut self, cursor: Cursor, limit: usize, done: Completion<Page>) {
        let rest: Arc<[EnvelopeId]> =
            cursor.rest.unwrap_or_else(|| self.envelopes.keys().copied().collect());
        let end = cursor.position.saturating_add(limit.max(1)).min(rest.len());
        let ids = rest.get(cursor.position..end).unwrap_or_default();
        let envelopes = ids.iter().filter_map(|id| self.read(*id).ok()).collect();
        let more = end < rest.len();
        let next = more.then_some(Cursor { rest: Some(rest), position: end });
        done(Ok(Page { envelopes, next }));
    }

    fn known(&self, envelope: EnvelopeId) -> bool {
        self.envelopes.contains_key(&envelope)
    }

    fn statistics(&self) -> Statistics {
        Statistics {
            envelopes: self.envelopes.len() as u64,
            messages: self.bodies.len() as u64,
            ..Statistics::default()
        }
    }

    fn tick(&mut self, _now: Instant) {}

    fn shutdown(self: Box<Self>) {}
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;

    /// The answer, which is given before the call returns.
    fn now<T: Send + 'static>(call: impl FnOnce(Completion<T>)) -> Result<T, StoreError> {
        let (sender, receiver) = std::sync::mpsc::channel();
        call(Box::new(move |result| sender.send(result).unwrap()));
        receiver.try_recv().unwrap()
    }

    #[test]
    fn what_is_committed_can_be_read_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = RamStore::new(Dir::open(dir.path()).unwrap());
        let message = now(|done| store.lease_ids(1, done)).unwrap()[0];
        let id = message.envelope(NonZeroU32::MIN);
        let envelopes = vec![NewEnvelope { id, payload: b"one".to_vec() }];
        let body = Body::Inline(b"body".to_vec());
        let deadline = Instant::now() + Duration::from_secs(30);
        now(|done| store.commit(Commit { message, body, envelopes, deadline }, done)).unwrap();
        let page = now(|done| store.iterate(Cursor::start(), 10, done)).unwrap();
        assert_eq!(page.envelopes.len(), 1);
        let other = NewEnvelope {
            id: message.envelope(NonZeroU32::new(2).unwrap()),
            payload: b"two".to_vec(),
        };
        now(|done| store.replace(id, vec![other.clone()], done)).unwrap();
        assert!(!store.known(id) && store.known(other.id));
        store.done(other.id);
        assert!(matches!(now(|done| store.load_body(message, done)), Err(StoreError::NotFound)));
        assert_eq!(store.statistics(), Statistics::default());
    }

    #[test]
    fn an_envelope_is_extended_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = RamStore::new(Dir::open(dir.path()).unwrap());
        let message = MessageId::new(7).unwrap();
        let new = |low: u32, payload: &[u8]| NewEnvelope {
            id: message.envelope(NonZeroU32::new(low).unwrap()),
            payload: payload.to_vec(),
        };
        let envelopes = vec![new(1, b"one")];
        let body = Body::Inline(Vec::new());
        let deadline = Instant::now() + Duration::from_secs(30);
        now(|done| store.commit(Commit { message, body, envelopes, deadline }, done)).unwrap();
        now(|done| store.extend(new(1, b"two"), vec![new(2, b"report")], done)).unwrap();
        let again = now(|done| store.extend(new(1, b"three"), vec![new(2, b"report")], done));
        assert!(matches!(again, Err(StoreError::Duplicate)), "{again:?}");
        let gone = now(|done| store.extend(new(8, b"x"), vec![new(9, b"report")], done));
        assert!(matches!(gone, Err(StoreError::NotFound)), "{gone:?}");
        let page = now(|done| store.iterate(Cursor::start(), 10, done)).unwrap();
        let payloads: Vec<_> = page.envelopes.iter().map(|one| &one.payload[..]).collect();
        assert_eq!(payloads, [&b"two"[..], b"report"]);
    }

    #[test]
    fn a_large_body_leaves_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = RamStore::new(Dir::open(dir.path()).unwrap());
        let message = MessageId::new(7).unwrap();
        let writer = now(|done| store.open_large(message, done)).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        store.discard_large(writer.ticket);
    }
}
