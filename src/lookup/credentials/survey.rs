//! What the hashes of a table are like, so that something can stand in for a user who has none.
//!
//! Who asks for a user that is not there must not learn it from the time that the answer takes, nor
//! from what SCRAM tells. So such a name is treated as one of the table's [kinds](Kind): its hash is
//! computed, and what comes of it counts for nothing. Which kind, depends on the name and on a
//! secret: names that are not there are of the kinds of those that are, in the same proportion, and
//! each stays what it is while the table stays roughly what it is.
//!
//! A table that can be read is looked through once for its contents. Of what a program holds only
//! the kinds are known that it has shown so far.
//!
//! Limits: [`KINDS`] kinds of a table; a table that has more is known by those that come first.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::hash;
use crate::config::TableId;
use crate::proto::scram::{Cost, Verifier};

/// Kinds of one table that are told apart. Usually there are one or two.
const KINDS: usize = 64;

/// A hash of a table.
pub(super) type Hash = Arc<Zeroizing<String>>;

/// Hashes whose checks cost the same.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    /// What [`hash::kind`] says.
    name: String,
    users: u64,
    /// One of them.
    hash: Hash,
}

impl Kind {
    /// What is computed in the place of a hash of this kind.
    pub(super) fn hash(&self) -> &Hash {
        &self.hash
    }

    /// What verifiers of this kind tell everybody; `None` of other hashes.
    pub(super) fn cost(&self) -> Option<Cost> {
        Some(self.hash.parse::<Verifier>().ok()?.cost())
    }
}

/// The kinds of one table.
#[derive(Clone, Debug, Default)]
pub(in crate::lookup) struct Survey {
    /// By name.
    kinds: Vec<Kind>,
}

impl Survey {
    /// Somebody has this hash. One that cannot be checked is of no kind.
    pub(in crate::lookup) fn note(&mut self, hash: &Zeroizing<String>) {
        let Ok(name) = hash::kind(hash) else { return };
        match self.kinds.binary_search_by(|kind| kind.name.as_str().cmp(&name)) {
            Ok(place) => {
                if let Some(kind) = self.kinds.get_mut(place) {
                    kind.users += 1;
                }
            }
            Err(place) if self.kinds.len() < KINDS => {
                self.kinds.insert(place, Kind { name, users: 1, hash: Arc::new(hash.clone()) });
            }
            Err(_) => {}
        }
    }

    /// The same with this hash, if that is of a kind that was not known.
    fn with(&self, hash: &Zeroizing<String>) -> Option<Self> {
        let name = hash::kind(hash).ok()?;
        if self.kinds.len() >= KINDS || self.kinds.iter().any(|kind| kind.name == name) {
            return None;
        }
        let mut more = self.clone();
        more.note(hash);
        Some(more)
    }

    /// Whether anybody can log in with SCRAM.
    pub(in crate::lookup) fn has_verifiers(&self) -> bool {
        self.kinds.iter().any(|kind| kind.cost().is_some())
    }

    /// The kind of which a name with this number is, by how many users each has; `None` if none is
    /// known.
    pub(super) fn kind_of(&self, number: u64) -> Option<&Kind> {
        let users = self.kinds.iter().map(|kind| u128::from(kind.users)).sum::<u128>();
        let mut place = (u128::from(number) * users) >> 64;
        self.kinds.iter().find(|kind| {
            let users = u128::from(kind.users);
            let found = place < users;
            place = place.saturating_sub(users);
            found
        })
    }
}

/// What is known of tables.
#[derive(Debug, Default)]
pub(super) struct Surveys(Mutex<HashMap<TableId, (Contents, Arc<Survey>)>>);

/// What was looked through; `None` of what is only seen in parts.
type Contents = Option<Weak<dyn Any + Send + Sync>>;

impl Surveys {
    /// What `look` finds in these contents, on a thread of its own, or has found before.
    pub(super) async fn of<T: Any + Send + Sync>(
        &self,
        table: TableId,
        contents: Arc<T>,
        look: impl FnOnce(&T) -> Survey + Send + 'static,
    ) -> Arc<Survey> {
        let whole: Arc<dyn Any + Send + Sync> = Arc::<T>::clone(&contents);
        let whole = Arc::downgrade(&whole);
        let mut tables = self.0.lock().await;
        if let Some((Some(before), found)) = tables.get(&table)
            && std::ptr::addr_eq(before.as_ptr(), whole.as_ptr())
        {
            return Arc::clone(found);
        }
        // A large table takes a while. A panic in there leaves nothing known.
        let found = spawn_blocking(move || look(&contents)).await;
        let found = Arc::new(found.unwrap_or_default());
        tables.insert(table, (Some(whole), Arc::clone(&found)));
        found
    }

    /// What a table has shown so far that cannot be looked through.
    pub(super) async fn seen(&self, table: TableId) -> Arc<Survey> {
        let tables = self.0.lock().await;
        tables.get(&table).map(|(_, seen)| Arc::clone(seen)).unwrap_or_default()
    }

    /// A table that cannot be looked through has shown a hash.
    pub(super) async fn learn(&self, table: TableId, hash: &Zeroizing<String>) {
        let mut tables = self.0.lock().await;
        let (_, seen) = tables.entry(table).or_default();
        if let Some(more) = seen.with(hash) {
            *seen = Arc::new(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId(3);

    fn hash(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    fn survey(hashes: &[&str]) -> Survey {
        let mut survey = Survey::default();
        for text in hashes {
            survey.note(&hash(text));
        }
        survey
    }

    /// Which hash stands in for the name with each number, of sixteen that are evenly spread.
    fn picks(survey: &Survey) -> Vec<String> {
        let pick = |number: u64| survey.kind_of(number << 60).unwrap().hash().to_string();
        (0..16).map(pick).collect()
    }

    const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

    #[test]
    fn names_are_of_the_kinds_of_users_in_their_proportion() {
        assert!(Survey::default().kind_of(0).is_none());
        let survey = survey(&["$6$salt1$x", BCRYPT, "$6$salt2$x", "$6$salt3$x", "*", "no hash"]);
        let (sha, bcrypt): (Vec<_>, Vec<_>) =
            picks(&survey).into_iter().partition(|text| text.starts_with("$6$"));
        assert_eq!((sha.len(), bcrypt.len()), (12, 4));
        assert!(survey.kind_of(u64::MAX).is_some());
    }

    #[test]
    fn a_name_stays_of_its_kind_in_whatever_order_users_are_found() {
        let one = survey(&["$6$salt1$x", BCRYPT, "$6$salt2$x", "$6$salt3$x"]);
        let other = survey(&[BCRYPT, "$6$salt1$x", "$6$salt2$x", "$6$salt3$x"]);
        assert_eq!(picks(&one), picks(&other));
        // One user more among many changes next to nothing.
        let many = ["$6$salt$x"; 30].into_iter().chain([BCRYPT; 30]).collect::<Vec<_>>();
        let more = [&many[..], &[BCRYPT]].concat();
        let (before, after) = (picks(&survey(&many)), picks(&survey(&more)));
        assert!(before.iter().zip(&after).filter(|(one, other)| one != other).count() <= 1);
    }

    #[test]
    fn few_kinds_are_kept() {
        let mut survey = Survey::default();
        for rounds in 1000..2000 {
            survey.note(&hash(&format!("$6$rounds={rounds}$salt$x")));
        }
        assert_eq!(survey.kinds.len(), KINDS);
    }

    #[tokio::test]
    async fn contents_are_looked_through_once() {
        let surveys = Surveys::default();
        let (first, second) = (Arc::new(BCRYPT), Arc::new("$6$salt$x".to_owned()));
        let of = async |contents: &Arc<&'static str>| {
            let look = |text: &&'static str| survey(&[*text]);
            picks(&*surveys.of(TABLE, Arc::clone(contents), look).await)
        };
        assert_eq!(of(&first).await, [BCRYPT; 16]);
        let again = surveys.of(TABLE, Arc::clone(&first), |_| panic!("looked again")).await;
        assert_eq!(picks(&again), [BCRYPT; 16]);
        let changed = surveys.of(TABLE, second, |text| survey(&[text.as_str()])).await;
        assert_eq!(picks(&changed), ["$6$salt$x"; 16]);
        assert_eq!(of(&first).await, [BCRYPT; 16]);
        drop(first);
        // What comes later is never taken for what was there.
        for _ in 0..100 {
            assert_eq!(of(&Arc::new("$6$salt$x")).await, ["$6$salt$x"; 16]);
        }
    }

    #[tokio::test]
    async fn of_a_program_the_kinds_are_known_that_it_has_shown() {
        let surveys = Surveys::default();
        assert!(surveys.seen(TABLE).await.kind_of(0).is_none());
        for text in ["$6$salt1$x", "$6$salt2$x", BCRYPT, "$6$salt3$x", "*"] {
            surveys.learn(TABLE, &hash(text)).await;
        }
        let seen = surveys.seen(TABLE).await;
        // How many users are of which cannot be known.
        assert_eq!(picks(&seen).iter().filter(|text| text.starts_with("$2b$")).count(), 8);
        assert!(!seen.has_verifiers());
        let verifier = Verifier::derive(b"secret", b"saltsalt", 4096).unwrap().to_string();
        surveys.learn(TABLE, &hash(&verifier)).await;
        assert!(surveys.seen(TABLE).await.has_verifiers());
        assert!(surveys.seen(TableId(4)).await.kind_of(0).is_none());
    }
}
