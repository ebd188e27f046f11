//! Where live envelopes and messages are: the values that the index is made of.
//!
//! There is one of each for every message that waits, so they are packed: a segment is named by its
//! slot, offsets count 8 bytes, and flags stand in bits that offsets leave free.

use super::record::{ENTRY, HEADER, padded};
use super::table::{Slot, mix};
use crate::model::id::{EnvelopeId, MessageId};

/// Place of a segment in [`State`](super::state::State); the index has no room for its whole number.
pub(super) type SegmentSlot = u16;

/// In the place of a segment whose record is not known.
pub(super) const NO_SEGMENT: SegmentSlot = SegmentSlot::MAX;

/// Where a live envelope is. 24 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct EnvelopePlace {
    pub message: u32,
    pub low: u32,
    /// Offset of its newest entry in units of 8 bytes; top bit: held.
    pub offset: u32,
    /// Place of the record in which it began.
    pub began_place: u32,
    pub segment: SegmentSlot,
    pub began_segment: SegmentSlot,
    pub length: u16,
}

/// Top bit of an offset: held, or a large body.
pub(super) const HELD: u32 = 1 << 31;

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

    /// What its newest payload weighs in [`Segment::live`](super::state::Segment::live).
    pub(super) fn payload_weight(&self) -> u64 {
        PAYLOAD_WEIGHT + padded(usize::from(self.length)) as u64
    }
}

// An envelope's entry of 24 bytes weighs in two places: where it began, which must stay on the disk
// for updates to mean something, and where its newest payload is.
pub(super) const BEGAN_WEIGHT: u64 = 16;
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
    pub message: u32,
    /// Offset of its record in units of 8 bytes; top bit: the body is a file in `large/`.
    pub offset: u32,
    pub place: u32,
    /// Length of the body in the record in the low 18 bits; above, envelopes modulo 2^14.
    pub body: u32,
    pub segment: SegmentSlot,
    /// Envelopes that live, divided by 2^14.
    pub envelopes_high: u16,
}

/// Bits of [`MessagePlace::body`] that hold the length.
pub(super) const BODY_BITS: u32 = 18;

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

    pub(super) fn set_envelopes(&mut self, count: u32) {
        self.envelopes_high = (count >> 14) as u16;
        self.body = self.body_length() | ((count & 0x3fff) << BODY_BITS);
    }

    /// Whether its record is known; else only envelopes that name it are.
    pub(super) fn has_body(&self) -> bool {
        self.segment != NO_SEGMENT
    }

    /// What its record weighs without entries.
    pub(super) fn space(&self) -> u64 {
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

/// An offset in units of 8 bytes: offsets are below 2²⁷ and multiples of 8.
pub(super) fn units(offset: u64) -> u32 {
    u32::try_from(offset / 8).unwrap_or(0)
}
