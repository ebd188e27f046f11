//! Unused message ids.
//!
//! Ids should not tell how much mail passes, and must not repeat. They are a counter seen through a
//! random permutation of the 32-bit numbers (a Feistel network of four rounds): within one run an id
//! comes back only after 2³² others, without a list of those that were given out. Ids in use on the
//! disk are skipped by the caller.

use super::table::mix;

/// A source of ids.
pub(super) struct Ids {
    key: u64,
    counter: u32,
}

impl Ids {
    pub(super) fn new(key: u64) -> Self {
        Self { key, counter: 0 }
    }

    /// The next number; 0 among them once.
    pub(super) fn next(&mut self) -> u32 {
        let (mut left, mut right) = ((self.counter >> 16) as u16, self.counter as u16);
        self.counter = self.counter.wrapping_add(1);
        for round in 0..4_u64 {
            let mixed = mix(self.key ^ (round << 56) ^ u64::from(right)) as u16;
            (left, right) = (right, left ^ mixed);
        }
        (u32::from(left) << 16) | u32::from(right)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_do_not_repeat_and_depend_on_the_key() {
        let take = |key| {
            let mut ids = Ids::new(key);
            (0..200_000).map(|_| ids.next()).collect::<Vec<_>>()
        };
        let first = take(1);
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), first.len());
        assert_ne!(first[..8], take(2)[..8]);
        let high = first.iter().filter(|id| **id > u32::MAX / 2).count();
        assert!((90_000..110_000).contains(&high), "{high}");
    }
}
