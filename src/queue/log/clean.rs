//! Compaction: what is still needed of a mostly dead segment is copied forward, so that its file
//! can go.
//!
//! Copied are: a live message whose body is here (with all its live envelopes, wherever they
//! are, as one record in the place of all earlier ones); an envelope that began or was last updated
//! here; the end of an envelope or message whose beginning is in another segment still on the disk;
//! a cancellation of records still on the disk. Copies are batches of their own, so nothing else can
//! speak about an envelope while it moves.

use std::collections::{HashSet, VecDeque};
use std::io;

use super::engine::{Log, lock};
use super::keeper::Job;
use super::place::{EnvelopePlace, SegmentSlot};
use super::record::{Act, Entry, HEADER, Kind, LARGE, MERGED, padded};
use super::segment::{Record, Skeleton, record_space};
use super::state::State;
use crate::model::id::{EnvelopeId, MessageId};
use crate::queue::store::StoreError;

/// About how many bytes are copied in one step: those who commit meanwhile wait for it.
const STEP: usize = 256 * 1024;

/// How far compaction is.
pub(super) enum Cleaning {
    /// Nothing is being compacted.
    Idle,
    /// The contents of a segment are being read.
    Reading(SegmentSlot),
    /// Records from its position on have yet to be looked at; at the end the segment is `freed`, or
    /// stays.
    Copying { rest: Rewrite, freed: bool },
}

/// Records of a segment that are to be written again.
pub(super) struct Rewrite {
    pub slot: SegmentSlot,
    pub skeleton: Skeleton,
    /// Where in the skeleton they begin.
    pub position: usize,
    /// Sequence numbers of the first and the last possible one, to be cancelled when all are
    /// written; `None` if they go with their segment, or one could not be read.
    pub cancels: Option<(u64, u64)>,
}

/// What a step copies.
#[derive(Default)]
struct Copies {
    messages: HashSet<u32>,
    ends: Vec<Entry>,
    message_ends: Vec<(MessageId, u64)>,
    cancels: Vec<Entry>,
}

/// One thing to be copied.
#[derive(Clone, Copy)]
enum Needed {
    /// A live message with its body.
    Message(MessageId),
    /// An envelope that began here; its message's body is elsewhere.
    Began(EnvelopeId),
    /// An envelope whose newest payload is here.
    Payload(EnvelopeId),
    /// The end of an envelope.
    End(Entry),
    /// The end of a message.
    EndMessage(MessageId, u64),
    /// A cancellation.
    Cancel(Entry),
}

impl Log {
    /// Begins compaction of the segment that gives most for least, if space should be won back.
    pub(super) fn choose_victim(&mut self) {
        if !matches!(self.cleaning, Cleaning::Idle) {
            return;
        }
        let state = lock(&self.state);
        let closed = |segment: &super::state::Segment| {
            !segment.open && !segment.leaving && !segment.drained && !segment.is_free()
        };
        let total: u64 = state
            .segments()
            .filter(|(_, segment)| closed(segment))
            .map(|(_, segment)| segment.identity.size)
            .sum();
        let spare_room = if self.is_full() { 1 } else { 2 };
        if total <= spare_room * state.live() + self.target {
            return;
        }
        // In per mille of the size; the cheapest first.
        let share = |segment: &super::state::Segment| {
            segment.cost().saturating_mul(1000) / segment.identity.size.max(1)
        };
        let victim = state
            .segments()
            .filter(|(_, segment)| closed(segment) && !segment.stuck && share(segment) < 750)
            .min_by_key(|(_, segment)| share(segment))
            .and_then(|(slot, segment)| Some((slot, segment.file.clone()?)));
        drop(state);
        if let Some((slot, file)) = victim {
            self.cleaning = Cleaning::Reading(slot);
            self.jobs.push(Job::Read { slot, file });
        }
    }

    pub(super) fn cleaning_read(&mut self, slot: SegmentSlot, result: io::Result<Skeleton>) {
        if !matches!(self.cleaning, Cleaning::Reading(waiting) if waiting == slot) {
            return;
        }
        match result {
            Ok(skeleton) => {
                let rest = Rewrite { slot, skeleton, position: 0, cancels: None };
                self.cleaning = Cleaning::Copying { rest, freed: true };
            }
            Err(_) => self.give_up_cleaning(slot),
        }
    }

    /// Whether a step of compaction can be done now.
    pub(super) fn can_clean(&self) -> bool {
        let copying = matches!(self.cleaning, Cleaning::Copying { .. });
        copying && !self.copy_waits && !self.is_failing()
    }

    fn give_up_cleaning(&mut self, slot: SegmentSlot) {
        self.cleaning = Cleaning::Idle;
        if let Some(segment) = lock(&self.state).segment_mut(slot) {
            segment.stuck = true;
        }
    }

    /// Begins to write again what recovery found.
    pub(super) fn begin_rewrite(&mut self) {
        if matches!(self.cleaning, Cleaning::Idle)
            && let Some(rest) = self.rewrites.pop()
        {
            self.cleaning = Cleaning::Copying { rest, freed: false };
        }
    }

    /// Whether everything that recovery found is durable: then segments may be freed.
    pub(super) fn is_settled(&self) -> bool {
        self.rewrites.is_empty() && !matches!(self.cleaning, Cleaning::Copying { freed: false, .. })
    }

    /// Copies about [`STEP`] bytes forward, as one batch.
    pub(super) fn clean_step(&mut self) {
        let Cleaning::Copying { mut rest, freed } =
            std::mem::replace(&mut self.cleaning, Cleaning::Idle)
        else {
            return;
        };
        match self.copy(&mut rest, freed) {
            Ok(Some(position)) => {
                rest.position = position;
                self.cleaning = Cleaning::Copying { rest, freed };
            }
            Ok(None) => {
                if let Some(segment) = lock(&self.state).segment_mut(rest.slot) {
                    segment.drained |= freed;
                    let void_from = rest.cancels.map_or(u64::MAX, |(from, _)| from);
                    segment.void_from = segment.void_from.min(void_from);
                }
                self.maintain();
            }
            Err(_) if freed => self.give_up_cleaning(rest.slot),
            Err(_) => {
                // Nothing is freed until this is done: tried again after the next tick.
                self.copy_waits = true;
                self.cleaning = Cleaning::Copying { rest, freed };
            }
        }
    }

    /// Copies from `position` on; where to go on, `None` at the end.
    fn copy(&mut self, rest: &mut Rewrite, freed: bool) -> Result<Option<usize>, StoreError> {
        let Rewrite { slot, skeleton, position, cancels } = rest;
        let (slot, position) = (*slot, *position);
        let void_from = lock(&self.state).segment(slot).map_or(0, |segment| segment.void_from);
        let needed = self.copy_needs.max(self.options.smallest_segment as usize / 8);
        if !self.has_room(needed) {
            // Without a segment to come there is nothing to win.
            self.copy_waits = self.is_waiting();
            return if self.copy_waits { Ok(Some(position)) } else { Err(StoreError::Full) };
        }
        self.copy_needs = 0;
        let Some(batch) = self.begin_batch() else { return Err(StoreError::Failing) };
        let mut copies = Copies::default();
        let mut next = position;
        let mut complete = true;
        for record in skeleton.from(position) {
            if self.buffer.len() + copies.space() > STEP {
                complete = false;
                break;
            }
            if record.header.sequence < void_from {
                match self.copy_record(slot, freed, &record, &mut copies) {
                    Ok(true) => {}
                    // Damaged: it stays where it is, and is reported when it is used.
                    Err(StoreError::Corrupt { .. }) if !freed => *cancels = None,
                    Ok(false) => {
                        complete = false;
                        break;
                    }
                    Err(error) => {
                        self.abandon_batch(&batch);
                        return Err(error);
                    }
                }
            }
            next = record.next;
        }
        // A batch can be torn: originals are cancelled only after the batch with their copies.
        let all_copied = complete && next == position;
        if let Some((from, to)) = cancels.filter(|_| all_copied) {
            copies.cancels.push(Entry::bare(Act::Cancel, from, to));
        }
        let over = all_copied || (complete && cancels.is_none());
        self.end_envelopes(&copies.ends);
        self.end_messages(&copies.message_ends);
        if !copies.cancels.is_empty() {
            let entries = copies.cancels.iter().map(|entry| (*entry, &[][..]));
            self.record(Kind::Cancel, 0, None, &[], entries);
        }
        let written = self.buffer.len() as u64;
        let failed = self.finish_batch(batch, &mut VecDeque::new()).is_err();
        if failed {
            return Err(StoreError::Failing);
        }
        lock(&self.state).figures.compacted_bytes += written;
        Ok((!over).then_some(next))
    }

    /// Copies what is needed of a record; `false` if the rest must wait for another segment.
    fn copy_record(
        &mut self,
        slot: SegmentSlot,
        freed: bool,
        record: &Record<'_>,
        copies: &mut Copies,
    ) -> Result<bool, StoreError> {
        let needed = needed_of(&lock(&self.state), slot, freed, record);
        if record.header.kind == Kind::Replace {
            return self.copy_step(&needed, record.header.message_id(), copies);
        }
        for one in needed {
            if !self.copy_one(one, copies)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn copy_one(&mut self, one: Needed, copies: &mut Copies) -> Result<bool, StoreError> {
        match one {
            Needed::Message(id) if copies.messages.contains(&id.get()) => {}
            Needed::Message(id) => return self.copy_message(id, copies),
            // Copied with their message.
            Needed::Began(id) | Needed::Payload(id)
                if copies.messages.contains(&id.message().get()) => {}
            Needed::Began(id) => return self.copy_envelope(id, true, copies),
            Needed::Payload(id) => return self.copy_envelope(id, false, copies),
            Needed::End(entry) => copies.ends.push(entry),
            Needed::EndMessage(message, upto) => copies.message_ends.push((message, upto)),
            Needed::Cancel(entry) => copies.cancels.push(entry),
        }
        Ok(true)
    }

    /// Copies what is needed of a record whose entries count together or not at all, as one record:
    /// a batch may be torn between two.
    fn copy_step(
        &mut self,
        needed: &[Needed],
        message: Option<MessageId>,
        copies: &mut Copies,
    ) -> Result<bool, StoreError> {
        let with_message = needed.iter().find(|one| matches!(one, Needed::Message(_)));
        if let Some(message) = with_message {
            // The merged record takes the place of all that was said of the message, ends included.
            return self.copy_one(*message, copies);
        }
        if message.is_some_and(|message| copies.messages.contains(&message.get())) {
            return Ok(true);
        }
        let mut entries = Vec::with_capacity(2 * needed.len());
        for one in needed {
            match one {
                Needed::Began(id) => self.entries_of(*id, true, &mut entries)?,
                Needed::Payload(id) => self.entries_of(*id, false, &mut entries)?,
                Needed::End(entry) => entries.push((*entry, Vec::new())),
                Needed::Cancel(_) | Needed::EndMessage(..) | Needed::Message(_) => {}
            }
        }
        if entries.is_empty() {
            return Ok(true);
        }
        let space = record_space(0, entries.iter().map(|(_, payload)| payload.len()));
        if !self.has_room_for_copy(space, copies)? {
            return Ok(false);
        }
        let entries = entries.iter().map(|(entry, payload)| (*entry, &payload[..]));
        self.record(Kind::Replace, 0, message, &[], entries);
        Ok(true)
    }

    /// What says where a live envelope is now: its newest payload, in a new beginning if it
    /// `begins`.
    fn entries_of(
        &self,
        id: EnvelopeId,
        begins: bool,
        entries: &mut Vec<(Entry, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        let (began, held) = {
            let state = lock(&self.state);
            let Some(place) = state.envelope(id) else { return Ok(()) };
            (state.began(place), place.held())
        };
        let payload = self.payload(id)?;
        if begins {
            entries.push((Entry::bare(Act::End, id.get(), began), Vec::new()));
            entries.push((Entry { held, ..Entry::bare(Act::Begin, id.get(), 0) }, payload));
        } else {
            entries.push((Entry { held, ..Entry::bare(Act::Update, id.get(), began) }, payload));
        }
        Ok(())
    }

    /// Whether so many more bytes fit into this batch, or into an empty segment.
    fn has_room_for_copy(&mut self, needed: usize, copies: &Copies) -> Result<bool, StoreError> {
        let used = self.buffer.len() + copies.space() + 3 * HEADER;
        let fits = self
            .active
            .as_ref()
            .is_some_and(|active| active.end + (used + needed) as u64 <= active.file.identity.size);
        if fits {
            return Ok(true);
        }
        // Nothing of this batch may be lost, so the segment is changed between batches: asked for
        // here, found by the next step.
        self.copy_needs = needed + 16 * HEADER;
        Ok(false)
    }

    fn copy_message(&mut self, id: MessageId, copies: &mut Copies) -> Result<bool, StoreError> {
        let (file, place, envelopes) = {
            let state = lock(&self.state);
            let Some(place) = state.message(id).copied() else { return Ok(true) };
            let file = state.segment(place.segment).and_then(|segment| segment.file.clone());
            (file.ok_or(StoreError::NotFound)?, place, state.envelopes_of(id))
        };
        let payloads: usize =
            envelopes.iter().map(|envelope| 24 + padded(usize::from(envelope.length))).sum();
        let needed = HEADER + padded(place.body_length() as usize) + payloads;
        if !self.has_room_for_copy(needed, copies)? {
            return Ok(false);
        }
        let corrupt = StoreError::Corrupt { id: id.to_string(), reason: "checksum is wrong" };
        let (_, body) = file.body(place.offset(), place.body_length())?.ok_or(corrupt)?;
        let entries = envelopes
            .iter()
            .filter_map(|place| Some((place.id()?, place.held())))
            .map(|(id, held)| {
                let entry = Entry { held, ..Entry::bare(Act::Begin, id.get(), 0) };
                Ok((entry, self.payload(id)?))
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        let flags = MERGED | if place.is_large() { LARGE } else { 0 };
        let entries = entries.iter().map(|(entry, payload)| (*entry, &payload[..]));
        self.record(Kind::Message, flags, Some(id), &body, entries);
        copies.messages.insert(id.get());
        Ok(true)
    }

    fn copy_envelope(
        &mut self,
        id: EnvelopeId,
        begins: bool,
        copies: &Copies,
    ) -> Result<bool, StoreError> {
        let Some(length) = lock(&self.state).envelope(id).map(|place| usize::from(place.length))
        else {
            return Ok(true);
        };
        if !self.has_room_for_copy(HEADER + 64 + length, copies)? {
            return Ok(false);
        }
        let mut entries = Vec::with_capacity(2);
        self.entries_of(id, begins, &mut entries)?;
        let entries = entries.iter().map(|(entry, payload)| (*entry, &payload[..]));
        let kind = if begins { Kind::Replace } else { Kind::Update };
        self.record(kind, 0, Some(id.message()), &[], entries);
        Ok(true)
    }
}

impl Copies {
    fn space(&self) -> usize {
        (self.ends.len() + self.message_ends.len() + self.cancels.len()) * super::record::ENTRY
    }
}

/// What of a record in the segment `slot` must be on the disk somewhere else if that segment is
/// `freed`, or if this record turns out not to be durable.
fn needed_of(state: &State, slot: SegmentSlot, freed: bool, record: &Record<'_>) -> Vec<Needed> {
    let header = &record.header;
    let mut needed = Vec::new();
    let stays = |of: SegmentSlot| of != slot || !freed;
    let elsewhere = |sequence| state.slot_of(sequence).is_some_and(stays);
    let mentioned = |id, upto| state.mentions_before(id, upto).into_iter().any(stays);
    if header.kind == Kind::Message
        && let Some(id) = header.message_id()
    {
        let live = state
            .message(id)
            .is_some_and(|place| place.has_body() && state.sequence(place) == header.sequence);
        let before = header.sequence.saturating_sub(1);
        if live {
            needed.push(Needed::Message(id));
        } else if header.flags & MERGED != 0 && mentioned(id, before) {
            needed.push(Needed::EndMessage(id, before));
        }
    }
    for (entry, offset) in record.entries() {
        match entry.act {
            Act::Begin | Act::Update => {
                let Some(id) = EnvelopeId::new(entry.id) else { continue };
                let Some(place) = state.envelope(id) else { continue };
                if entry.act == Act::Begin && state.began(place) == header.sequence {
                    let body_here = state
                        .message(id.message())
                        .is_some_and(|message| message.has_body() && message.segment == slot);
                    // With its message, or alone.
                    needed.push(match body_here {
                        true => Needed::Message(id.message()),
                        false => Needed::Began(id),
                    });
                } else if is_here(place, slot, offset) && entry.act == Act::Update {
                    needed.push(Needed::Payload(id));
                }
            }
            Act::End if elsewhere(entry.reference) => needed.push(Needed::End(entry)),
            Act::EndMessage => {
                if let Some(id) = u32::try_from(entry.id).ok().and_then(MessageId::new)
                    && mentioned(id, entry.reference)
                {
                    needed.push(Needed::EndMessage(id, entry.reference));
                }
            }
            Act::Cancel if elsewhere(entry.id) => needed.push(Needed::Cancel(entry)),
            Act::End | Act::Cancel | Act::Durable => {}
        }
    }
    needed
}

fn is_here(place: &EnvelopePlace, slot: SegmentSlot, offset: u64) -> bool {
    place.segment == slot && place.offset() == offset
}
