//! Reading on demand: envelopes, bodies, pages of the queue, and unused ids.
//!
//! Runs on its own threads beside the log; takes a place from the state, then reads without any
//! lock. A segment that is freed meanwhile stays readable through the reference held here.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use platform::dir::Access;

use super::disk::{Disk, Folder};
use super::engine::lock;
use super::ids::Ids;
use super::keeper::{checksum, quarantine};
use super::place::EnvelopePlace;
use super::record::{LargeRef, large_name};
use super::segment::SegmentFile;
use super::state::State;
use crate::model::id::{EnvelopeId, MessageId};
use crate::queue::store::{
    Completion, Cursor, Event, Page, StoreError, StoredBody, StoredEnvelope,
};

/// A request.
pub(super) enum Read {
    Body(MessageId, Completion<StoredBody>),
    Envelope(EnvelopeId, Completion<StoredEnvelope>),
    Lease(usize, Completion<Vec<MessageId>>),
    Page(Cursor, usize, Completion<Page>),
}

impl Read {
    /// Answers without reading.
    pub(super) fn refuse(self, error: StoreError) {
        match self {
            Self::Body(_, done) => done(Err(error)),
            Self::Envelope(_, done) => done(Err(error)),
            Self::Lease(_, done) => done(Err(error)),
            Self::Page(_, _, done) => done(Err(error)),
        }
    }
}

/// What readers share.
pub(super) struct Reader {
    pub disk: Arc<dyn Disk>,
    pub state: Arc<Mutex<State>>,
    pub ids: Mutex<Ids>,
    pub events: Arc<dyn Fn(Event) + Send + Sync>,
    /// What was reported as damaged already.
    pub reported: Mutex<BTreeSet<String>>,
}

/// Ids that are looked up under one lock.
const LEASE_STEP: usize = 64;

impl Reader {
    pub(super) fn perform(&self, read: Read) {
        match read {
            Read::Body(message, done) => done(self.body(message)),
            Read::Envelope(envelope, done) => done(self.envelope(envelope)),
            Read::Lease(count, done) => done(Ok(self.lease(count))),
            Read::Page(cursor, limit, done) => done(Ok(self.page(cursor, limit))),
        }
    }

    pub(super) fn envelope(&self, id: EnvelopeId) -> Result<StoredEnvelope, StoreError> {
        let Some((place, file)) = self.place(id) else { return Err(StoreError::NotFound) };
        match file.entry(place.offset(), place.length)? {
            Some((entry, payload)) if entry.id == id.get() => {
                Ok(StoredEnvelope { id, payload, held: place.held() })
            }
            _ => {
                let bytes = super::disk::read_exactly(
                    &*file.file,
                    place.offset(),
                    super::record::ENTRY + usize::from(place.length),
                );
                let reason = "checksum of envelope is wrong";
                Err(self.damaged(id.to_string(), reason, &bytes.unwrap_or_default()))
            }
        }
    }

    fn place(&self, id: EnvelopeId) -> Option<(EnvelopePlace, SegmentFile)> {
        let state = lock(&self.state);
        let place = *state.envelope(id)?;
        Some((place, state.segment(place.segment)?.file.clone()?))
    }

    pub(super) fn body(&self, id: MessageId) -> Result<StoredBody, StoreError> {
        let (place, file, large) = {
            let state = lock(&self.state);
            let place = *state.message(id).ok_or(StoreError::NotFound)?;
            let segment = state.segment(place.segment).ok_or(StoreError::NotFound)?;
            (place, segment.file.clone().ok_or(StoreError::NotFound)?, state.large(id))
        };
        if place.is_large() {
            return self.large_body(id, large);
        }
        match file.body(place.offset(), place.body_length())? {
            Some((header, body)) if header.message == id.get() => Ok(StoredBody::Inline(body)),
            _ => {
                let length = super::record::HEADER + place.body_length() as usize;
                let bytes = super::disk::read_exactly(&*file.file, place.offset(), length);
                let reason = "checksum of body is wrong";
                Err(self.damaged(id.to_string(), reason, &bytes.unwrap_or_default()))
            }
        }
    }

    fn large_body(
        &self,
        id: MessageId,
        large: Option<(LargeRef, bool)>,
    ) -> Result<StoredBody, StoreError> {
        let damaged = |reason| Err(self.damaged(id.to_string(), reason, &[]));
        let Some((large, checked)) = large else { return damaged("reference to body is damaged") };
        let name = large_name(id, large.sequence);
        let file = match self.disk.open(Folder::Large, &name, Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It may have ended meanwhile.
                return match lock(&self.state).message(id) {
                    Some(_) => damaged("its body in large/ is missing"),
                    None => Err(StoreError::NotFound),
                };
            }
            other => other?,
        };
        if file.length()? != large.size {
            return damaged("its body in large/ has another length");
        }
        if !checked {
            if checksum(&*file)? != large.crc {
                return damaged("checksum of its body in large/ is wrong");
            }
            lock(&self.state).large_is_checked(id);
        }
        Ok(StoredBody::Large { file: file.descriptor()?, size: large.size })
    }

    /// Puts damaged bytes aside and tells the owner, once for each id.
    fn damaged(&self, id: String, reason: &'static str, bytes: &[u8]) -> StoreError {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.insert(id.clone()) {
            drop(reported);
            // The bytes stay in the spool if there is no room for a copy.
            let _ = quarantine(&*self.disk, &id, bytes, reason);
            (self.events)(Event::Quarantined { id: id.clone(), reason: reason.to_owned() });
        }
        StoreError::Corrupt { id, reason }
    }

    fn page(&self, cursor: Cursor, limit: usize) -> Page {
        let rest = cursor.rest.unwrap_or_else(|| self.in_order());
        let end = cursor.position.saturating_add(limit.max(1)).min(rest.len());
        let ids = rest.get(cursor.position..end).unwrap_or_default();
        // What ended since the first page, or cannot be read and was reported, is left out.
        let envelopes = ids.iter().filter_map(|id| self.envelope(*id).ok()).collect();
        let more = end < rest.len();
        let next = more.then_some(Cursor { rest: Some(rest), position: end });
        Page { envelopes, next }
    }

    /// All envelopes in the order of their places on the disk.
    fn in_order(&self) -> Arc<[EnvelopeId]> {
        let mut places: Vec<_> = {
            let state = lock(&self.state);
            let all = state.all_envelopes();
            all.filter_map(|place| Some((place.segment, place.offset(), place.id()?))).collect()
        };
        places.sort_unstable();
        places.into_iter().map(|(_, _, id)| id).collect()
    }

    fn lease(&self, count: usize) -> Vec<MessageId> {
        let mut leased = Vec::with_capacity(count);
        while leased.len() < count {
            let step = LEASE_STEP.min(count - leased.len());
            let numbers: Vec<u32> = {
                let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
                (0..step).map(|_| ids.next()).collect()
            };
            let state = lock(&self.state);
            let unused = numbers.into_iter().filter(|number| !state.id_in_use(*number));
            leased.extend(unused.filter_map(MessageId::new));
        }
        leased
    }
}
