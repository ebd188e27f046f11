//! What an administrator does to single envelopes, and the listing of all.
//!
//! Sources: the queue page of the specification, 2.7 and 6.5.

use std::num::NonZeroU32;
use std::ops::Bound;

use crate::model::EnvelopeId;

use super::clock::Reading;
use super::entry::{Entry, Flags, Place};
use super::list::Slot;
use super::run_queue::Scheduler;
use super::work::{Block, Listed, Operation, State, Target};

impl Scheduler {
    /// Does `operation` to every envelope of `target`; answers to how many it could be done.
    ///
    /// What can be done when, is the table in section 2.7: an envelope in flight cannot be
    /// scheduled, one that is ready already is counted and left alone.
    pub fn administer(&mut self, operation: Operation, target: Target, now: Reading) -> usize {
        self.line.observe(now);
        let slots: Vec<Slot> = self.index.range(bounds(target)).map(|(_, slot)| *slot).collect();
        let mut done = 0;
        for slot in slots {
            done += usize::from(match operation {
                Operation::Pause => self.block_slot(slot, Block::Administrator),
                Operation::Remove => self.remove(slot),
                Operation::Resume => self.unblock_slot(slot, Block::Administrator),
                Operation::Schedule => self.schedule(slot, target),
            });
        }
        done
    }

    /// Keeps an envelope from running, for a reason that is not there yet.
    pub fn block(&mut self, id: EnvelopeId, reason: Block) -> bool {
        let slot = self.index.get(&id).copied();
        slot.is_some_and(|slot| self.block_slot(slot, reason))
    }

    /// Takes away a reason not to run; it runs when there is no other.
    pub fn unblock(&mut self, id: EnvelopeId, reason: Block, now: Reading) -> bool {
        self.line.observe(now);
        let slot = self.index.get(&id).copied();
        slot.is_some_and(|slot| self.unblock_slot(slot, reason))
    }

    /// The envelopes of `target` after `after`, in the order of their ids.
    pub fn list(
        &mut self,
        target: Target,
        after: Option<EnvelopeId>,
        now: Reading,
    ) -> impl Iterator<Item = Listed> {
        self.line.observe(now);
        let now = self.line.seconds();
        let (first, last) = bounds(target);
        let first = match (after, first) {
            (Some(after), Bound::Included(first)) if after < first => Bound::Included(first),
            (Some(after), _) => Bound::Excluded(after),
            (None, first) => first,
        };
        // A range that starts after its end is refused by the map.
        let empty = matches!(
            (first, last),
            (Bound::Excluded(first), Bound::Included(last)) if first >= last
        );
        let range = (!empty).then(|| self.index.range((first, last)));
        let entries = &self.entries;
        range.into_iter().flatten().map(move |(_, slot)| listed(&entries[*slot], now))
    }

    fn schedule(&mut self, slot: Slot, target: Target) -> bool {
        let Entry { place, flags, .. } = self.entries[slot];
        match place {
            Place::InFlight => return false,
            Place::Expiring | Place::Fresh | Place::Removing => return true,
            Place::Held | Place::Late | Place::Parked | Place::Pending => {}
        }
        if flags.has(Flags::REMOVED | Flags::UNFIT) {
            return false;
        }
        // Who says "all" does not mean what made roles crash.
        if target == Target::All && flags.has(Flags::of(Block::Suspect)) {
            return false;
        }
        self.leave(slot);
        self.run_now(slot);
        true
    }

    fn remove(&mut self, slot: Slot) -> bool {
        let Entry { place, flags, .. } = self.entries[slot];
        if flags.has(Flags::REMOVED) {
            return false;
        }
        if place == Place::InFlight {
            self.entries[slot].flags.set(Flags::REMOVED);
            return true;
        }
        self.leave(slot);
        self.entries[slot].flags.set(Flags::REMOVED);
        self.wait(slot);
        true
    }

    fn block_slot(&mut self, slot: Slot, reason: Block) -> bool {
        let Entry { place, flags, .. } = self.entries[slot];
        if flags.has(Flags::of(reason)) {
            return false;
        }
        if matches!(place, Place::InFlight | Place::Parked | Place::Removing) {
            self.entries[slot].flags.set(Flags::of(reason));
            return true;
        }
        self.leave(slot);
        self.entries[slot].flags.set(Flags::of(reason));
        self.wait(slot);
        true
    }

    fn unblock_slot(&mut self, slot: Slot, reason: Block) -> bool {
        let Entry { place, flags, .. } = self.entries[slot];
        if !flags.has(Flags::of(reason)) {
            return false;
        }
        if matches!(place, Place::InFlight | Place::Removing) {
            self.entries[slot].flags.clear(Flags::of(reason));
            return true;
        }
        self.leave(slot);
        self.entries[slot].flags.clear(Flags::of(reason));
        self.wait(slot);
        true
    }
}

fn bounds(target: Target) -> (Bound<EnvelopeId>, Bound<EnvelopeId>) {
    match target {
        Target::All => (Bound::Unbounded, Bound::Unbounded),
        Target::Envelope(id) => (Bound::Included(id), Bound::Included(id)),
        Target::Message(id) => (
            Bound::Included(id.envelope(NonZeroU32::MIN)),
            Bound::Included(id.envelope(NonZeroU32::MAX)),
        ),
    }
}

fn listed(entry: &Entry, now: i64) -> Listed {
    let waits = entry.due.saturating_sub(now);
    let state = match entry.place {
        Place::InFlight => State::InFlight(now.saturating_sub(entry.mark)),
        Place::Parked | Place::Pending => State::Pending(waits),
        Place::Expiring | Place::Fresh | Place::Held | Place::Late | Place::Removing => {
            State::Pending(waits.min(0))
        }
    };
    let blocked = [Block::NoAction, Block::OtherAction, Block::Suspect];
    Listed {
        id: entry.id,
        kind: entry.kind,
        retries: entry.retries,
        state,
        expires_in: entry.expiry().saturating_sub(now),
        held: entry.place == Place::Held,
        suspended: entry.flags.has(Flags::of(Block::Administrator)),
        blocked: blocked.into_iter().find(|block| entry.flags.has(Flags::of(*block))),
    }
}
