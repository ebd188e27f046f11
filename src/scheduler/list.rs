//! Lists threaded through things that are kept elsewhere: any member leaves in constant time.

/// The number of a thing that can be in a list.
pub(super) type Slot = u32;
/// The slot that nothing has.
pub(super) const NONE: Slot = Slot::MAX;

/// The neighbours of a list's member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Link {
    pub(super) previous: Slot,
    pub(super) next: Slot,
}

impl Link {
    /// In no list.
    pub(super) const FREE: Self = Self { previous: NONE, next: NONE };
}

/// What lists can be threaded through.
pub(super) trait Linked {
    /// The link of `slot`, used by one list at a time.
    fn link(&mut self, slot: Slot) -> &mut Link;
}

/// A list. Its members are in `Linked` values that every call is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    first: Slot,
    last: Slot,
    length: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self { first: NONE, last: NONE, length: 0 };

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn first(&self) -> Option<Slot> {
        (self.first != NONE).then_some(self.first)
    }

    pub(super) fn len(&self) -> usize {
        self.length as usize
    }

    /// Adds a slot that is in no list.
    pub(super) fn push_back(&mut self, all: &mut impl Linked, slot: Slot) {
        *all.link(slot) = Link { previous: self.last, next: NONE };
        match self.last {
            NONE => self.first = slot,
            last => all.link(last).next = slot,
        }
        self.last = slot;
        self.length += 1;
    }

    /// Adds a slot that is in no list.
    pub(super) fn push_front(&mut self, all: &mut impl Linked, slot: Slot) {
        *all.link(slot) = Link { previous: NONE, next: self.first };
        match self.first {
            NONE => self.last = slot,
            first => all.link(first).previous = slot,
        }
        self.first = slot;
        self.length += 1;
    }

    /// Takes out a slot that is in this list.
    pub(super) fn unlink(&mut self, all: &mut impl Linked, slot: Slot) {
        let Link { previous, next } = std::mem::replace(all.link(slot), Link::FREE);
        match previous {
            NONE => self.first = next,
            previous => all.link(previous).next = next,
        }
        match next {
            NONE => self.last = previous,
            next => all.link(next).previous = previous,
        }
        self.length -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Linked for Vec<Link> {
        fn link(&mut self, slot: Slot) -> &mut Link {
            &mut self[slot as usize]
        }
    }

    fn content(list: &List, links: &[Link]) -> Vec<Slot> {
        let mut found = Vec::new();
        let (mut slot, mut previous) = (list.first, NONE);
        while slot != NONE {
            assert_eq!(links[slot as usize].previous, previous, "the links agree");
            found.push(slot);
            previous = slot;
            slot = links[slot as usize].next;
        }
        assert_eq!(list.last, previous);
        assert_eq!(list.len(), found.len());
        found
    }

    #[test]
    fn lists_keep_their_order_when_any_member_leaves() {
        for gone in 0..4 {
            let mut links = vec![Link::FREE; 4];
            let mut list = List::EMPTY;
            list.push_back(&mut links, 1);
            list.push_back(&mut links, 2);
            list.push_front(&mut links, 0);
            list.push_back(&mut links, 3);
            assert_eq!(content(&list, &links), [0, 1, 2, 3]);

            list.unlink(&mut links, gone);
            let rest: Vec<Slot> = (0..4).filter(|slot| *slot != gone).collect();
            assert_eq!(content(&list, &links), rest);
            assert_eq!(links[gone as usize], Link::FREE);
            list.unlink(&mut links, rest[0]);
            assert_eq!(content(&list, &links), rest[1..]);
        }
    }

    #[test]
    fn an_emptied_list_can_be_filled_again() {
        let mut links = vec![Link::FREE; 1];
        let mut list = List::EMPTY;
        for _ in 0..2 {
            list.push_front(&mut links, 0);
            assert_eq!(list.first(), Some(0));
            list.unlink(&mut links, 0);
            assert!(list.is_empty() && list.first().is_none());
        }
    }
}
