//! Hold queues: where envelopes wait for a relay or a user that has enough to do.
//!
//! The last envelope that came is the first that leaves: those that have waited longest have lost
//! the least by waiting on, and what is new gets a quick first try.
//!
//! Sources: the queue page of the specification, 2.4, 3.6 and 5.6.

use std::collections::HashMap;

use super::entry::Entries;
use super::list::{List, Slot};
use super::work::HoldQueue;

/// Envelopes that one hold queue takes.
pub(super) const CAPACITY: usize = 1000;

/// All hold queues that hold something.
#[derive(Debug, Default)]
pub(super) struct HoldQueues {
    queues: HashMap<u64, List>,
    held: usize,
}

impl HoldQueues {
    /// Holds an envelope that is in no list; false if the queue is full.
    pub(super) fn push(&mut self, entries: &mut Entries, queue: HoldQueue, slot: Slot) -> bool {
        let list = self.queues.entry(queue.0).or_insert(List::EMPTY);
        if list.len() >= CAPACITY {
            return false;
        }
        entries[slot].hold = queue.0;
        list.push_front(entries, slot);
        self.held += 1;
        true
    }

    /// Takes out the envelope that came last.
    pub(super) fn pop(&mut self, entries: &mut Entries, queue: HoldQueue) -> Option<Slot> {
        let slot = self.queues.get(&queue.0)?.first()?;
        self.unlink(entries, slot);
        Some(slot)
    }

    /// Takes out an envelope that is held.
    pub(super) fn unlink(&mut self, entries: &mut Entries, slot: Slot) {
        let queue = entries[slot].hold;
        if let Some(list) = self.queues.get_mut(&queue) {
            list.unlink(entries, slot);
            self.held -= 1;
            if list.is_empty() {
                self.queues.remove(&queue);
            }
        }
    }

    /// Envelopes held.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Queues that hold something.
    pub(super) fn len(&self) -> usize {
        self.queues.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EnvelopeId;
    use crate::scheduler::entry::Entry;
    use crate::scheduler::work::Kind;

    #[test]
    fn the_last_in_is_the_first_out_and_an_empty_queue_is_forgotten() {
        let mut entries = Entries::new();
        let mut holds = HoldQueues::default();
        let slots: Vec<Slot> = (1..=4)
            .map(|n| {
                let id = EnvelopeId::new((1 << 32) | n).unwrap();
                entries.add(Entry::new(id, Kind::Relay, 0)).unwrap()
            })
            .collect();
        for slot in &slots[..3] {
            assert!(holds.push(&mut entries, HoldQueue(7), *slot));
        }
        assert!(holds.push(&mut entries, HoldQueue(8), slots[3]));
        assert_eq!((holds.held(), holds.len()), (4, 2));

        holds.unlink(&mut entries, slots[1]);
        assert_eq!(holds.pop(&mut entries, HoldQueue(7)), Some(slots[2]));
        assert_eq!(holds.pop(&mut entries, HoldQueue(7)), Some(slots[0]));
        assert_eq!(holds.pop(&mut entries, HoldQueue(7)), None);
        assert_eq!((holds.held(), holds.len()), (1, 1));
    }
}
