//! How each op goes into a batch: as which records, or not yet, since it speaks of something that the
//! batch itself only makes.

use super::batch::Batch;
use super::engine::{Log, lock};
use super::op::{LogBody, Op};
use super::record::{Act, Entry, Kind, LARGE};
use crate::model::id::EnvelopeId;
use crate::queue::store::{Completion, NewEnvelope, StoreError};

/// Whether an op went into the batch.
pub(super) enum Taken {
    /// It did, or was answered.
    Yes,
    /// It belongs into the next batch.
    Later(Op),
}

impl Log {
    /// Puts an op into the batch, or answers it.
    pub(super) fn add(&mut self, batch: &mut Batch, op: Op) -> Taken {
        match op {
            Op::Cancel { message } => {
                let place = lock(&self.state).message(message).copied();
                if let Some(place) = place {
                    let upto = lock(&self.state).sequence(&place);
                    self.end_messages(&[(message, upto)]);
                }
                Taken::Yes
            }
            Op::Commit { message, body, envelopes, deadline, answer } => {
                let used = batch.begun.contains(&message.get())
                    || lock(&self.state).message(message).is_some();
                let error = match self.hopeless(deadline, &answer) {
                    None if used => Some(StoreError::Duplicate),
                    error => error,
                };
                if let Some(error) = error {
                    let op = Op::Commit { message, body, envelopes, deadline, answer };
                    self.refuse_op(op, &error);
                    return Taken::Yes;
                }
                let entries = begins(&envelopes);
                match &body {
                    LogBody::Inline(bytes) => {
                        self.record(Kind::Message, 0, Some(message), bytes, entries);
                    }
                    LogBody::Large(large) => {
                        let bytes = large.bytes();
                        let number =
                            self.record(Kind::Message, LARGE, Some(message), &bytes, entries);
                        batch.large.push((number, *large));
                    }
                }
                batch.begun.insert(message.get());
                batch.ops.push(Op::Commit { message, body, envelopes, deadline, answer });
                Taken::Yes
            }
            Op::End { envelope, done } => match self.began(batch, envelope) {
                Some(began) => {
                    batch.ended.insert(envelope);
                    batch.ends.push(Entry::bare(Act::End, envelope.get(), began));
                    batch.ops.push(Op::End { envelope, done });
                    Taken::Yes
                }
                None if batch.begun.contains(&envelope.message().get()) => {
                    Taken::Later(Op::End { envelope, done })
                }
                None => {
                    if let Some(done) = done {
                        done(Err(StoreError::NotFound));
                    }
                    Taken::Yes
                }
            },
            Op::Extend { update, new, done } => self.add_extension(batch, update, new, done),
            Op::Hold { envelope, held, done } => self.add_hold(batch, envelope, held, done),
            Op::Replace { end, new, done } => {
                // What this message's earlier records of this batch began is not known yet.
                if batch.begun.contains(&end.message().get()) {
                    return Taken::Later(Op::Replace { end, new, done });
                }
                let Some(began) = self.began(batch, end) else {
                    done(Err(StoreError::NotFound));
                    return Taken::Yes;
                };
                if self.any_is_known(&new) {
                    done(Err(StoreError::Duplicate));
                    return Taken::Yes;
                }
                let first = [(Entry::bare(Act::End, end.get(), began), &[][..])];
                let entries = first.into_iter().chain(begins(&new));
                self.record(Kind::Replace, 0, Some(end.message()), &[], entries);
                batch.ended.insert(end);
                batch.begun.insert(end.message().get());
                batch.ops.push(Op::Replace { end, new, done });
                Taken::Yes
            }
            Op::Update { envelope, payload, done } if batch.held.contains(&envelope) => {
                Taken::Later(Op::Update { envelope, payload, done })
            }
            Op::Update { envelope, payload, done } => match self.current(batch, envelope) {
                Some((began, held)) => {
                    let entry = Entry { held, ..Entry::bare(Act::Update, envelope.get(), began) };
                    let message = Some(envelope.message());
                    self.record(Kind::Update, 0, message, &[], [(entry, &payload[..])]);
                    batch.ops.push(Op::Update { envelope, payload, done });
                    Taken::Yes
                }
                None if batch.begun.contains(&envelope.message().get()) => {
                    Taken::Later(Op::Update { envelope, payload, done })
                }
                None => {
                    done(Err(StoreError::NotFound));
                    Taken::Yes
                }
            },
        }
    }

    /// A new payload and what begins with it are one record, and so count together or not at all.
    fn add_extension(
        &mut self,
        batch: &mut Batch,
        update: NewEnvelope,
        new: Vec<NewEnvelope>,
        done: Completion<()>,
    ) -> Taken {
        let (id, message) = (update.id, update.id.message());
        if batch.begun.contains(&message.get()) || batch.held.contains(&id) {
            return Taken::Later(Op::Extend { update, new, done });
        }
        let Some((began, held)) = self.current(batch, id) else {
            done(Err(StoreError::NotFound));
            return Taken::Yes;
        };
        if self.any_is_known(&new) {
            done(Err(StoreError::Duplicate));
            return Taken::Yes;
        }
        let entry = Entry { held, ..Entry::bare(Act::Update, id.get(), began) };
        let entries = [(entry, &update.payload[..])].into_iter().chain(begins(&new));
        self.record(Kind::Replace, 0, Some(message), &[], entries);
        batch.begun.insert(message.get());
        batch.ops.push(Op::Extend { update, new, done });
        Taken::Yes
    }

    fn any_is_known(&self, envelopes: &[NewEnvelope]) -> bool {
        let state = lock(&self.state);
        envelopes.iter().any(|envelope| state.envelope(envelope.id).is_some())
    }

    /// A hold is an update with the payload that is there already.
    fn add_hold(
        &mut self,
        batch: &mut Batch,
        envelope: EnvelopeId,
        held: bool,
        done: Completion<()>,
    ) -> Taken {
        // An earlier op of this batch may have changed the payload: then it is not on the disk yet.
        if !batch.ops.is_empty() {
            return Taken::Later(Op::Hold { envelope, held, done });
        }
        let Some((began, _)) = self.current(batch, envelope) else {
            done(Err(StoreError::NotFound));
            return Taken::Yes;
        };
        match self.payload(envelope) {
            Ok(payload) => {
                let entry = Entry { held, ..Entry::bare(Act::Update, envelope.get(), began) };
                let message = Some(envelope.message());
                self.record(Kind::Update, 0, message, &[], [(entry, &payload[..])]);
                batch.held.insert(envelope);
                batch.ops.push(Op::Hold { envelope, held, done });
            }
            Err(error) => done(Err(error)),
        }
        Taken::Yes
    }

    /// An envelope's payload from the disk.
    pub(super) fn payload(&self, envelope: EnvelopeId) -> Result<Vec<u8>, StoreError> {
        let (file, offset, length) = {
            let state = lock(&self.state);
            let place = state.envelope(envelope).ok_or(StoreError::NotFound)?;
            let file = state.segment(place.segment).and_then(|segment| segment.file.clone());
            (file.ok_or(StoreError::NotFound)?, place.offset(), place.length)
        };
        match file.entry(offset, length)? {
            Some((entry, payload)) if entry.id == envelope.get() => Ok(payload),
            _ => Err(StoreError::Corrupt {
                id: envelope.to_string(),
                reason: "checksum of envelope is wrong",
            }),
        }
    }

    /// The sequence number in which a live envelope began; `None` if it ended, in this batch too.
    fn began(&self, batch: &Batch, envelope: EnvelopeId) -> Option<u64> {
        self.current(batch, envelope).map(|(began, _)| began)
    }

    fn current(&self, batch: &Batch, envelope: EnvelopeId) -> Option<(u64, bool)> {
        if batch.ended.contains(&envelope) {
            return None;
        }
        let state = lock(&self.state);
        let place = state.envelope(envelope)?;
        Some((state.began(place), place.held()))
    }
}

fn begins(envelopes: &[NewEnvelope]) -> impl Iterator<Item = (Entry, &[u8])> {
    envelopes.iter().map(|new| (Entry::bare(Act::Begin, new.id.get(), 0), &new.payload[..]))
}
