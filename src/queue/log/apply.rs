//! What a record does to the state.
//!
//! For records just made durable and for those found by recovery alike, so the two cannot disagree.

use super::place::{
    BEGAN_WEIGHT, BODY_BITS, EnvelopePlace, HELD, MessagePlace, NO_SEGMENT, SegmentSlot, units,
};
use super::record::{Act, Entry, Kind, LARGE, LargeRef, MERGED, place_of, segment_of};
use super::segment::Record;
use super::state::{DeadLarge, State};
use super::table::Slot;
use crate::model::id::{EnvelopeId, MessageId};

impl State {
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
