//! Destinations: their names, kept once each, and the envelopes that are ready for them.
//!
//! Of each kind there are two rings of destinations: those with new envelopes and those whose
//! envelopes were tried before or are overdue. A turn takes the first destination of a ring, some of
//! its envelopes, and puts it at the end, so a destination with many does not hold up the others.

use std::collections::HashMap;
use std::sync::Arc;

use super::entry::Entries;
use super::list::{Link, Linked, List, Slot};
use super::work::{Kind, MAX_DESTINATION};

/// Which of the two rings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    /// Not tried yet, or asked for: first.
    Fresh,
    /// Tried before, or overdue.
    Late,
}

#[derive(Debug)]
struct Destination {
    name: Arc<str>,
    kind: Kind,
    /// Envelopes that name it, ready or not.
    references: u32,
    /// Ready envelopes, by class. The destination is in the ring of a class while there are any.
    ready: [List; 2],
    /// Neighbours in the rings.
    links: [Link; 2],
}

/// All destinations that some envelope names.
#[derive(Debug)]
pub(super) struct Destinations {
    by_name: [HashMap<Arc<str>, u32>; 3],
    all: Vec<Destination>,
    free: Vec<u32>,
    rings: [[List; 2]; 3],
}

/// Destinations as members of the rings of one class.
struct Ring<'a>(&'a mut [Destination], Class);

impl Linked for Ring<'_> {
    fn link(&mut self, slot: Slot) -> &mut Link {
        &mut self.0[slot as usize].links[self.1 as usize]
    }
}

impl Destinations {
    pub(super) fn new() -> Self {
        Self {
            by_name: Default::default(),
            all: Vec::new(),
            free: Vec::new(),
            rings: [[List::EMPTY; 2]; 3],
        }
    }

    /// The number of `name`, which has one more reference from now on.
    pub(super) fn intern(&mut self, kind: Kind, name: &str) -> u32 {
        let name = shortened(name);
        if let Some(&number) = self.by_name[kind as usize].get(name) {
            self.all[number as usize].references += 1;
            return number;
        }
        let new = Destination {
            name: name.into(),
            kind,
            references: 1,
            ready: [List::EMPTY; 2],
            links: [Link::FREE; 2],
        };
        let name = Arc::clone(&new.name);
        let number = if let Some(number) = self.free.pop() {
            self.all[number as usize] = new;
            number
        } else {
            self.all.push(new);
            // There are never more than entries, whose numbers fit.
            (self.all.len() - 1) as u32
        };
        self.by_name[kind as usize].insert(name, number);
        number
    }

    /// Gives up one reference, by an envelope that is not ready.
    pub(super) fn release(&mut self, number: u32) {
        let destination = &mut self.all[number as usize];
        destination.references -= 1;
        if destination.references > 0 {
            return;
        }
        self.by_name[destination.kind as usize].remove(&destination.name);
        destination.name = Arc::default();
        self.free.push(number);
        if self.free.len() == self.all.len() {
            *self = Self::new();
        }
    }

    pub(super) fn name(&self, number: u32) -> Arc<str> {
        Arc::clone(&self.all[number as usize].name)
    }

    /// Whether any envelope of `kind` and `class` is ready.
    pub(super) fn any_ready(&self, kind: Kind, class: Class) -> bool {
        !self.rings[kind as usize][class as usize].is_empty()
    }

    /// Makes the envelope in `slot` ready, as the last of its destination.
    pub(super) fn push(&mut self, entries: &mut Entries, slot: Slot, class: Class) {
        let number = entries[slot].destination;
        let Destination { kind, ready, .. } = &mut self.all[number as usize];
        let list = &mut ready[class as usize];
        let was_empty = list.is_empty();
        list.push_back(entries, slot);
        if was_empty {
            let ring = &mut self.rings[*kind as usize][class as usize];
            ring.push_back(&mut Ring(&mut self.all, class), number);
        }
    }

    /// Takes back an envelope that is ready.
    pub(super) fn unlink(&mut self, entries: &mut Entries, slot: Slot, class: Class) {
        let number = entries[slot].destination;
        let Destination { kind, ready, .. } = &mut self.all[number as usize];
        let list = &mut ready[class as usize];
        list.unlink(entries, slot);
        if list.is_empty() {
            let ring = &mut self.rings[*kind as usize][class as usize];
            ring.unlink(&mut Ring(&mut self.all, class), number);
        }
    }

    /// The destination whose turn it is.
    pub(super) fn turn(&self, kind: Kind, class: Class) -> Option<u32> {
        self.rings[kind as usize][class as usize].first()
    }

    /// The envelope that is ready first for a destination.
    pub(super) fn first_ready(&self, number: u32, class: Class) -> Option<Slot> {
        self.all[number as usize].ready[class as usize].first()
    }

    /// Puts a destination behind all others of its ring.
    pub(super) fn end_turn(&mut self, number: u32, class: Class) {
        let Destination { kind, ready, .. } = &self.all[number as usize];
        if ready[class as usize].is_empty() {
            return;
        }
        let ring = &mut self.rings[*kind as usize][class as usize];
        let mut links = Ring(&mut self.all, class);
        ring.unlink(&mut links, number);
        ring.push_back(&mut links, number);
    }
}

/// `name`, or as many of its characters as fit [`MAX_DESTINATION`] bytes.
fn shortened(name: &str) -> &str {
    if name.len() <= MAX_DESTINATION {
        return name;
    }
    let fits = name.char_indices().take_while(|(at, c)| at + c.len_utf8() <= MAX_DESTINATION);
    let length = fits.last().map_or(0, |(at, c)| at + c.len_utf8());
    &name[..length]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EnvelopeId;
    use crate::scheduler::entry::Entry;

    struct Table {
        entries: Entries,
        destinations: Destinations,
    }

    impl Table {
        fn ready(&mut self, number: u64, name: &str, class: Class) -> Slot {
            let id = EnvelopeId::new((1 << 32) | number).unwrap();
            let mut entry = Entry::new(id, Kind::Relay, 0);
            entry.destination = self.destinations.intern(Kind::Relay, name);
            let slot = self.entries.add(entry).unwrap();
            self.destinations.push(&mut self.entries, slot, class);
            slot
        }

        /// Takes one envelope in each of `turns` turns.
        fn serve(&mut self, turns: usize, class: Class) -> Vec<u64> {
            let mut served = Vec::new();
            for _ in 0..turns {
                let Some(number) = self.destinations.turn(Kind::Relay, class) else { break };
                let slot = self.destinations.first_ready(number, class).unwrap();
                self.destinations.unlink(&mut self.entries, slot, class);
                self.destinations.end_turn(number, class);
                served.push(self.entries[slot].id.get() & 0xffff);
            }
            served
        }
    }

    fn table() -> Table {
        Table { entries: Entries::new(), destinations: Destinations::new() }
    }

    #[test]
    fn destinations_take_turns() {
        let mut table = table();
        for (number, name) in [(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "c"), (6, "b")] {
            table.ready(number, name, Class::Fresh);
        }
        let withdrawn = table.ready(7, "d", Class::Fresh);
        table.ready(8, "a", Class::Late);
        table.destinations.unlink(&mut table.entries, withdrawn, Class::Fresh);

        assert_eq!(table.serve(9, Class::Fresh), [1, 4, 5, 2, 6, 3]);
        assert_eq!(table.serve(9, Class::Late), [8]);
        assert!(!table.destinations.any_ready(Kind::Relay, Class::Fresh));
    }

    #[test]
    fn a_name_is_kept_once_while_it_is_used() {
        let mut destinations = Destinations::new();
        let one = destinations.intern(Kind::Relay, "a");
        let other = destinations.intern(Kind::Local, "a");
        assert_ne!(one, other, "a domain and a user of one name");
        assert_eq!(destinations.intern(Kind::Relay, "a"), one);
        destinations.release(one);
        assert_eq!(&*destinations.name(one), "a");
        destinations.release(one);
        assert_eq!(destinations.intern(Kind::Relay, "b"), one, "the number is free again");
        destinations.release(one);
        destinations.release(other);
        assert!(destinations.all.is_empty() && destinations.free.is_empty());
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let cases = [
            ("a".repeat(300), 300),
            ("a".repeat(301), 300),
            ("ü".repeat(151), 300),
            (format!("a{}", "ü".repeat(150)), 299),
        ];
        for (name, length) in cases {
            assert_eq!(shortened(&name).len(), length);
        }
    }
}
