//! A hash index that keeps nothing of what it finds: six bytes and a quarter an entry.
//!
//! It maps hashes to *places*, numbers of at most 32 bits that mean something to its owner: where in
//! a text an entry begins, or which entry it is. Whether a place is the one that is looked for, the
//! owner says; a tag of seven bits spares it nearly all questions about others. It is made for a
//! known number of entries and never grows.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};

/// Tag of a slot without an entry; others have this bit not set.
const FREE: u8 = 0x80;

/// Places by hash, in open addressing with steps of one.
#[derive(Debug)]
pub(super) struct Index {
    places: Box<[u32]>,
    tags: Box<[u8]>,
    used: usize,
    hasher: RandomState,
}

impl Index {
    /// An index for at most so many entries: four of five slots are taken then.
    pub fn with_room(entries: usize) -> Self {
        let slots = entries + entries / 4 + 1;
        Self {
            places: vec![0; slots].into(),
            tags: vec![FREE; slots].into(),
            used: 0,
            hasher: RandomState::new(),
        }
    }

    /// The hash of a value.
    pub fn hash(&self, value: impl Hash) -> u64 {
        self.hasher.hash_one(value)
    }

    /// The hash of a text, the same for all ways to write it in upper and lower case.
    pub fn hash_folded(&self, text: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        let mut lower = [0; 64];
        for piece in text.chunks(lower.len()) {
            for (to, from) in lower.iter_mut().zip(piece) {
                *to = from.to_ascii_lowercase();
            }
            hasher.write(lower.get(..piece.len()).unwrap_or_default());
        }
        hasher.finish()
    }

    /// Puts `place` in, instead of one with this hash that is the `same`.
    ///
    /// An index that is full, which is a mistake of its owner, stays as it is.
    pub fn insert(&mut self, hash: u64, place: u32, same: impl Fn(u32) -> bool) {
        match self.seek(hash, same) {
            Found::At(slot) => {
                if let Some(at) = self.places.get_mut(slot) {
                    *at = place;
                }
            }
            Found::Free(slot) => {
                let (Some(at), Some(tag)) = (self.places.get_mut(slot), self.tags.get_mut(slot))
                else {
                    return;
                };
                *at = place;
                *tag = tag_of(hash);
                self.used += 1;
            }
            Found::Nowhere => {}
        }
    }

    /// The place with this hash that is the `same`.
    pub fn find(&self, hash: u64, same: impl Fn(u32) -> bool) -> Option<u32> {
        match self.seek(hash, same) {
            Found::At(slot) => self.places.get(slot).copied(),
            Found::Free(_) | Found::Nowhere => None,
        }
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.used
    }

    /// All places, in no order.
    pub fn places(&self) -> impl Iterator<Item = u32> {
        self.places.iter().zip(&self.tags).filter(|(_, tag)| **tag != FREE).map(|(at, _)| *at)
    }

    fn seek(&self, hash: u64, same: impl Fn(u32) -> bool) -> Found {
        let tag = tag_of(hash);
        let slots = self.tags.len();
        // The high bits, spread over the slots, which are no power of two.
        let first = ((u128::from(hash) * slots as u128) >> u64::BITS) as usize;
        for step in 0..slots {
            let slot = (first + step) % slots;
            match self.tags.get(slot) {
                Some(&FREE) => return Found::Free(slot),
                Some(&found)
                    if found == tag && self.places.get(slot).is_some_and(|place| same(*place)) =>
                {
                    return Found::At(slot);
                }
                _ => {}
            }
        }
        Found::Nowhere
    }
}

/// Where a search ended.
enum Found {
    /// In the slot of what was looked for.
    At(usize),
    /// In the slot where it would be.
    Free(usize),
    /// The index is full.
    Nowhere,
}

/// The low bits, which do not take part in the choice of a slot.
fn tag_of(hash: u64) -> u8 {
    hash as u8 & !FREE
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&str; 5] = ["alpha", "Beta", "GAMMA", "delta", ""];

    fn same(text: &str) -> impl Fn(u32) -> bool {
        move |place| WORDS[place as usize].eq_ignore_ascii_case(text)
    }

    #[test]
    fn what_was_put_in_is_found_in_any_case() {
        let mut index = Index::with_room(WORDS.len());
        for (place, word) in (0..).zip(WORDS) {
            index.insert(index.hash_folded(word.as_bytes()), place, same(word));
        }
        assert_eq!(index.len(), WORDS.len());
        for (place, word) in (0..).zip(["ALPHA", "beta", "Gamma", "delta", ""]) {
            let hash = index.hash_folded(word.as_bytes());
            assert_eq!(index.find(hash, same(word)), Some(place), "{word}");
        }
        assert_eq!(index.find(index.hash_folded(b"epsilon"), same("epsilon")), None);
        let mut places: Vec<u32> = index.places().collect();
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn of_the_same_the_last_stays() {
        let mut index = Index::with_room(2);
        let hash = index.hash_folded(b"x");
        index.insert(hash, 1, |_| true);
        index.insert(hash, 2, |_| true);
        assert_eq!((index.len(), index.find(hash, |_| true)), (1, Some(2)));
    }

    #[test]
    fn a_full_index_takes_no_more_and_ends_its_searches() {
        let mut index = Index::with_room(0);
        index.insert(1, 1, |_| false);
        index.insert(2, 2, |_| false);
        assert_eq!((index.len(), index.find(3, |_| false)), (1, None));
    }

    #[test]
    fn long_texts_hash_by_all_their_bytes() {
        let index = Index::with_room(1);
        let long = "x".repeat(200);
        let other = format!("{}y", "x".repeat(199));
        assert_eq!(
            index.hash_folded(long.as_bytes()),
            index.hash_folded("X".repeat(200).as_bytes())
        );
        assert_ne!(index.hash_folded(long.as_bytes()), index.hash_folded(other.as_bytes()));
    }
}
