//! Records: what a segment consists of.
//!
//! A record is a header of 40 bytes, a body, and entries of 24 bytes each followed by a payload;
//! body and payloads are padded to 8 bytes. Header, body and entries have their own CRC-32C, and
//! each entry one more, so that a single envelope can be read and checked alone. Every CRC is
//! seeded with the segment's incarnation: bytes of another segment, or of this file's earlier life,
//! are never taken for a record.
//!
//! All numbers are little-endian. `docs/spool.md` has the format as a table.

use crate::model::id::MessageId;

/// Bytes of a record's header.
pub(super) const HEADER: usize = 40;

/// Bytes of an entry without its payload.
pub(super) const ENTRY: usize = 24;

/// A segment holds fewer records than this: a sequence number is the segment's number and, in the
/// low bits, the record's place in it.
pub(super) const RECORD_BITS: u32 = 21;

/// What a record says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// First of each batch: how far which segment was durable when it was written.
    Batch = 1,
    /// A message: its body, and envelopes that begin.
    Message = 2,
    /// New payloads of envelopes.
    Update = 3,
    /// Envelopes that end.
    Done = 4,
    /// Messages that end, with all that was said of them up to a sequence number.
    MessageDone = 5,
    /// An envelope that ends or has a new payload, and those that begin with that.
    Replace = 6,
    /// Sequence numbers that never counted.
    Cancel = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Batch,
            2 => Self::Message,
            3 => Self::Update,
            4 => Self::Done,
            5 => Self::MessageDone,
            6 => Self::Replace,
            7 => Self::Cancel,
            _ => return None,
        })
    }
}

/// Flag of a message record: the body is a [`LargeRef`].
pub(super) const LARGE: u8 = 1;
/// Flag of a message record: it takes the place of everything said of this message before.
pub(super) const MERGED: u8 = 2;
/// Flag of a message record: it was imported from another spool. Flags 4 (compressed) and 8
/// (encrypted) have their meaning reserved and are refused.
pub(super) const IMPORTED: u8 = 16;

/// A record's header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    pub kind: Kind,
    pub flags: u8,
    pub sequence: u64,
    /// The message, 0 if the record is not about one.
    pub message: u32,
    pub body_length: u32,
    pub entries_length: u32,
    pub body_crc: u32,
    pub entries_crc: u32,
    pub count: u32,
}

/// Rounds up to what records, bodies and payloads are padded to.
pub(super) const fn padded(length: usize) -> usize {
    (length + 7) & !7
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// CRC-32C of `bytes`, begun with `seed`.
pub(super) fn crc(seed: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, bytes)
}

impl Header {
    /// Bytes of the whole record.
    pub(super) fn length(&self) -> usize {
        HEADER + padded(self.body_length as usize) + self.entries_length as usize
    }

    /// Offset of the entries from the record's first byte.
    pub(super) fn entries_at(&self) -> usize {
        HEADER + padded(self.body_length as usize)
    }

    /// The header's bytes with `first` in the place of its CRC.
    pub(super) fn bytes(&self, first: u32) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut at = 0;
        let mut put = |value: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + value.len()) {
                place.copy_from_slice(value);
            }
            at += value.len();
        };
        put(&first.to_le_bytes());
        put(&[self.kind as u8, self.flags, 0, 0]);
        put(&self.sequence.to_le_bytes());
        for number in [
            self.message,
            self.body_length,
            self.entries_length,
            self.body_crc,
            self.entries_crc,
            self.count,
        ] {
            put(&number.to_le_bytes());
        }
        bytes
    }

    /// Reads a header without its CRC; `None` if it is not one or has flags of a later version.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER)?;
        let header = Self {
            kind: Kind::from_byte(*bytes.get(4)?)?,
            flags: *bytes.get(5)?,
            sequence: u64_at(bytes, 8),
            message: u32_at(bytes, 16),
            body_length: u32_at(bytes, 20),
            entries_length: u32_at(bytes, 24),
            body_crc: u32_at(bytes, 28),
            entries_crc: u32_at(bytes, 32),
            count: u32_at(bytes, 36),
        };
        let known = header.flags & !(LARGE | MERGED | IMPORTED) == 0 && u16_at(bytes, 6) == 0;
        let fits = header.entries_length as usize / ENTRY >= header.count as usize;
        (known && fits && header.entries_length.is_multiple_of(8)).then_some(header)
    }

    /// Reads a header and checks its CRC.
    pub(super) fn check(seed: u32, bytes: &[u8]) -> Option<Self> {
        let header = Self::parse(bytes)?;
        (crc(seed, bytes.get(4..HEADER)?) == u32_at(bytes, 0)).then_some(header)
    }

    /// Its message.
    pub(super) fn message_id(&self) -> Option<MessageId> {
        MessageId::new(self.message)
    }
}

/// What an entry does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Act {
    /// An envelope begins; `reference` is 0.
    Begin = 1,
    /// An envelope that began at sequence `reference` has a new payload.
    Update = 2,
    /// An envelope that began at sequence `reference` ends.
    End = 3,
    /// The message `id` ends with everything up to sequence `reference`.
    EndMessage = 4,
    /// The sequence numbers from `id` to `reference` never counted.
    Cancel = 5,
    /// The segment `id` was durable up to offset `reference`.
    Durable = 6,
}

impl Act {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Begin,
            2 => Self::Update,
            3 => Self::End,
            4 => Self::EndMessage,
            5 => Self::Cancel,
            6 => Self::Durable,
            _ => return None,
        })
    }
}

/// One entry, without its payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub act: Act,
    pub held: bool,
    pub id: u64,
    pub reference: u64,
    pub length: u16,
    pub crc: u32,
}

impl Entry {
    /// An entry without a payload; its CRC is filled in when it is written.
    pub(super) fn bare(act: Act, id: u64, reference: u64) -> Self {
        Self { act, held: false, id, reference, length: 0, crc: 0 }
    }

    /// Bytes that it takes with its payload.
    pub(super) fn space(&self) -> usize {
        ENTRY + padded(usize::from(self.length))
    }

    fn head(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        let (id, rest) = bytes.split_at_mut(8);
        let (reference, rest) = rest.split_at_mut(8);
        let (length, rest) = rest.split_at_mut(2);
        let (act, crc) = rest.split_at_mut(2);
        id.copy_from_slice(&self.id.to_le_bytes());
        reference.copy_from_slice(&self.reference.to_le_bytes());
        length.copy_from_slice(&self.length.to_le_bytes());
        act.copy_from_slice(&[self.act as u8, u8::from(self.held)]);
        crc.copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    /// Reads the head of an entry.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..ENTRY)?;
        Some(Self {
            id: u64_at(bytes, 0),
            reference: u64_at(bytes, 8),
            length: u16_at(bytes, 16),
            act: Act::from_byte(*bytes.get(18)?)?,
            held: match *bytes.get(19)? {
                0 => false,
                1 => true,
                _ => return None,
            },
            crc: u32_at(bytes, 20),
        })
    }

    /// Reads an entry with its payload and checks its CRC.
    pub(super) fn check(seed: u32, bytes: &[u8]) -> Option<(Self, &[u8])> {
        let entry = Self::parse(bytes)?;
        let payload = bytes.get(ENTRY..ENTRY + usize::from(entry.length))?;
        let sum = crc(crc(seed, bytes.get(..20)?), payload);
        (sum == entry.crc).then_some((entry, payload))
    }
}

/// Where a large body is; stands in its message's record as the body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct LargeRef {
    /// Second half of the file's name.
    pub sequence: u64,
    /// Length in bytes.
    pub size: u64,
    /// CRC-32C of its bytes, begun with 0.
    pub crc: u32,
}

impl LargeRef {
    /// Bytes of it in the record; the last 32 are the salt of an encrypted body.
    pub(super) const LENGTH: usize = 56;

    pub(super) fn bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        let (sequence, rest) = bytes.split_at_mut(8);
        let (size, rest) = rest.split_at_mut(8);
        sequence.copy_from_slice(&self.sequence.to_le_bytes());
        size.copy_from_slice(&self.size.to_le_bytes());
        if let Some(place) = rest.get_mut(..4) {
            place.copy_from_slice(&self.crc.to_le_bytes());
        }
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == Self::LENGTH).then(|| Self {
            sequence: u64_at(bytes, 0),
            size: u64_at(bytes, 8),
            crc: u32_at(bytes, 16),
        })
    }
}

/// Name in `large/` of a message's body.
pub(super) fn large_name(message: MessageId, sequence: u64) -> String {
    format!("{message}-{sequence:016x}")
}

/// The message and sequence of a name in `large/`.
pub(super) fn parse_large_name(name: &str) -> Option<(MessageId, u64)> {
    let (message, sequence) = name.split_once('-')?;
    let number = (sequence.len() == 16).then(|| u64::from_str_radix(sequence, 16).ok())??;
    Some((message.parse().ok()?, number))
}

/// Appends one record to a buffer: made by [`begin`](Self::begin), completed by
/// [`finish`](Self::finish).
pub(super) struct Writer<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
    seed: u32,
    header: Header,
}

impl<'a> Writer<'a> {
    pub(super) fn begin(
        buffer: &'a mut Vec<u8>,
        seed: u32,
        kind: Kind,
        flags: u8,
        sequence: u64,
        message: Option<MessageId>,
    ) -> Self {
        let start = buffer.len();
        buffer.resize(start + HEADER, 0);
        let header = Header {
            kind,
            flags,
            sequence,
            message: message.map_or(0, MessageId::get),
            body_length: 0,
            entries_length: 0,
            body_crc: crc(seed, &[]),
            entries_crc: 0,
            count: 0,
        };
        Self { buffer, start, seed, header }
    }

    /// Appends the body; before any entry.
    pub(super) fn body(&mut self, body: &[u8]) {
        self.header.body_length = length_u32(body.len());
        self.header.body_crc = crc(self.seed, body);
        self.buffer.extend_from_slice(body);
        pad(self.buffer, self.start);
    }

    /// Appends an entry with its payload (at most 64 KiB; longer ones were refused before).
    pub(super) fn entry(&mut self, mut entry: Entry, payload: &[u8]) {
        entry.length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        let head = entry.head();
        let (covered, _) = head.split_at(20);
        entry.crc = crc(crc(self.seed, covered), payload);
        self.buffer.extend_from_slice(&entry.head());
        self.buffer.extend_from_slice(payload);
        pad(self.buffer, self.start);
        self.header.count += 1;
    }

    /// Completes the record.
    pub(super) fn finish(mut self) -> Header {
        let entries_at = self.start + self.header.entries_at();
        let entries = self.buffer.get(entries_at..).unwrap_or_default();
        self.header.entries_length = length_u32(entries.len());
        self.header.entries_crc = crc(self.seed, entries);
        let bare = self.header.bytes(0);
        let (_, covered) = bare.split_at(4);
        let bytes = self.header.bytes(crc(self.seed, covered));
        if let Some(place) = self.buffer.get_mut(self.start..self.start + HEADER) {
            place.copy_from_slice(&bytes);
        }
        self.header
    }
}

// Lengths are bounded by the segment's 64 MiB.
fn length_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn pad(buffer: &mut Vec<u8>, start: usize) {
    buffer.resize(start + padded(buffer.len() - start), 0);
}

/// Sequence number of record `place` in segment `number`.
pub(super) const fn sequence(number: u64, place: u32) -> u64 {
    (number << RECORD_BITS) | place as u64
}

/// The segment that a sequence number belongs to.
pub(super) const fn segment_of(sequence: u64) -> u64 {
    sequence >> RECORD_BITS
}

/// The place of a sequence number in its segment.
pub(super) const fn place_of(sequence: u64) -> u32 {
    (sequence & ((1 << RECORD_BITS) - 1)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seed: u32) -> Vec<u8> {
        let mut buffer = vec![0; 8];
        let message = MessageId::new(7);
        let mut record = Writer::begin(&mut buffer, seed, Kind::Message, 0, 99, message);
        record.body(b"Subject: x\n\nbody\n");
        record.entry(Entry::bare(Act::Begin, 0x7_0000_0001, 0), b"first");
        record.entry(Entry::bare(Act::Begin, 0x7_0000_0002, 0), b"");
        record.finish();
        buffer.split_off(8)
    }

    #[test]
    fn a_record_reads_back_as_written() {
        let bytes = sample(5);
        let header = Header::check(5, &bytes).unwrap();
        assert_eq!(header.length(), bytes.len());
        assert_eq!((header.count, header.message, header.sequence), (2, 7, 99));
        assert_eq!(header.body_crc, crc(5, &bytes[HEADER..HEADER + 17]));
        let entries = &bytes[header.entries_at()..];
        assert_eq!(header.entries_crc, crc(5, entries));
        let (first, payload) = Entry::check(5, entries).unwrap();
        assert_eq!((first.id, payload), (0x7_0000_0001, &b"first"[..]));
        let (second, payload) = Entry::check(5, &entries[first.space()..]).unwrap();
        assert_eq!((second.id, payload), (0x7_0000_0002, &b""[..]));
    }

    #[test]
    fn every_flipped_bit_of_header_and_entries_is_noticed() {
        let bytes = sample(5);
        let entries_at = Header::check(5, &bytes).unwrap().entries_at();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if bit / 8 < HEADER {
                assert!(Header::check(5, &changed).is_none(), "bit {bit}");
                continue;
            }
            let header = Header::check(5, &changed).unwrap();
            let body = &changed[HEADER..HEADER + header.body_length as usize];
            let padding = (HEADER + body.len()..entries_at).contains(&(bit / 8));
            let good = crc(5, body) == header.body_crc
                && crc(5, &changed[entries_at..]) == header.entries_crc;
            assert_eq!(good, padding, "bit {bit}");
        }
    }

    #[test]
    fn a_record_of_another_incarnation_is_none() {
        assert!(Header::check(6, &sample(5)).is_none());
    }

    #[test]
    fn reserved_flags_are_not_read_as_plain() {
        for flag in [4, 8, 32, 64, 128] {
            let mut header = Header::check(5, &sample(5)).unwrap();
            header.flags |= flag;
            assert_eq!(Header::parse(&header.bytes(0)), None, "{flag}");
        }
    }

    #[test]
    fn names_of_large_bodies_read_back() {
        let message = MessageId::new(0xab).unwrap();
        let name = large_name(message, 0x12);
        assert_eq!(name, "000000ab-0000000000000012");
        assert_eq!(parse_large_name(&name), Some((message, 0x12)));
        for bad in ["", "000000ab", "000000ab-12", "00000000-0000000000000012"] {
            assert_eq!(parse_large_name(bad), None, "{bad:?}");
        }
    }
}
