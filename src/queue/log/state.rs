//! What the log knows in memory: where each live envelope and message is, and what each segment
//! is still needed for.
//!
//! The rules, carried out in [`super::apply`]:
//!
//! - An envelope is known by its id and the sequence number of the record in which it began;
//!   updates and ends name both, and one that does not match changes nothing.
//! - A record that ends or updates something is needed for as long as the segment in which that
//!   something began is on the disk: it is counted in [`Segment::needs`].
//! - A segment without live bytes that needs no other segment can be freed.

use std::collections::{BTreeMap, BTreeSet};

use super::place::{EnvelopePlace, MessagePlace, NO_SEGMENT, SegmentSlot};
use super::record::{ENTRY, LargeRef, segment_of, sequence};
use super::segment::{Identity, SegmentFile};
use super::table::{Slot, Table};
use crate::model::id::{EnvelopeId, MessageId};
use crate::queue::store::Statistics;

/// A segment on the disk.
pub(super) struct Segment {
    /// Who it is.
    pub identity: Identity,
    /// Its file, until it is being removed.
    pub file: Option<SegmentFile>,
    /// Bytes in it that are somebody's newest payload or body.
    pub live: u64,
    /// How many of its records end or update something in which other segment.
    pub needs: BTreeMap<SegmentSlot, u32>,
    /// Messages that have a record here, dead ones too; sorted once it is complete.
    pub messages: Vec<u32>,
    /// Sequence number from which on its records never counted.
    pub void_from: u64,
    /// Whether records are still added.
    pub open: bool,
    /// Whether a write or sync of it failed, or may have: its file is not used again.
    pub suspect: bool,
    /// Whether all that is needed of it was copied forward.
    pub drained: bool,
    /// Whether its file is being removed.
    pub leaving: bool,
    /// Whether removing or compacting it failed lately.
    pub stuck: bool,
}

/// A large body that nobody needs any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct DeadLarge {
    pub message: MessageId,
    /// Where its [`LargeRef`] stood.
    pub reference: Option<LargeRef>,
}

/// All of it.
pub(super) struct State {
    pub(super) envelopes: Table<EnvelopePlace>,
    pub(super) messages: Table<MessagePlace>,
    segments: Vec<Option<Segment>>,
    pub(super) by_number: BTreeMap<u64, SegmentSlot>,
    /// Live large bodies and whether their CRC was checked by this process; few, so not in the
    /// compact table.
    pub(super) large: BTreeMap<u32, (LargeRef, bool)>,
    /// Ids of files in `large/` that no message refers to and that were left there.
    pub left: BTreeSet<u32>,
    pub(super) live: u64,
    /// Whether records are still being replayed: a message may be without envelopes for a while,
    /// since compaction writes an end again after the beginning of what took its place.
    pub(super) replaying: bool,
    /// What the log counted; the rest of [`Statistics`] is computed when asked for.
    pub figures: Statistics,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            envelopes: Table::new(),
            messages: Table::new(),
            segments: Vec::new(),
            by_number: BTreeMap::new(),
            large: BTreeMap::new(),
            left: BTreeSet::new(),
            live: 0,
            replaying: true,
            figures: Statistics::default(),
        }
    }

    /// Adds a segment; `None` if 65,535 are there.
    pub(super) fn add_segment(&mut self, file: SegmentFile) -> Option<SegmentSlot> {
        let at = self.segments.iter().position(Option::is_none).unwrap_or(self.segments.len());
        let slot = SegmentSlot::try_from(at).ok().filter(|slot| *slot != NO_SEGMENT)?;
        self.by_number.insert(file.identity.number, slot);
        let segment = Segment {
            identity: file.identity,
            file: Some(file),
            live: 0,
            needs: BTreeMap::new(),
            messages: Vec::new(),
            void_from: u64::MAX,
            open: true,
            suspect: false,
            drained: false,
            leaving: false,
            stuck: false,
        };
        match self.segments.get_mut(at) {
            Some(place) => *place = Some(segment),
            None => self.segments.push(Some(segment)),
        }
        Some(slot)
    }

    /// Says that no record is added to a segment any more.
    pub(super) fn close_segment(&mut self, slot: SegmentSlot) {
        if let Some(segment) = self.segment_mut(slot) {
            segment.open = false;
            segment.messages.sort_unstable();
            segment.messages.dedup();
            segment.messages.shrink_to_fit();
        }
    }

    /// Forgets a segment whose file is durably gone.
    pub(super) fn remove_segment(&mut self, slot: SegmentSlot) {
        let Some(segment) = self.segments.get_mut(usize::from(slot)).and_then(Option::take) else {
            return;
        };
        self.by_number.remove(&segment.identity.number);
        for other in self.segments.iter_mut().flatten() {
            other.needs.remove(&slot);
        }
    }

    pub(super) fn segment(&self, slot: SegmentSlot) -> Option<&Segment> {
        self.segments.get(usize::from(slot))?.as_ref()
    }

    pub(super) fn segment_mut(&mut self, slot: SegmentSlot) -> Option<&mut Segment> {
        self.segments.get_mut(usize::from(slot))?.as_mut()
    }

    /// The segments, oldest first.
    pub(super) fn segments(&self) -> impl Iterator<Item = (SegmentSlot, &Segment)> {
        self.by_number.values().filter_map(|slot| Some((*slot, self.segment(*slot)?)))
    }

    /// The segments in no order, to be changed.
    pub(super) fn segments_mut(&mut self) -> impl Iterator<Item = (SegmentSlot, &mut Segment)> {
        let numbered = self.segments.iter_mut().enumerate();
        numbered.filter_map(|(at, place)| Some((SegmentSlot::try_from(at).ok()?, place.as_mut()?)))
    }

    /// The segment on the disk that a sequence number belongs to.
    pub(super) fn slot_of(&self, sequence: u64) -> Option<SegmentSlot> {
        self.by_number.get(&segment_of(sequence)).copied()
    }

    fn number(&self, slot: SegmentSlot) -> u64 {
        self.segment(slot).map_or(0, |segment| segment.identity.number)
    }

    pub(super) fn envelope(&self, id: EnvelopeId) -> Option<&EnvelopePlace> {
        self.envelopes.get((id.message().get(), id.get() as u32))
    }

    pub(super) fn message(&self, id: MessageId) -> Option<&MessagePlace> {
        self.messages.get(id.get())
    }

    /// A message's large body, and whether its CRC was checked by this process.
    pub(super) fn large(&self, id: MessageId) -> Option<(LargeRef, bool)> {
        self.large.get(&id.get()).copied()
    }

    /// Says that the CRC of a large body is right.
    pub(super) fn large_is_checked(&mut self, id: MessageId) {
        if let Some((_, checked)) = self.large.get_mut(&id.get()) {
            *checked = true;
        }
    }

    /// The sequence number of the record in which an envelope began.
    pub(super) fn began(&self, place: &EnvelopePlace) -> u64 {
        sequence(self.number(place.began_segment), place.began_place)
    }

    /// The sequence number of a message's record.
    pub(super) fn sequence(&self, place: &MessagePlace) -> u64 {
        sequence(self.number(place.segment), place.place)
    }

    /// The live envelopes of a message.
    pub(super) fn envelopes_of(&self, message: MessageId) -> Vec<EnvelopePlace> {
        let number = message.get();
        let near = self.envelopes.near(EnvelopePlace::group((number, 0)));
        near.filter(|place| place.message == number).copied().collect()
    }

    /// All live envelopes, in no order.
    pub(super) fn all_envelopes(&self) -> impl Iterator<Item = &EnvelopePlace> {
        self.envelopes.iter()
    }

    /// All live messages, in no order.
    pub(super) fn all_messages(&self) -> impl Iterator<Item = &MessagePlace> {
        self.messages.iter()
    }

    /// How many envelopes and messages live.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.envelopes.len() as u64, self.messages.len() as u64)
    }

    /// Live bytes in all segments.
    pub(super) fn live(&self) -> u64 {
        self.live
    }

    /// Bytes of memory that the index takes.
    pub(super) fn memory(&self) -> usize {
        let ids: usize =
            self.segments.iter().flatten().map(|segment| segment.messages.capacity() * 4).sum();
        self.envelopes.memory() + self.messages.memory() + ids
    }

    /// Whether a message id stands anywhere on the disk, dead or alive.
    pub(super) fn id_in_use(&self, id: u32) -> bool {
        self.messages.get(id).is_some()
            || self.left.contains(&id)
            || self.segments.iter().flatten().any(|segment| segment.mentions(id))
    }

    pub(super) fn add_live(&mut self, slot: SegmentSlot, bytes: u64) {
        self.live += bytes;
        if let Some(segment) = self.segment_mut(slot) {
            segment.live += bytes;
        }
    }

    pub(super) fn drop_live(&mut self, slot: SegmentSlot, bytes: u64) {
        self.live = self.live.saturating_sub(bytes);
        if let Some(segment) = self.segment_mut(slot) {
            segment.live = segment.live.saturating_sub(bytes);
        }
    }

    pub(super) fn add_need(&mut self, from: SegmentSlot, of: SegmentSlot) {
        if from != of
            && of != NO_SEGMENT
            && let Some(segment) = self.segment_mut(from)
        {
            *segment.needs.entry(of).or_default() += 1;
        }
    }

    pub(super) fn drop_need(&mut self, from: SegmentSlot, of: SegmentSlot) {
        let Some(segment) = self.segment_mut(from) else { return };
        if let Some(count) = segment.needs.get_mut(&of) {
            *count -= 1;
            if *count == 0 {
                segment.needs.remove(&of);
            }
        }
    }
}

impl Segment {
    /// Whether it has a record of a message.
    pub(super) fn mentions(&self, message: u32) -> bool {
        if self.open {
            self.messages.contains(&message)
        } else {
            self.messages.binary_search(&message).is_ok()
        }
    }

    /// Whether nothing in it is needed any more.
    pub(super) fn is_free(&self) -> bool {
        !self.open && !self.leaving && (self.drained || self.needs.is_empty()) && self.live == 0
    }

    /// About how many bytes compaction would have to copy.
    pub(super) fn cost(&self) -> u64 {
        let needed: u64 = self.needs.values().map(|count| u64::from(*count)).sum();
        self.live + needed * ENTRY as u64
    }
}
