//! Batches: what waits is encoded into one buffer, written with one call and made durable with one
//! sync; then it counts, and those who wait are told.
//!
//! If the write or the sync fails, the segment is left for good. The next batch, in the next
//! segment, begins by cancelling the failed one; outcomes and updates of it are written again, its
//! messages are refused.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use super::engine::{Active, KEPT_BUFFER, Log, is_no_room, lock};
use super::gather::Taken;
use super::op::Op;
use super::record::{Act, ENTRY, Entry, HEADER, Kind, LargeRef, RECORD_BITS, Writer, sequence};
use super::segment::RECORDS_AT;
use crate::model::id::{EnvelopeId, MessageId};
use crate::queue::store::StoreError;

/// Soft limit of a batch, bytes: those who wait for it wait for all of it.
const BATCH: usize = 4 << 20;

/// A batch being built.
pub(super) struct Batch {
    /// Length of the active segment's skeleton before it.
    skeleton: usize,
    /// Place of its first record.
    place: u32,
    pub(super) ops: Vec<Op>,
    /// Envelopes that end, gathered for one record.
    pub(super) ends: Vec<Entry>,
    /// Messages that have a record in it.
    pub(super) begun: HashSet<u32>,
    pub(super) ended: HashSet<EnvelopeId>,
    /// Envelopes whose hold changes in it.
    pub(super) held: HashSet<EnvelopeId>,
    pub(super) large: Vec<(u64, LargeRef)>,
    cancels: usize,
}

impl Log {
    /// Writes one batch from the front of `queue`; what does not fit, or speaks of something that
    /// this batch only makes, stays. What can never be written now is answered. Returns whether
    /// calling again makes sense before a report or a tick.
    pub(super) fn write(&mut self, queue: &mut VecDeque<Op>, now: Instant) -> bool {
        self.now = now;
        self.refuse_front(queue);
        if queue.is_empty() && !self.has_own_work() {
            return false;
        }
        let needed = queue.front().map_or(0, Op::space);
        if !self.has_room(needed) {
            if !self.is_waiting() {
                self.trouble.stopped = self.trouble.no_room;
                self.refuse(queue);
            }
            return false;
        }
        self.trouble.stopped = false;
        let Some(mut batch) = self.begin_batch() else { return false };
        while let Some(op) = queue.pop_front() {
            if self.buffer.len() > BATCH || !self.fits(&batch, op.space()) {
                queue.push_front(op);
                break;
            }
            match self.add(&mut batch, op) {
                Taken::Yes => {}
                Taken::Later(op) => {
                    queue.push_front(op);
                    break;
                }
            }
        }
        if let Err(unwritten) = self.finish_batch(batch, queue) {
            self.put_back(unwritten, queue);
        }
        !self.is_failing() && (!queue.is_empty() || self.has_own_work())
    }

    /// Whether something waits for the log itself: cancellations of failed batches.
    pub(super) fn has_own_work(&self) -> bool {
        !self.cancels.is_empty() && (self.active.is_some() || self.next.is_some())
    }

    /// Makes sure that the active segment has room for a record; `false` if it must be waited for,
    /// or there is none.
    pub(super) fn has_room(&mut self, needed: usize) -> bool {
        // The batch record, the cancellations and the record of ends come on top.
        let needed = needed + 4 * HEADER + (4 + self.cancels.len()) * ENTRY;
        for _ in 0..2 {
            if self.active.as_ref().is_some_and(|active| active.takes(needed)) {
                return true;
            }
            self.wanted = needed as u64 + RECORDS_AT;
            let rolled = self.roll();
            self.wanted = 0;
            if !rolled {
                // Whoever asks again asks for this size again.
                return false;
            }
        }
        self.active.as_ref().is_some_and(|active| active.takes(needed))
    }

    fn fits(&self, batch: &Batch, needed: usize) -> bool {
        let used = self.buffer.len() + (batch.ends.len() + 2) * ENTRY + 2 * HEADER;
        self.active.as_ref().is_some_and(|active| active.takes(used + needed))
    }

    /// Begins a batch with the record that says what was durable before it, and cancellations.
    pub(super) fn begin_batch(&mut self) -> Option<Batch> {
        let (number, durable) = match (&self.active, self.previous) {
            (Some(active), Some(previous)) if active.place == 0 => {
                debug_assert!(previous.0 < active.file.identity.number);
                previous
            }
            (Some(active), _) => (active.file.identity.number, active.end),
            (None, _) => return None,
        };
        let active = self.active.as_ref()?;
        let mut batch = Batch {
            skeleton: active.skeleton.len(),
            place: active.place,
            ops: Vec::new(),
            ends: Vec::new(),
            begun: HashSet::new(),
            ended: HashSet::new(),
            held: HashSet::new(),
            large: Vec::new(),
            cancels: self.cancels.len(),
        };
        self.buffer.clear();
        let first = [(Entry::bare(Act::Durable, number, durable), &[][..])];
        self.record(Kind::Batch, 0, None, &[], first);
        if !self.cancels.is_empty() {
            let state = lock(&self.state);
            self.cancels.retain(|(from, _)| state.slot_of(*from).is_some());
            drop(state);
            batch.cancels = self.cancels.len();
            let cancels = std::mem::take(&mut self.cancels);
            let entries =
                cancels.iter().map(|(from, to)| (Entry::bare(Act::Cancel, *from, *to), &[][..]));
            self.record(Kind::Cancel, 0, None, &[], entries);
            self.cancels = cancels;
        }
        Some(batch)
    }

    /// Encodes a record into the buffer; its sequence number.
    pub(super) fn record<'a>(
        &mut self,
        kind: Kind,
        flags: u8,
        message: Option<MessageId>,
        body: &[u8],
        entries: impl IntoIterator<Item = (Entry, &'a [u8])>,
    ) -> u64 {
        let Some(active) = &mut self.active else { return 0 };
        let number = sequence(active.file.identity.number, active.place);
        active.place += 1;
        let start = self.buffer.len();
        let mut writer = Writer::begin(&mut self.buffer, active.seed, kind, flags, number, message);
        if !body.is_empty() {
            writer.body(body);
        }
        for (entry, payload) in entries {
            writer.entry(entry, payload);
        }
        let header = writer.finish();
        let bytes = self.buffer.get(start..).unwrap_or_default();
        active.skeleton.push(&header, active.end + start as u64, bytes);
        number
    }

    pub(super) fn end_envelopes(&mut self, ends: &[Entry]) {
        if !ends.is_empty() {
            let entries = ends.iter().map(|entry| (*entry, &[][..]));
            self.record(Kind::Done, 0, None, &[], entries);
        }
    }

    pub(super) fn end_messages(&mut self, ends: &[(MessageId, u64)]) {
        if !ends.is_empty() {
            let entries = ends.iter().map(|(message, upto)| {
                (Entry::bare(Act::EndMessage, u64::from(message.get()), *upto), &[][..])
            });
            self.record(Kind::MessageDone, 0, None, &[], entries);
        }
    }

    /// Completes, writes and syncs a batch. On success it counts and its ops are answered.
    ///
    /// # Errors
    /// The ops, if it did not become durable; the segment is left, the batch will be cancelled.
    pub(super) fn finish_batch(
        &mut self,
        mut batch: Batch,
        queue: &mut VecDeque<Op>,
    ) -> Result<(), Vec<Op>> {
        let ends = std::mem::take(&mut batch.ends);
        self.end_envelopes(&ends);
        let Some(active) = &mut self.active else { return Err(batch.ops) };
        if active.place == batch.place + 1 {
            // Nothing but the batch record: not worth a sync.
            self.abandon_batch(&batch);
            return Ok(());
        }
        let file = &active.file.file;
        let written = file.write_at(&self.buffer, active.end).and_then(|()| file.sync());
        if let Err(error) = written {
            self.leave_segment(&batch, &error);
            return Err(batch.ops);
        }
        active.end += self.buffer.len() as u64;
        self.trouble.failed = 0;
        self.cancels.drain(..batch.cancels);
        self.count(&batch);
        if batch.cancels != 0 {
            let refused = std::mem::take(&mut self.refused);
            self.bury_large(refused.iter().filter_map(|(_, large)| *large).collect());
            for (answer, _) in refused {
                answer.give(Err(StoreError::Failing));
            }
        }
        if self.buffer.capacity() > 2 * BATCH {
            self.buffer = Vec::with_capacity(KEPT_BUFFER);
        }
        answer(batch.ops, queue);
        Ok(())
    }

    /// Forgets a batch of which nothing was written.
    pub(super) fn abandon_batch(&mut self, batch: &Batch) {
        if let Some(active) = &mut self.active {
            active.skeleton.truncate(batch.skeleton);
            active.place = batch.place;
        }
    }

    /// Takes a durable batch's records into the state.
    fn count(&mut self, batch: &Batch) {
        let Some(active) = &self.active else { return };
        let mut dead = Vec::new();
        let mut large = batch.large.iter().peekable();
        let mut state = lock(&self.state);
        let mut records = 0;
        for record in active.skeleton.from(batch.skeleton) {
            let of_record = large
                .next_if(|(number, _)| *number == record.header.sequence)
                .map(|(_, large)| *large);
            state.apply(active.slot, &record, of_record, &mut dead);
            if let Some(message) = record.header.message_id().filter(|_| of_record.is_some()) {
                // Its CRC was taken from the file just now.
                state.large_is_checked(message);
            }
            records += 1;
        }
        state.figures.records += records;
        state.figures.batches += 1;
        state.figures.written_bytes += self.buffer.len() as u64;
        drop(state);
        self.bury_large(dead);
    }

    /// Gives up the active segment after a failed write or sync: it is never synced again.
    fn leave_segment(&mut self, batch: &Batch, error: &std::io::Error) {
        lock(&self.state).figures.failures += 1;
        self.trouble.failed = self.trouble.failed.saturating_add(1);
        if is_no_room(error) && self.next.is_none() {
            self.trouble.no_room = true;
        }
        if let Some(active) = &self.active {
            let number = active.file.identity.number;
            let (from, to) = (sequence(number, batch.place), sequence(number, active.place - 1));
            self.cancels.push((from, to));
            if let Some(segment) = lock(&self.state).segment_mut(active.slot) {
                segment.void_from = from;
                segment.suspect = true;
            }
        }
        self.retire(false);
    }
}

impl Active {
    /// Whether `needed` more bytes, and a record's number, are left.
    fn takes(&self, needed: usize) -> bool {
        self.end + needed as u64 <= self.file.identity.size && self.place + 64 < 1 << RECORD_BITS
    }
}

/// Tells those who waited for a batch. A message that nobody waits for any more is taken back.
fn answer(ops: Vec<Op>, queue: &mut VecDeque<Op>) {
    for op in ops {
        match op {
            Op::Cancel { .. } => {}
            Op::Commit { message, answer, .. } => {
                if !answer.give(Ok(())) {
                    queue.push_front(Op::Cancel { message });
                }
            }
            Op::End { done, .. } => {
                if let Some(done) = done {
                    done(Ok(()));
                }
            }
            Op::Extend { done, .. }
            | Op::Hold { done, .. }
            | Op::Replace { done, .. }
            | Op::Update { done, .. } => done(Ok(())),
        }
    }
}
