//! Start: from the files of a spool to the state of a log.
//!
//! Segments are read in the order of their numbers, from their index where they have one, else
//! record by record. Nothing is appended to them: the log goes on in a new segment. What cannot be
//! read is judged by where it stands: below an offset that was said to be durable it is damage, is
//! copied to `corrupt/` and reported; above, it is a batch that was being written when the process
//! or the system ended.
//!
//! After a process ended without the system (`kill -9`), bytes may be readable that are not durable,
//! and a sync that failed before can make a later one succeed without covering them. So records
//! above the offset that is known to be durable are written again, into the new segment, before
//! any segment is freed on their word.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use platform::dir::Access;

use super::clean::Rewrite;
use super::disk::{Disk, Folder, read_exactly};
use super::engine::{Log, Options, lock};
use super::keeper::{Job, NEW, RESERVE, SPARE, quarantine};
use super::place::SegmentSlot;
use super::record::{
    Act, HEADER, Header, Kind, LARGE, LargeRef, large_name, parse_large_name, segment_of, sequence,
};
use super::segment::{
    Contents, HeaderError, Identity, Record, SegmentFile, Skeleton, segment_name,
};
use super::state::{DeadLarge, State};
use crate::model::id::MessageId;
use crate::queue::store::{Event, StoreError};

/// Bytes of damaged log that are put aside at most, for one place.
const KEPT_DAMAGE: u64 = 8 << 20;

/// A segment being recovered.
struct Found {
    file: SegmentFile,
    contents: Contents,
    /// Whether it has an index: then all of it was durable.
    sealed: bool,
}

/// Tries again once: a single failed read must not put mail aside.
fn twice<T, E>(mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    attempt().or_else(|_| attempt())
}

impl Log {
    /// Reads a spool.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] for a spool of another version, of which nothing is touched;
    /// [`StoreError::Io`] if the folders cannot be listed or synced.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        entropy: Box<dyn FnMut() -> u128 + Send>,
        state: Arc<Mutex<State>>,
    ) -> Result<Self, StoreError> {
        let mut log = Self::empty(disk, options, entropy, state);
        let names = twice(|| log.disk.names(Folder::Log))?;
        let files = log.segment_files(&names)?;
        // From here on the spool is ours to change. Names that a killed process left unsynced must
        // not come or go later.
        twice(|| log.disk.sync_folder(Folder::Log))?;
        log.stock(&names);
        let found = log.read_segments(files);
        let damaged = !log.events.is_empty();
        let damaged = log.replay(found) || damaged;
        log.large_bodies(damaged)?;
        let (envelopes, messages) = lock(&log.state).counts();
        log.events.push(Event::Recovered { envelopes, messages });
        log.jobs.push(Job::Space);
        log.maintain();
        Ok(log)
    }

    /// Opens every segment, oldest first. Damaged headers are put aside once it is known that no
    /// file is of another version.
    fn segment_files(&mut self, names: &[String]) -> Result<Vec<SegmentFile>, StoreError> {
        let mut files = BTreeMap::new();
        let mut damaged = Vec::new();
        for name in names.iter().filter(|name| name.ends_with(".seg")) {
            let opened = twice(|| {
                let file = self.disk.open(Folder::Log, name, Access::Write)?;
                let identity = Identity::read(&*file)?;
                Ok(SegmentFile { identity, file })
            });
            match opened {
                Ok(file) if name == &segment_name(file.identity.number) => {
                    self.last_number = self.last_number.max(file.identity.number);
                    files.insert(file.identity.number, file);
                }
                Ok(file) => damaged.push((name, HeaderError::Name(file.identity.number))),
                Err(error @ (HeaderError::Version(_) | HeaderError::Flags)) => {
                    return Err(StoreError::Unsupported(format!("{name}: {error}")));
                }
                Err(error) => damaged.push((name, error)),
            }
        }
        for (name, error) in damaged {
            let number = name.strip_suffix(".seg").and_then(|n| u64::from_str_radix(n, 16).ok());
            self.last_number = self.last_number.max(number.unwrap_or(0));
            self.disk.rename((Folder::Log, name), (Folder::Corrupt, name))?;
            let reason = error.to_string();
            let _ = quarantine(&*self.disk, name, &[], &reason);
            self.events.push(Event::Quarantined { id: name.clone(), reason });
        }
        Ok(files.into_values().collect())
    }

    /// Looks for reserve, spare and leftovers.
    fn stock(&mut self, names: &[String]) {
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        let length = |name| {
            let file = self.disk.open(Folder::Log, name, Access::Read)?;
            file.length()
        };
        let smallest = self.options.smallest_segment;
        let usable = |name| has(name) && length(name).is_ok_and(|length| length >= smallest);
        self.reserve = usable(RESERVE);
        self.spare = if usable(SPARE) { length(SPARE).ok() } else { None };
        for (name, kept) in [(NEW, false), (RESERVE, self.reserve), (SPARE, self.spare.is_some())] {
            if has(name) && !kept {
                // Made again under the same name if it stays.
                let _ = self.disk.unlink(Folder::Log, name);
            }
        }
    }

    fn read_segments(&mut self, files: Vec<SegmentFile>) -> Vec<Found> {
        let mut all = Vec::new();
        for file in files {
            let read = twice(|| {
                if let Some(contents) = super::segment::read_sealed(&*file.file, &file.identity)? {
                    return Ok((contents, true));
                }
                super::segment::scan(&*file.file, &file.identity).map(|contents| (contents, false))
            });
            match read {
                Ok((contents, sealed)) => all.push(Found { file, contents, sealed }),
                Err::<_, io::Error>(error) => {
                    let name = segment_name(file.identity.number);
                    let moved =
                        self.disk.rename((Folder::Log, &name), (Folder::Corrupt, &name)).is_ok();
                    let reason = format!("cannot be read: {error}");
                    if moved {
                        let _ = quarantine(&*self.disk, &name, &[], &reason);
                    }
                    self.events.push(Event::Quarantined { id: name, reason });
                }
            }
        }
        all
    }

    /// Builds the state; whether something was damaged.
    fn replay(&mut self, found: Vec<Found>) -> bool {
        let (cancels, durable) = claims(&found);
        let mut dead = Vec::new();
        let mut damaged = false;
        for Found { file, contents, sealed } in found {
            let number = file.identity.number;
            let named = durable.get(&number).copied().unwrap_or(0).max(contents.durable);
            let void_from = cancels.get(&number).copied().unwrap_or(u64::MAX);
            if !sealed {
                damaged |= self.judge(&file, &contents, named, void_from);
            }
            let slot = lock(&self.state).add_segment(file.clone());
            let Some(slot) = slot else {
                let reason = "too many segments".to_owned();
                self.events.push(Event::Quarantined { id: segment_name(number), reason });
                continue;
            };
            let counting =
                contents.skeleton.from(0).filter(|record| record.header.sequence < void_from);
            for record in counting {
                self.take_in(slot, &file, &record, &mut dead);
            }
            let mut state = lock(&self.state);
            if let Some(segment) = state.segment_mut(slot) {
                segment.void_from = void_from;
                segment.suspect = !sealed;
            }
            state.close_segment(slot);
            drop(state);
            if !sealed {
                self.doubt(slot, contents.skeleton, named, void_from);
            }
        }
        self.orphans(&mut dead) || damaged
    }

    fn take_in(
        &mut self,
        slot: SegmentSlot,
        file: &SegmentFile,
        record: &Record<'_>,
        dead: &mut Vec<DeadLarge>,
    ) {
        let large = (record.header.flags & LARGE != 0).then(|| large_ref(file, record)).flatten();
        lock(&self.state).apply(slot, record, large, dead);
    }

    /// Reports what is not a record: damage below `durable`, a torn batch above.
    fn judge(
        &mut self,
        file: &SegmentFile,
        contents: &Contents,
        durable: u64,
        void_from: u64,
    ) -> bool {
        let number = file.identity.number;
        let mut damaged = false;
        let mut torn = void_from != u64::MAX;
        for gap in &contents.gaps {
            if gap.start >= durable {
                if gap.written && !torn {
                    torn = true;
                    self.events.push(Event::Torn { segment: number, offset: gap.start });
                }
                continue;
            }
            damaged = true;
            let id = match MessageId::new(gap.message) {
                Some(message) => message.to_string(),
                None => format!("{number:016x}-{:08x}", gap.start),
            };
            let length = (gap.end.min(durable) - gap.start).min(KEPT_DAMAGE);
            let bytes = read_exactly(&*file.file, gap.start, length as usize).unwrap_or_default();
            let reason = format!("segment {number:x}, byte {}: {}", gap.start, gap.reason);
            // The bytes stay in the segment if there is no room for a copy.
            let _ = quarantine(&*self.disk, &id, &bytes, &reason);
            self.events.push(Event::Quarantined { id, reason });
        }
        damaged
    }

    /// Has the records above `durable` written again.
    fn doubt(&mut self, slot: SegmentSlot, skeleton: Skeleton, durable: u64, void_from: u64) {
        let position = skeleton.position_at(durable);
        let Some(first) = skeleton.from(position).next() else { return };
        let from = first.header.sequence;
        if from < void_from {
            let cancels = Some((from, sequence(segment_of(from) + 1, 0) - 1));
            self.rewrites.push(Rewrite { slot, skeleton, position, cancels });
        }
    }

    /// Puts aside envelopes without a message, and forgets messages without envelopes.
    fn orphans(&mut self, dead: &mut Vec<DeadLarge>) -> bool {
        let lost: Vec<_> = {
            let state = lock(&self.state);
            let odd = |id| state.message(id).is_none_or(|place| !place.has_body());
            let ids = state.all_envelopes().filter_map(super::place::EnvelopePlace::id);
            ids.filter(|id| odd(id.message())).collect()
        };
        let damaged = !lost.is_empty();
        for id in lost {
            let payload = self.payload(id).unwrap_or_default();
            let reason = "its message is missing".to_owned();
            let _ = quarantine(&*self.disk, &id.to_string(), &payload, &reason);
            self.events.push(Event::Quarantined { id: id.to_string(), reason });
        }
        lock(&self.state).end_replay(dead);
        damaged
    }

    /// Compares `large/` with what messages refer to. Files that nobody refers to are leftovers of
    /// sessions that ended; after damage they may be somebody's mail and stay.
    fn large_bodies(&mut self, damaged: bool) -> Result<(), StoreError> {
        let names: BTreeSet<String> =
            twice(|| self.disk.names(Folder::Large))?.into_iter().collect();
        let mut state = lock(&self.state);
        let mut wanted = BTreeSet::new();
        for place in state.all_messages().filter(|place| place.is_large()) {
            let Some(id) = place.id() else { continue };
            let name = state.large(id).map(|(large, _)| large_name(id, large.sequence));
            match name.filter(|name| names.contains(name)) {
                Some(name) => {
                    wanted.insert(name);
                }
                None => {
                    let reason = "its body in large/ is missing".to_owned();
                    self.events.push(Event::Quarantined { id: id.to_string(), reason });
                }
            }
        }
        for name in names.difference(&wanted) {
            let message = parse_large_name(name).map(|(message, _)| message);
            state.left.extend(message.map(MessageId::get));
            if !damaged {
                // Not at once: the end of their message may turn out not to be durable.
                self.leftovers.push(name.clone());
            }
        }
        Ok(())
    }
}

/// What the records say of segments: from where on one does not count, and how far one was durable.
fn claims(found: &[Found]) -> (BTreeMap<u64, u64>, BTreeMap<u64, u64>) {
    let mut cancels: BTreeMap<u64, u64> = BTreeMap::new();
    let mut durable: BTreeMap<u64, u64> = BTreeMap::new();
    // A cancellation speaks of an earlier segment and may be cancelled by a later one.
    for found in found.iter().rev() {
        let void_from = cancels.get(&found.file.identity.number).copied().unwrap_or(u64::MAX);
        for record in found.contents.skeleton.from(0) {
            let counts = record.header.sequence < void_from;
            if !matches!(record.header.kind, Kind::Batch | Kind::Cancel) {
                continue;
            }
            for (entry, _) in record.entries() {
                match entry.act {
                    Act::Cancel if counts => {
                        let from = cancels.entry(segment_of(entry.id)).or_insert(entry.id);
                        *from = (*from).min(entry.id);
                    }
                    // True even if the batch that says it failed.
                    Act::Durable => {
                        let upto = durable.entry(entry.id).or_default();
                        *upto = (*upto).max(entry.reference);
                    }
                    _ => {}
                }
            }
        }
    }
    (cancels, durable)
}

/// Where the large body of a message record is.
fn large_ref(file: &SegmentFile, record: &Record<'_>) -> Option<LargeRef> {
    let length = HEADER + LargeRef::LENGTH;
    let bytes = twice(|| read_exactly(&*file.file, record.offset, length)).ok()?;
    let header = Header::check(file.identity.seed(), &bytes)?;
    let body = bytes.get(HEADER..HEADER + header.body_length as usize)?;
    let good = super::record::crc(file.identity.seed(), body) == header.body_crc;
    LargeRef::parse(body).filter(|_| good)
}
