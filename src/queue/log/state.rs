//! What the log knows in memory: where each live envelope and message is, and what each segment
//! is still needed for.
//!
//! One function, [`State::apply`], turns a record into state, for records just made durable and for
//! those found by recovery alike, so the two cannot disagree. The rules:
//!
//! - An envelope is known by its id and the sequence number of the record in which it began;
//!   updates and ends name both, and one that does not match changes nothing.
//! - A record that ends or updates something is needed for as long as the segment in which that
//!   something began is on the disk: it is counted in [`Segment::needs`].
//! - A segment without live bytes that needs no other segment can be freed.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{
    Act, ENTRY, Entry, HEADER, Kind, LARGE, LargeRef, MERGED, place_of, segment_of, sequence,
};
use super::segment::{Identity, Record, SegmentFile};
use super::table::{Slot, Table, mix};
use crate::model::id::{EnvelopeId, MessageId};
use crate::queue::store::Statistics;

/// Place of a segment in [`State`]; the index has no room for its whole number.
pub(super) type SegmentSlot = u16;

const NO_SEGMENT: SegmentSlot = SegmentSlot::MAX;

/// Where a live envelope is. 24 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct EnvelopePlace {
    message: u32,
    low: u32,
    /// Offset of its newest entry in units of 8 bytes; top bit: held.
    offset: u32,
    /// Place of the record in which it began.
    began_place: u32,
    pub segment: SegmentSlot,
    pub began_segment: SegmentSlot,
    pub length: u16,
}

const HELD: u32 = 1 << 31;

impl EnvelopePlace {
    pub(super) fn offset(&self) -> u64 {
        u64::from(self.offset & !HELD) * 8
    }

    pub(super) fn held(&self) -> bool {
        self.offset & HELD != 0
    }

    pub(super) fn id(&self) -> Option<EnvelopeId> {
        EnvelopeId::new((u64::from(self.message) << 32) | u64::from(self.low))
    }

    /// What its newest payload weighs in [`Segment::live`].
    fn payload_weight(&self) -> u64 {
        PAYLOAD_WEIGHT + super::record::padded(usize::from(self.length)) as u64
    }
}

// An envelope's entry of 24 bytes weighs in two places: where it began, which must stay on the disk
// for updates to mean something, and where its newest payload is.
const BEGAN_WEIGHT: u64 = 16;
const PAYLOAD_WEIGHT: u64 = ENTRY as u64 - BEGAN_WEIGHT;

impl Slot for EnvelopePlace {
    type Key = (u32, u32);
    const VACANT: Self = Self {
        message: 0,
        low: 0,
        offset: 0,
        began_place: 0,
        segment: 0,
        began_segment: 0,
        length: 0,
    };

    fn key(&self) -> Option<(u32, u32)> {
        (self.low != 0).then_some((self.message, self.low))
    }

    fn group((message, _): (u32, u32)) -> u64 {
        mix(u64::from(message))
    }

    fn hash((message, low): (u32, u32)) -> u64 {
        mix((u64::from(low) << 32) | u64::from(message))
    }
}

/// Where a live message's record is. 20 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessagePlace {
    message: u32,
    /// Offset of its record in units of 8 bytes; top bit: the body is a file in `large/`.
    offset: u32,
    place: u32,
    /// Length of the body in the record in the low 18 bits; above, envelopes modulo 2^14.
    body: u32,
    pub segment: SegmentSlot,
    /// Envelopes that live, divided by 2^14.
    envelopes_high: u16,
}

const BODY_BITS: u32 = 18;

impl MessagePlace {
    pub(super) fn id(&self) -> Option<MessageId> {
        MessageId::new(self.message)
    }

    pub(super) fn offset(&self) -> u64 {
        u64::from(self.offset & !HELD) * 8
    }

    pub(super) fn is_large(&self) -> bool {
        self.offset & HELD != 0
    }

    pub(super) fn body_length(&self) -> u32 {
        self.body & ((1 << BODY_BITS) - 1)
    }

    pub(super) fn envelopes(&self) -> u32 {
        (u32::from(self.envelopes_high) << 14) | (self.body >> BODY_BITS)
    }

    fn set_envelopes(&mut self, count: u32) {
        self.envelopes_high = (count >> 14) as u16;
        self.body = self.body_length() | ((count & 0x3fff) << BODY_BITS);
    }

    /// Whether its record is known; else only envelopes that name it are.
    pub(super) fn has_body(&self) -> bool {
        self.segment != NO_SEGMENT
    }

    fn space(&self) -> u64 {
        HEADER as u64 + u64::from(self.body_length())
    }
}

impl Slot for MessagePlace {
    type Key = u32;
    const VACANT: Self =
        Self { message: 0, offset: 0, place: 0, body: 0, segment: 0, envelopes_high: 0 };

    fn key(&self) -> Option<u32> {
        (self.message != 0).then_some(self.message)
    }

    fn group(message: u32) -> u64 {
        mix(u64::from(message))
    }

    fn hash(message: u32) -> u64 {
        mix(u64::from(message).rotate_left(17))
    }
}

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
    envelopes: Table<EnvelopePlace>,
    messages: Table<MessagePlace>,
    segments: Vec<Option<Segment>>,
    by_number: BTreeMap<u64, SegmentSlot>,
    /// Live large bodies and whether their CRC was checked by this process; few, so not in the
    /// compact table.
    large: BTreeMap<u32, (LargeRef, bool)>,
    /// Ids of files in `large/` that no message refers to and that were left there.
    pub left: BTreeSet<u32>,
    live: u64,
    /// Whether records are still being replayed: a message may be without envelopes for a while,
    /// since compaction writes an end again after the beginning of what took its place.
    replaying: bool,
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

    fn add_live(&mut self, slot: SegmentSlot, bytes: u64) {
        self.live += bytes;
        if let Some(segment) = self.segment_mut(slot) {
            segment.live += bytes;
        }
    }

    fn drop_live(&mut self, slot: SegmentSlot, bytes: u64) {
        self.live = self.live.saturating_sub(bytes);
        if let Some(segment) = self.segment_mut(slot) {
            segment.live = segment.live.saturating_sub(bytes);
        }
    }

    fn add_need(&mut self, from: SegmentSlot, of: SegmentSlot) {
        if from != of
            && of != NO_SEGMENT
            && let Some(segment) = self.segment_mut(from)
        {
            *segment.needs.entry(of).or_default() += 1;
        }
    }

    fn drop_need(&mut self, from: SegmentSlot, of: SegmentSlot) {
        let Some(segment) = self.segment_mut(from) else { return };
        if let Some(count) = segment.needs.get_mut(&of) {
            *count -= 1;
            if *count == 0 {
                segment.needs.remove(&of);
            }
        }
    }

    /// Takes in a record of the segment in `slot`; large bodies that died are added to `dead`.
    pub(super) fn apply(
        &mut self,
        slot: SegmentSlot,
        record: &Record<'_>,
        large: Option<LargeRef>,
        dead: &mut Vec<DeadLarge>,
    ) {
        let header = &record.header;
        if header.kind == Kind::Message {
            self.apply_message(slot, record, large, dead);
        }
        let mut touched = Vec::new();
        for (entry, offset) in record.entries() {
            match entry.act {
                Act::Begin => self.begin(slot, header.sequence, &entry, offset),
                Act::Update => self.update(slot, &entry, offset),
                Act::End => touched.extend(self.end(slot, &entry)),
                Act::EndMessage => self.end_message_entry(slot, &entry, dead),
                Act::Cancel => {
                    if let Some(of) = self.slot_of(entry.id) {
                        self.add_need(slot, of);
                    }
                }
                Act::Durable => {}
            }
        }
        // Only now: a record may end a message's last envelope and begin others.
        for message in touched {
            self.bury(message, dead);
        }
    }

    fn apply_message(
        &mut self,
        slot: SegmentSlot,
        record: &Record<'_>,
        large: Option<LargeRef>,
        dead: &mut Vec<DeadLarge>,
    ) {
        let header = &record.header;
        let Some(id) = header.message_id() else { return };
        if header.flags & MERGED != 0 {
            self.supersede(slot, id, header.sequence);
        } else if self.message(id).is_some_and(MessagePlace::has_body) {
            // Ids are used once; a second message under one would mix two senders' mail.
            self.end_message(id, header.sequence, dead);
        }
        let large_flag = if header.flags & LARGE != 0 { HELD } else { 0 };
        let waiting = self.messages.remove(id.get()).map_or(0, |place| place.envelopes());
        let mut place = MessagePlace {
            message: id.get(),
            offset: units(record.offset) | large_flag,
            place: place_of(header.sequence),
            body: header.body_length & ((1 << BODY_BITS) - 1),
            segment: slot,
            envelopes_high: 0,
        };
        place.set_envelopes(waiting);
        self.add_live(slot, place.space());
        self.messages.insert(place);
        if let Some(large) = large {
            self.large.insert(id.get(), (large, false));
        }
        self.mention(slot, id.get());
    }

    fn mention(&mut self, slot: SegmentSlot, message: u32) {
        if let Some(segment) = self.segment_mut(slot)
            && segment.messages.last() != Some(&message)
        {
            segment.messages.push(message);
        }
    }

    /// Takes away a message's earlier records in favour of one in `slot`, its large body excepted.
    fn supersede(&mut self, slot: SegmentSlot, id: MessageId, before: u64) {
        // All that ever spoke of it, not only what lives: a record that this one repeats may have
        // been all that kept an older one from counting.
        for of in self.mentions_before(id, before.saturating_sub(1)) {
            self.add_need(slot, of);
        }
        for place in self.envelopes_of(id) {
            if self.began(&place) < before {
                self.forget_envelope(&place);
            }
        }
        if let Some(place) = self.messages.get(id.get()).copied()
            && place.has_body()
        {
            self.drop_live(place.segment, place.space());
            self.messages.remove(id.get());
        }
    }

    /// Removes an envelope from table and accounts.
    fn forget_envelope(&mut self, place: &EnvelopePlace) {
        self.envelopes.remove((place.message, place.low));
        self.drop_live(place.segment, place.payload_weight());
        self.drop_live(place.began_segment, BEGAN_WEIGHT);
        if place.segment != place.began_segment {
            self.drop_need(place.segment, place.began_segment);
        }
        if let Some(message) = self.messages.get_mut(place.message) {
            let count = message.envelopes();
            message.set_envelopes(count.saturating_sub(1));
        }
    }

    fn begin(&mut self, slot: SegmentSlot, sequence: u64, entry: &Entry, offset: u64) {
        let Some(id) = EnvelopeId::new(entry.id) else { return };
        let message = id.message().get();
        if let Some(old) = self.envelope(id).copied() {
            // Written again further on; the record that ended the old one may not count.
            self.add_need(slot, old.began_segment);
            self.forget_envelope(&old);
        }
        let place = EnvelopePlace {
            message,
            low: id.get() as u32,
            offset: units(offset) | if entry.held { HELD } else { 0 },
            began_place: place_of(sequence),
            segment: slot,
            began_segment: slot,
            length: entry.length,
        };
        self.envelopes.insert(place);
        self.add_live(slot, place.payload_weight() + BEGAN_WEIGHT);
        self.mention(slot, message);
        if self.messages.get(message).is_none() {
            self.messages.insert(MessagePlace {
                message,
                segment: NO_SEGMENT,
                ..MessagePlace::VACANT
            });
        }
        if let Some(owner) = self.messages.get_mut(message) {
            let count = owner.envelopes();
            owner.set_envelopes(count + 1);
        }
    }

    fn matching(&self, entry: &Entry) -> Option<EnvelopePlace> {
        let place = self.envelope(EnvelopeId::new(entry.id)?)?;
        (self.began(place) == entry.reference).then_some(*place)
    }

    fn update(&mut self, slot: SegmentSlot, entry: &Entry, offset: u64) {
        let Some(old) = self.matching(entry) else { return };
        let new = EnvelopePlace {
            offset: units(offset) | if entry.held { HELD } else { 0 },
            segment: slot,
            length: entry.length,
            ..old
        };
        if let Some(place) = self.envelopes.get_mut((old.message, old.low)) {
            *place = new;
        }
        self.drop_live(old.segment, old.payload_weight());
        if old.segment != old.began_segment {
            self.drop_need(old.segment, old.began_segment);
        }
        self.add_live(slot, new.payload_weight());
        self.add_need(slot, old.began_segment);
    }

    fn end(&mut self, slot: SegmentSlot, entry: &Entry) -> Option<u32> {
        if let Some(of) = self.slot_of(entry.reference) {
            self.add_need(slot, of);
        }
        let place = self.matching(entry)?;
        self.forget_envelope(&place);
        Some(place.message)
    }

    fn end_message_entry(&mut self, slot: SegmentSlot, entry: &Entry, dead: &mut Vec<DeadLarge>) {
        let Some(id) = u32::try_from(entry.id).ok().and_then(MessageId::new) else { return };
        for of in self.mentions_before(id, entry.reference) {
            self.add_need(slot, of);
        }
        self.end_message(id, entry.reference, dead);
    }

    /// The segments on the disk that hold a record of a message up to a sequence number.
    pub(super) fn mentions_before(&self, id: MessageId, sequence: u64) -> Vec<SegmentSlot> {
        let upto = segment_of(sequence);
        let before = self.by_number.range(..=upto).map(|(_, slot)| *slot);
        before
            .filter(|slot| self.segment(*slot).is_some_and(|segment| segment.mentions(id.get())))
            .collect()
    }

    /// Ends a message as far as it began up to a sequence number.
    fn end_message(&mut self, id: MessageId, upto: u64, dead: &mut Vec<DeadLarge>) {
        for place in self.envelopes_of(id) {
            if self.began(&place) <= upto {
                self.forget_envelope(&place);
            }
        }
        let Some(place) = self.messages.get(id.get()).copied() else { return };
        if place.has_body() && self.sequence(&place) > upto {
            return;
        }
        if place.envelopes() == 0 {
            self.bury_now(id.get(), dead);
        } else if place.has_body() {
            self.drop_live(place.segment, place.space());
            if let Some(place) = self.messages.get_mut(id.get()) {
                place.segment = NO_SEGMENT;
            }
        }
    }

    /// Removes a message whose last envelope ended.
    fn bury(&mut self, message: u32, dead: &mut Vec<DeadLarge>) {
        let over = self.messages.get(message).is_some_and(|place| place.envelopes() == 0);
        if over && !self.replaying {
            self.bury_now(message, dead);
        }
    }

    fn bury_now(&mut self, message: u32, dead: &mut Vec<DeadLarge>) {
        let Some(place) = self.messages.remove(message) else { return };
        if place.has_body() {
            self.drop_live(place.segment, place.space());
        }
        let reference = self.large.remove(&message).map(|(large, _)| large);
        if let Some(id) = MessageId::new(message)
            && place.is_large()
        {
            dead.push(DeadLarge { message: id, reference });
        }
    }

    /// Ends the replay: removes envelopes whose message is not on the disk, and messages without
    /// envelopes.
    pub(super) fn end_replay(&mut self, dead: &mut Vec<DeadLarge>) {
        self.replaying = false;
        let odd: Vec<u32> = self
            .messages
            .iter()
            .filter(|place| !place.has_body() || place.envelopes() == 0)
            .map(|place| place.message)
            .collect();
        for message in odd {
            if let Some(id) = MessageId::new(message) {
                for place in self.envelopes_of(id) {
                    self.forget_envelope(&place);
                }
            }
            self.bury_now(message, dead);
        }
    }
}

impl Segment {
    fn mentions(&self, message: u32) -> bool {
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

// Offsets are below 2^27 and multiples of 8.
fn units(offset: u64) -> u32 {
    u32::try_from(offset / 8).unwrap_or(0)
}
