//! Segments: files of the log, each with a header block, a seal block, records, and once sealed an
//! index.
//!
//! A segment is written under another name, synced, and renamed to `NUMBER.seg` before anything
//! uses it. Its number orders it; the name is for people. The index ("skeleton") repeats header and
//! entry heads of each record without body and payloads: recovery and compaction read it instead
//! of the records. The seal names it and is written after the segment's last record was durable.

use std::io;
use std::sync::Arc;

use super::disk::{DiskFile, read_exactly};
use super::record::{ENTRY, Entry, HEADER, Header, Kind, crc, padded, u32_at, u64_at};

/// Bytes before the first record: the header block and the seal block.
pub(super) const RECORDS_AT: u64 = 8192;
const SEAL_AT: u64 = 4096;
const MAGIC: &[u8; 8] = b"PBXSPOOL";
const SEAL_MAGIC: &[u8; 8] = b"PBXSEALD";
const VERSION: u32 = 1;
// magic 8, version 4, flags 4, number 8, size 8, incarnation 16, salt 32
const HEADER_COVERED: usize = 80;
// magic 8, incarnation 16, end 8, index offset 8, index length 8, index CRC 4
const SEAL_COVERED: usize = 52;

/// Who a segment is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Identity {
    /// Its place in the order of segments; high bits of its records' sequence numbers.
    pub number: u64,
    /// Random; seeds every CRC.
    pub incarnation: u128,
    /// Bytes set aside for it.
    pub size: u64,
}

/// Why a file is not a segment that this version reads.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("segment header is damaged")]
    Damaged,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("segment has version {0}, this program reads version {VERSION}")]
    Version(u32),
    #[error("segment has the name of another, its number is {0:x}")]
    Name(u64),
    #[error("segment is encrypted or compressed, which this program does not read")]
    Flags,
}

impl Identity {
    /// What the CRCs of this segment begin with.
    pub(super) fn seed(&self) -> u32 {
        crc(0, &self.incarnation.to_le_bytes())
    }

    /// Both blocks before the first record, without a seal.
    pub(super) fn blocks(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(RECORDS_AT as usize);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&0_u32.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.size.to_le_bytes());
        bytes.extend_from_slice(&self.incarnation.to_le_bytes());
        bytes.extend_from_slice(&[0; 32]);
        bytes.extend_from_slice(&crc(0, &bytes).to_le_bytes());
        bytes.resize(RECORDS_AT as usize, 0);
        bytes
    }

    /// Reads a file's header block.
    pub(super) fn read(file: &dyn DiskFile) -> Result<Self, HeaderError> {
        let mut block = [0; HEADER_COVERED + 4];
        if file.read_at(&mut block, 0)? != block.len() {
            return Err(HeaderError::Damaged);
        }
        let (covered, sum) = block.split_at(HEADER_COVERED);
        if !covered.starts_with(MAGIC) || crc(0, covered) != u32_at(sum, 0) {
            return Err(HeaderError::Damaged);
        }
        match u32_at(covered, 8) {
            VERSION => {}
            other => return Err(HeaderError::Version(other)),
        }
        if u32_at(covered, 12) != 0 {
            return Err(HeaderError::Flags);
        }
        let incarnation = u128::from(u64_at(covered, 32)) | (u128::from(u64_at(covered, 40)) << 64);
        Ok(Self { number: u64_at(covered, 16), size: u64_at(covered, 24), incarnation })
    }
}

/// Name of a segment's file.
pub(super) fn segment_name(number: u64) -> String {
    format!("{number:016x}.seg")
}

/// What recovery and compaction know of a segment's records.
pub(super) struct Contents {
    /// Header and entry heads of each record, see [`Skeleton`].
    pub skeleton: Skeleton,
    /// Offset after the last record.
    pub end: u64,
    /// Stretches that are not records, in order.
    pub gaps: Vec<Gap>,
    /// Highest durable offset that a record of this segment names of it.
    pub durable: u64,
}

/// A stretch of a segment that should hold records and does not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Gap {
    pub start: u64,
    /// Start of the next record, or the file's end.
    pub end: u64,
    /// The message of the record that stood here, where its header still tells.
    pub message: u32,
    /// Whether a record follows or its header is whole: then something was written here.
    pub written: bool,
    pub reason: &'static str,
}

/// Headers and entry heads of records, one after the other: the record's offset in the place of
/// the header's CRC (so that no copy of a header can pass for a record), then the heads.
#[derive(Clone, Debug, Default)]
pub(super) struct Skeleton {
    bytes: Vec<u8>,
}

impl Skeleton {
    /// Adds the record that `bytes` begins with, at `offset` of its segment.
    pub(super) fn push(&mut self, header: &Header, offset: u64, bytes: &[u8]) {
        self.bytes.extend_from_slice(&header.bytes(u32::try_from(offset).unwrap_or(u32::MAX)));
        let mut at = header.entries_at();
        for _ in 0..header.count {
            let Some(entry) = bytes.get(at..).and_then(Entry::parse) else { break };
            self.bytes.extend_from_slice(bytes.get(at..at + ENTRY).unwrap_or_default());
            at += entry.space();
        }
    }

    /// Length in bytes: what [`truncate`](Self::truncate) and [`from`](Self::from) take.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets everything after `length`.
    pub(super) fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
    }

    /// The position of the first record at `offset` of the segment or after it.
    pub(super) fn position_at(&self, offset: u64) -> usize {
        let before = self.from(0).take_while(|record| record.offset < offset).last();
        before.map_or(0, |record| record.next)
    }

    /// The records from `position` on; the position after each is in [`Record::next`].
    pub(super) fn from(&self, position: usize) -> Records<'_> {
        Records { bytes: &self.bytes, position }
    }
}

/// One record of a [`Skeleton`].
pub(super) struct Record<'a> {
    pub header: Header,
    /// Offset in the segment.
    pub offset: u64,
    heads: &'a [u8],
    /// Position of the record that follows.
    pub next: usize,
}

impl<'a> Record<'a> {
    /// The entries, each with its offset in the segment.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Entry, u64)> + use<'a> {
        let mut offset = self.offset + self.header.entries_at() as u64;
        self.heads.chunks_exact(ENTRY).map_while(move |head| {
            let entry = Entry::parse(head)?;
            let here = offset;
            offset += entry.space() as u64;
            Some((entry, here))
        })
    }
}

/// Iterates over a [`Skeleton`].
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let head = self.bytes.get(self.position..self.position + HEADER)?;
        let header = Header::parse(head)?;
        let from = self.position + HEADER;
        let next = from + ENTRY * header.count as usize;
        let heads = self.bytes.get(from..next)?;
        self.position = next;
        Some(Record { header, offset: u64::from(u32_at(head, 0)), heads, next })
    }
}

/// Writes index and seal of a segment whose records up to `end` are durable, and syncs.
pub(super) fn seal(
    file: &dyn DiskFile,
    identity: &Identity,
    end: u64,
    skeleton: &Skeleton,
) -> io::Result<()> {
    file.write_at(&skeleton.bytes, end)?;
    let mut block = Vec::with_capacity(64);
    block.extend_from_slice(SEAL_MAGIC);
    block.extend_from_slice(&identity.incarnation.to_le_bytes());
    block.extend_from_slice(&end.to_le_bytes());
    block.extend_from_slice(&end.to_le_bytes());
    block.extend_from_slice(&(skeleton.bytes.len() as u64).to_le_bytes());
    block.extend_from_slice(&crc(identity.seed(), &skeleton.bytes).to_le_bytes());
    block.extend_from_slice(&crc(identity.seed(), &block).to_le_bytes());
    file.write_at(&block, SEAL_AT)?;
    file.sync()
}

/// The contents as the index tells; `None` if the segment is not sealed or its index is damaged.
pub(super) fn read_sealed(
    file: &dyn DiskFile,
    identity: &Identity,
) -> io::Result<Option<Contents>> {
    let mut block = [0; SEAL_COVERED + 4];
    if file.read_at(&mut block, SEAL_AT)? != block.len() {
        return Ok(None);
    }
    let (covered, sum) = block.split_at(SEAL_COVERED);
    let ours = covered.starts_with(SEAL_MAGIC)
        && covered.get(8..24) == Some(&identity.incarnation.to_le_bytes());
    if !ours || crc(identity.seed(), covered) != u32_at(sum, 0) {
        return Ok(None);
    }
    let (end, index_at, length) = (u64_at(covered, 24), u64_at(covered, 32), u64_at(covered, 40));
    let whole =
        index_at.checked_add(length).is_some_and(|end| file.length().is_ok_and(|l| end <= l));
    let Some(length) = usize::try_from(length).ok().filter(|_| whole) else { return Ok(None) };
    let bytes = read_exactly(file, index_at, length)?;
    if crc(identity.seed(), &bytes) != u32_at(covered, 48) {
        return Ok(None);
    }
    Ok(Some(Contents { skeleton: Skeleton { bytes }, end, gaps: Vec::new(), durable: end }))
}

/// Finds the records of a segment that has no index, past damage to the next valid record.
pub(super) fn scan(file: &dyn DiskFile, identity: &Identity) -> io::Result<Contents> {
    let length = usize::try_from(file.length()?).unwrap_or(usize::MAX);
    let bytes = {
        let mut buffer = vec![0; length];
        let read = file.read_at(&mut buffer, 0)?;
        buffer.truncate(read);
        buffer
    };
    let seed = identity.seed();
    let first = RECORDS_AT as usize;
    let mut contents = Contents {
        skeleton: Skeleton::default(),
        end: RECORDS_AT,
        gaps: Vec::new(),
        durable: RECORDS_AT,
    };
    let mut at = first;
    let mut gap: Option<Gap> = None;
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= HEADER) {
        let found = header_here(identity, seed, rest);
        let reason = match &found {
            Some(header) => sections(seed, header, rest).err(),
            None => Some("no record where one should be"),
        };
        // A header, whole or not, ends the gap before it.
        if found.is_some()
            && let Some(gap) = gap.take()
        {
            contents.gaps.push(Gap { end: at as u64, written: true, ..gap });
        }
        match (found, reason) {
            (Some(header), None) => {
                contents.durable = contents.durable.max(named_durable(identity, &header, rest));
                contents.skeleton.push(&header, at as u64, rest);
                at += header.length();
                contents.end = at as u64;
            }
            (header, reason) => {
                gap.get_or_insert(Gap {
                    start: at as u64,
                    end: bytes.len() as u64,
                    message: header.map_or(0, |header| header.message),
                    written: header.is_some(),
                    reason: reason.unwrap_or_default(),
                });
                at += 8;
            }
        }
    }
    contents.gaps.extend(gap);
    Ok(contents)
}

/// How much of this segment a batch record says was durable before it.
fn named_durable(identity: &Identity, header: &Header, bytes: &[u8]) -> u64 {
    let first = bytes.get(header.entries_at()..).and_then(Entry::parse);
    match first {
        Some(entry) if header.kind == Kind::Batch && entry.id == identity.number => entry.reference,
        _ => 0,
    }
}

fn header_here(identity: &Identity, seed: u32, bytes: &[u8]) -> Option<Header> {
    // Most places fail here, without a CRC: the number stands in the sequence's high bits.
    if super::record::segment_of(u64_at(bytes, 8)) != identity.number {
        return None;
    }
    Header::check(seed, bytes)
}

fn sections(seed: u32, header: &Header, bytes: &[u8]) -> Result<(), &'static str> {
    let body = bytes.get(HEADER..HEADER + header.body_length as usize);
    let entries = bytes.get(header.entries_at()..header.length());
    let (Some(body), Some(entries)) = (body, entries) else {
        return Err("record is cut off");
    };
    if crc(seed, entries) != header.entries_crc {
        return Err("checksum of envelopes is wrong");
    }
    if crc(seed, body) != header.body_crc {
        return Err("checksum of body is wrong");
    }
    Ok(())
}

/// A segment's file and who it is.
#[derive(Clone)]
pub(super) struct SegmentFile {
    pub identity: Identity,
    pub file: Arc<dyn DiskFile>,
}

impl SegmentFile {
    /// Reads and checks the entry at `offset`, of which `length` payload bytes are expected.
    pub(super) fn entry(&self, offset: u64, length: u16) -> io::Result<Option<(Entry, Vec<u8>)>> {
        let space = ENTRY + usize::from(length);
        let bytes = read_exactly(&*self.file, offset, space)?;
        Ok(Entry::check(self.identity.seed(), &bytes)
            .map(|(entry, payload)| (entry, payload.to_vec())))
    }

    /// Reads and checks the body of the record at `offset`.
    pub(super) fn body(&self, offset: u64, length: u32) -> io::Result<Option<(Header, Vec<u8>)>> {
        let mut bytes = read_exactly(&*self.file, offset, HEADER + length as usize)?;
        let seed = self.identity.seed();
        let Some(header) = Header::check(seed, &bytes) else { return Ok(None) };
        bytes.drain(..HEADER);
        let good = header.body_length == length && crc(seed, &bytes) == header.body_crc;
        Ok(good.then_some((header, bytes)))
    }

    /// All its records: from its index, or by looking at every byte.
    pub(super) fn contents(&self) -> io::Result<Contents> {
        match read_sealed(&*self.file, &self.identity)? {
            Some(contents) => Ok(contents),
            None => scan(&*self.file, &self.identity),
        }
    }
}

/// Bytes that a record with this body and these payloads takes.
pub(super) fn record_space(body: usize, payloads: impl Iterator<Item = usize>) -> usize {
    HEADER + padded(body) + payloads.map(|length| ENTRY + padded(length)).sum::<usize>()
}
