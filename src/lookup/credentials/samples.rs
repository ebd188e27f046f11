//! What hashes of a table look like, so that one can be invented for a user who has none.
//!
//! Who asks for a user that is not there must not learn it from the time that the answer takes, nor
//! from the iterations that SCRAM tells. So the hash of some real user is computed in its place, and
//! what comes of it counts for nothing. Which one, depends on the name that was asked for and on a
//! secret: names that are not there have the forms of those that are, in the same proportion, and
//! each always the same one.
//!
//! Limits: [`KEPT`] hashes of a table are kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::config::TableId;
use crate::proto::scram::{Cost, Verifier};

/// Hashes of one table that are kept.
const KEPT: usize = 64;
/// What is computed where no hash has been seen: the form and cost of new ones.
const INVENTED: &str = "$y$j9T$inventedinvented$0gBD67sgmJgRX3RZ6wHHO7sHimQEWGCWN85o4Twogh2";

/// A hash of a table.
pub(super) type Hash = Arc<Zeroizing<String>>;

/// Hashes that have been seen.
#[derive(Debug)]
pub(super) struct Samples {
    secret: Zeroizing<[u8; 32]>,
    tables: Mutex<HashMap<TableId, Vec<Hash>>>,
}

impl Samples {
    /// None yet. The secret is random.
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self { secret: Zeroizing::new(secret), tables: Mutex::default() }
    }

    /// A user of this table has this hash.
    pub(super) fn remember(&self, table: TableId, hash: &Hash) {
        let mut tables = self.tables();
        let kept = tables.entry(table).or_default();
        if kept.iter().any(|known| known == hash) {
            return;
        }
        if kept.len() < KEPT {
            kept.push(Arc::clone(hash));
            return;
        }
        // Any place: those that stay are as good as those that go.
        let place = self.number(hash) % KEPT;
        if let Some(old) = kept.get_mut(place) {
            *old = Arc::clone(hash);
        }
    }

    /// Whether any hash of this table is known.
    pub(super) fn has(&self, table: TableId) -> bool {
        self.tables().contains_key(&table)
    }

    /// A hash to compute for a user who has none.
    pub(super) fn for_nobody(&self, table: TableId, user: &str) -> Hash {
        let tables = self.tables();
        let kept = tables.get(&table).map_or(&[][..], Vec::as_slice);
        let place = self.number(user).checked_rem(kept.len());
        let hash = place.and_then(|place| kept.get(place));
        hash.map_or_else(|| Arc::new(Zeroizing::new(INVENTED.to_owned())), Arc::clone)
    }

    /// A verifier for a user who has none.
    pub(super) fn verifier(&self, table: TableId, user: &str) -> Verifier {
        let costs: Vec<Cost> = (self.tables().get(&table).into_iter().flatten())
            .filter_map(|hash| hash.parse::<Verifier>().ok())
            .map(|verifier| verifier.cost())
            .collect();
        let place = self.number(user).checked_rem(costs.len());
        let cost = place.and_then(|place| costs.get(place)).copied().unwrap_or_default();
        Verifier::invented(&self.secret, user, cost)
    }

    /// A number that only the secret and the text decide.
    fn number(&self, text: &str) -> usize {
        let mut block = Zeroizing::new([0; 64]);
        block[..32].copy_from_slice(&*self.secret);
        let mut mac = Hmac::<Sha256>::new((&*block).into());
        mac.update(b"sample\0");
        mac.update(text.as_bytes());
        let code: [u8; 32] = mac.finalize().into_bytes().into();
        let (four, _) = code.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        u32::from_ne_bytes(*four) as usize
    }

    fn tables(&self) -> MutexGuard<'_, HashMap<TableId, Vec<Hash>>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::scram::NEW_ITERATIONS;

    const TABLE: TableId = TableId(3);

    fn hash(text: &str) -> Hash {
        Arc::new(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn invented_hashes_have_the_forms_of_real_ones_in_their_proportion() {
        let samples = Samples::new([1; 32]);
        assert!(!samples.has(TABLE));
        assert_eq!(**samples.for_nobody(TABLE, "eve"), INVENTED);
        for number in 0..3 {
            samples.remember(TABLE, &hash(&format!("$6$salt{number}$x")));
        }
        samples.remember(TABLE, &hash("$2b$x"));
        samples.remember(TABLE, &hash("$2b$x"));
        let users: Vec<String> = (0..400).map(|number| format!("user{number}")).collect();
        let picked = |user: &String| samples.for_nobody(TABLE, user);
        let bcrypt = users.iter().filter(|user| picked(user).starts_with("$2b$")).count();
        assert!((60..140).contains(&bcrypt), "{bcrypt}");
        assert!(users.iter().all(|user| picked(user) == picked(user)));
        assert_eq!(**samples.for_nobody(TableId(4), "eve"), INVENTED);
    }

    #[test]
    fn few_hashes_are_kept() {
        let samples = Samples::new([1; 32]);
        for number in 0..1000 {
            samples.remember(TABLE, &hash(&format!("$6$salt{number}$x")));
        }
        assert_eq!(samples.tables()[&TABLE].len(), KEPT);
    }

    #[test]
    fn invented_verifiers_cost_what_real_ones_cost() {
        let samples = Samples::new([1; 32]);
        assert_eq!(samples.verifier(TABLE, "eve").cost().iterations, NEW_ITERATIONS);
        let real = Verifier::derive(b"secret", b"saltsaltsalt", 4321).unwrap();
        samples.remember(TABLE, &hash("$6$salt$x"));
        samples.remember(TABLE, &hash(&real.to_string()));
        let invented = samples.verifier(TABLE, "eve");
        assert_eq!(invented.cost(), real.cost());
        assert_eq!(invented, samples.verifier(TABLE, "eve"));
        assert_ne!(invented, samples.verifier(TABLE, "bob"));
    }
}
