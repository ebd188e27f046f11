//! The entries of the run queue, in chunks that never move.
//!
//! Chunks bound the memory to what is used: a vector that doubles would hold up to twice that. An
//! entry is in at most one [`super::list::List`] at a time, so its one link serves them all.

use std::ops::{Index, IndexMut};

use crate::model::EnvelopeId;

use super::clock::Seconds;
use super::list::{Link, Linked, NONE, Slot};
use super::work::{Block, Kind};

/// Entries in one chunk.
const CHUNK: usize = 1024;

/// Where an entry is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// In the list of those whose time is over.
    Expiring,
    /// Ready, and new or asked for: first.
    Fresh,
    /// In a hold queue.
    Held,
    /// Released; no list has it.
    InFlight,
    /// Ready, and tried before or overdue: at a bounded rate.
    Late,
    /// Blocked; no list has it.
    Parked,
    /// Waits for its timer.
    Pending,
    /// In the list of those that an administrator removed.
    Removing,
}

/// What the scheduler knows of one envelope.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: EnvelopeId,
    pub(super) created: Seconds,
    /// The next try.
    pub(super) due: Seconds,
    /// Pending and ready: the key of its timer. In flight: since when.
    pub(super) mark: Seconds,
    /// Threshold of the last delay warning, from `created`; negative for none.
    pub(super) warned: i64,
    /// The hold queue, while held.
    pub(super) hold: u64,
    /// Lifetime in seconds.
    pub(super) ttl: u32,
    pub(super) destination: u32,
    link: Link,
    pub(super) retries: u16,
    pub(super) kind: Kind,
    pub(super) place: Place,
    pub(super) flags: Flags,
}

impl Entry {
    /// An entry that is in no list yet.
    pub(super) fn new(id: EnvelopeId, kind: Kind, created: Seconds) -> Self {
        Self {
            id,
            created,
            due: created,
            mark: 0,
            warned: -1,
            hold: 0,
            ttl: 0,
            destination: 0,
            link: Link::FREE,
            retries: 0,
            kind,
            place: Place::Parked,
            flags: Flags::default(),
        }
    }

    /// When its lifetime ends.
    pub(super) fn expiry(&self) -> Seconds {
        self.created.saturating_add(i64::from(self.ttl))
    }
}

/// Marks of an entry, as a set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Flags(u8);

impl Flags {
    /// An administrator paused it.
    const ADMINISTRATOR: u8 = 1;
    /// Its action is missing.
    const NO_ACTION: u8 = 2;
    /// It was in flight in crashes.
    const SUSPECT: u8 = 4;
    /// It is removed as soon as it is no longer in flight.
    pub(super) const REMOVED: u8 = 8;
    /// What is in flight is its end, not a delivery.
    pub(super) const ENDING: u8 = 16;
    /// It has a timer.
    pub(super) const TIMED: u8 = 32;
    /// Its action is of another kind.
    const OTHER_ACTION: u8 = 64;
    /// The configuration cannot deliver it.
    pub(super) const UNFIT: u8 = Self::NO_ACTION | Self::OTHER_ACTION;

    pub(super) fn of(block: Block) -> u8 {
        match block {
            Block::Administrator => Self::ADMINISTRATOR,
            Block::NoAction => Self::NO_ACTION,
            Block::OtherAction => Self::OTHER_ACTION,
            Block::Suspect => Self::SUSPECT,
        }
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    pub(super) fn set(&mut self, flag: u8) {
        self.0 |= flag;
    }

    pub(super) fn clear(&mut self, flag: u8) {
        self.0 &= !flag;
    }

    pub(super) fn blocked(self) -> bool {
        self.has(Self::ADMINISTRATOR | Self::UNFIT | Self::SUSPECT)
    }
}

/// All entries. Indexing with the slot of an entry that is gone is a defect of the caller.
#[derive(Debug)]
pub(super) struct Entries {
    chunks: Vec<Vec<Entry>>,
    /// Slots that can be used again, linked by their `next`.
    free: Slot,
    used: usize,
}

impl Entries {
    pub(super) fn new() -> Self {
        Self { chunks: Vec::new(), free: NONE, used: 0 }
    }

    /// Keeps `entry`; `None` if there are 2³² already.
    pub(super) fn add(&mut self, entry: Entry) -> Option<Slot> {
        if self.free != NONE {
            let slot = self.free;
            self.free = self[slot].link.next;
            self[slot] = entry;
            self.used += 1;
            return Some(slot);
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let full = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut()?;
        let slot = u32::try_from(full + chunk.len()).ok().filter(|slot| *slot != NONE)?;
        chunk.push(entry);
        self.used += 1;
        Some(slot)
    }

    /// Lets go of an entry that is in no list.
    pub(super) fn free(&mut self, slot: Slot) {
        self.used -= 1;
        if self.used == 0 {
            self.chunks = Vec::new();
            self.free = NONE;
            return;
        }
        self[slot].link.next = self.free;
        self.free = slot;
    }
}

impl Index<Slot> for Entries {
    type Output = Entry;

    fn index(&self, slot: Slot) -> &Entry {
        &self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }
}

impl Linked for Entries {
    fn link(&mut self, slot: Slot) -> &mut Link {
        &mut self[slot].link
    }
}

impl IndexMut<Slot> for Entries {
    fn index_mut(&mut self, slot: Slot) -> &mut Entry {
        &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Entry {
        Entry::new(EnvelopeId::new((1 << 32) | number).unwrap(), Kind::Local, 0)
    }

    #[test]
    fn slots_are_used_again_and_memory_goes_when_the_last_leaves() {
        let mut entries = Entries::new();
        let slots: Vec<Slot> = (1..=3000).map(|n| entries.add(entry(n)).unwrap()).collect();
        assert_eq!(entries.chunks.len(), 3);
        for slot in &slots[..2999] {
            entries.free(*slot);
        }
        assert_eq!(entries.add(entry(1)), Some(2998), "the slot freed last");
        entries.free(2998);
        entries.free(slots[2999]);
        assert!(entries.chunks.is_empty());
        assert_eq!(entries.add(entry(1)), Some(0));
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 72, "{}", size_of::<Entry>());
    }
}
