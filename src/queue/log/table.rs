//! A hash table that wastes little: fixed-size values, each holding its own key.
//!
//! The standard map doubles, so that right after growing more than half of it is air; this one is
//! cut into shards that grow by an eighth, each alone, so it stays between 7/9 and 7/8 full and no
//! insertion moves more than a shard. Values that share a group (a message's envelopes) share a
//! shard and can be listed.

/// A value of a table.
pub(super) trait Slot: Copy {
    /// What it is found by.
    type Key: Copy + Eq;
    /// A place without a value.
    const VACANT: Self;
    /// Its key; `None` for a vacant place.
    fn key(&self) -> Option<Self::Key>;
    /// Well mixed bits of the group that the key belongs to.
    fn group(key: Self::Key) -> u64;
    /// Well mixed bits of the key.
    fn hash(key: Self::Key) -> u64;
}

/// Mixes the bits of a number (the finaliser of a 64-bit avalanche hash).
pub(super) fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

const SHARDS: usize = 256;
const SMALLEST: usize = 8;

/// The table.
pub(super) struct Table<T> {
    shards: Vec<Shard<T>>,
    length: usize,
}

struct Shard<T> {
    places: Vec<T>,
    used: usize,
}

impl<T: Slot> Table<T> {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Shard { places: Vec::new(), used: 0 }).collect();
        Self { shards, length: 0 }
    }

    /// How many values it holds.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Bytes of memory that it takes.
    pub(super) fn memory(&self) -> usize {
        let places: usize = self.shards.iter().map(|shard| shard.places.capacity()).sum();
        places * size_of::<T>() + SHARDS * size_of::<Shard<T>>()
    }

    fn shard(&self, key: T::Key) -> &Shard<T> {
        &self.shards[(T::group(key) % SHARDS as u64) as usize]
    }

    fn shard_mut(&mut self, key: T::Key) -> &mut Shard<T> {
        &mut self.shards[(T::group(key) % SHARDS as u64) as usize]
    }

    pub(super) fn get(&self, key: T::Key) -> Option<&T> {
        let shard = self.shard(key);
        shard.find(key).ok().and_then(|at| shard.places.get(at))
    }

    pub(super) fn get_mut(&mut self, key: T::Key) -> Option<&mut T> {
        let shard = self.shard_mut(key);
        shard.find(key).ok().and_then(|at| shard.places.get_mut(at))
    }

    /// Adds a value; `false` and unchanged if its key is there already or it is vacant.
    pub(super) fn insert(&mut self, value: T) -> bool {
        let Some(key) = value.key() else { return false };
        let shard = self.shard_mut(key);
        if shard.find(key).is_ok() {
            return false;
        }
        if (shard.used + 1) * 8 > shard.places.len() * 7 {
            let wanted = (shard.places.len() + shard.places.len() / 8 + 1).max(SMALLEST);
            shard.resize(wanted);
        }
        shard.put(key, value);
        self.length += 1;
        true
    }

    pub(super) fn remove(&mut self, key: T::Key) -> Option<T> {
        let shard = self.shard_mut(key);
        let at = shard.find(key).ok()?;
        let value = shard.take(at);
        if shard.places.len() > SMALLEST && shard.used * 2 < shard.places.len() {
            shard.resize((shard.used * 5 / 4).max(SMALLEST));
        }
        self.length -= 1;
        Some(value)
    }

    /// All values, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().flat_map(|shard| &shard.places).filter(|value| value.key().is_some())
    }

    /// The values in the shard of a group: those of the group are among them.
    pub(super) fn near(&self, group: u64) -> impl Iterator<Item = &T> {
        let shard = &self.shards[(group % SHARDS as u64) as usize];
        shard.places.iter().filter(|value| value.key().is_some())
    }
}

impl<T: Slot> Shard<T> {
    fn home(&self, key: T::Key) -> usize {
        // Multiply-shift: spreads 32 mixed bits over any number of places.
        (((T::hash(key) >> 32) * self.places.len() as u64) >> 32) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.places.len() { 0 } else { at + 1 }
    }

    /// Where `key` is, or the vacant place where it would go.
    fn find(&self, key: T::Key) -> Result<usize, usize> {
        if self.places.is_empty() {
            return Err(0);
        }
        let mut at = self.home(key);
        // Ends: a shard is never full.
        loop {
            match self.places[at].key() {
                None => return Err(at),
                Some(found) if found == key => return Ok(at),
                Some(_) => at = self.after(at),
            }
        }
    }

    fn put(&mut self, key: T::Key, value: T) {
        if let Err(at) = self.find(key) {
            self.places[at] = value;
            self.used += 1;
        }
    }

    /// Empties a place and moves back what had to go past it.
    fn take(&mut self, at: usize) -> T {
        let value = self.places[at];
        let mut hole = at;
        let mut next = self.after(hole);
        while let Some(key) = self.places[next].key() {
            let length = self.places.len();
            let distance = (next + length - self.home(key)) % length;
            let gap = (next + length - hole) % length;
            if distance >= gap {
                self.places[hole] = self.places[next];
                hole = next;
            }
            next = self.after(next);
        }
        self.places[hole] = T::VACANT;
        self.used -= 1;
        value
    }

    fn resize(&mut self, length: usize) {
        let mut places = Vec::new();
        places.reserve_exact(length);
        places.resize(length, T::VACANT);
        let old = std::mem::replace(&mut self.places, places);
        self.used = 0;
        for value in old {
            if let Some(key) = value.key() {
                self.put(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Pair(u32, u32);

    impl Slot for Pair {
        type Key = u32;
        const VACANT: Self = Self(0, 0);
        fn key(&self) -> Option<u32> {
            (self.0 != 0).then_some(self.0)
        }
        fn group(key: u32) -> u64 {
            u64::from(key / 1000)
        }
        fn hash(key: u32) -> u64 {
            // Poor on purpose: long runs of neighbours.
            u64::from(key / 4) << 58
        }
    }

    proptest! {
        #[test]
        fn behaves_like_the_standard_map(
            steps in prop::collection::vec((any::<bool>(), 1_u32..200, any::<u32>()), 0..400),
        ) {
            let mut table = Table::new();
            let mut model = BTreeMap::new();
            for (insert, key, value) in steps {
                if insert {
                    let fresh = !model.contains_key(&key);
                    prop_assert_eq!(table.insert(Pair(key, value)), fresh);
                    model.entry(key).or_insert(value);
                } else {
                    let removed = table.remove(key).map(|pair| pair.1);
                    prop_assert_eq!(removed, model.remove(&key));
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for key in 1..200 {
                prop_assert_eq!(table.get(key).map(|p| p.1), model.get(&key).copied());
            }
            let mut listed: Vec<_> = table.iter().map(|p| (p.0, p.1)).collect();
            listed.sort_unstable();
            prop_assert_eq!(listed, model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_vacant_value_is_not_inserted() {
        assert!(!Table::new().insert(Pair::VACANT));
    }

    #[test]
    fn memory_stays_close_to_the_values() {
        #[derive(Clone, Copy)]
        struct Wide(u64, [u64; 2]);
        impl Slot for Wide {
            type Key = u64;
            const VACANT: Self = Self(0, [0; 2]);
            fn key(&self) -> Option<u64> {
                (self.0 != 0).then_some(self.0)
            }
            fn group(key: u64) -> u64 {
                mix(key)
            }
            fn hash(key: u64) -> u64 {
                mix(key ^ 1)
            }
        }
        let mut table = Table::new();
        for key in 1..=100_000 {
            table.insert(Wide(key, [key; 2]));
            if key > 20_000 {
                assert!(table.memory() as u64 <= key * 24 * 13 / 10 + 16_384, "{key}");
            }
            assert_eq!(table.get(key).map(|wide| wide.1), Some([key; 2]));
        }
    }
}
