//! User look-ups: questions on their way to the helper, and who asked them.
//!
//! The helper answers one question at a time and may hang in the system's modules. If one question
//! takes too long the helper is replaced, and everyone who waited gets a failure, which is
//! temporary.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use platform::process::Pid;

/// How long a question may take, others before it included.
const LIMIT: Duration = Duration::from_secs(30);
/// Questions of one worker under way at once; a worker asks one at a time.
const OF_ONE_WORKER: usize = 4;

/// Entries of userbases that the parent is asked for at once.
const ENTRIES: u32 = 64;

/// Who asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Asker {
    /// The parent, in the request with this number.
    Parent(u32),
    /// A worker, in the request with this number.
    Worker(Pid, u32),
}

/// Questions under way.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    under_way: HashMap<u32, (Asker, Instant)>,
    next: u32,
}

impl Lookups {
    /// Notes a question asked at `now`; the number to ask the helper with. `None` if this asker
    /// has asked too much.
    pub(super) fn begin(&mut self, asker: Asker, now: Instant) -> Option<u32> {
        if let Asker::Worker(pid, _) = asker {
            let own = |(asker, _): &&(Asker, Instant)| matches!(asker, Asker::Worker(other, _) if *other == pid);
            if self.under_way.values().filter(own).count() >= OF_ONE_WORKER {
                return None;
            }
        }
        // Never that many at once: the first free number is near.
        while self.next == 0 || self.under_way.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        self.under_way.insert(self.next, (asker, now + LIMIT));
        Some(self.next)
    }

    /// Who asked the question that was answered.
    pub(super) fn end(&mut self, number: u32) -> Option<Asker> {
        self.under_way.remove(&number).map(|(asker, _)| asker)
    }

    /// When the helper has to be replaced, unless it answers.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.under_way.values().map(|(_, deadline)| *deadline).min()
    }

    /// Everyone who waits: the helper is gone.
    pub(super) fn give_up(&mut self) -> Vec<Asker> {
        self.under_way.drain().map(|(_, (asker, _))| asker).collect()
    }
}

/// Questions about entries of userbases, which the parent has answered by lookup. It always answers.
#[derive(Debug, Default)]
pub(super) struct Entries(HashMap<u32, Asker>);

impl Entries {
    /// Notes a question; the number to ask the parent with. `None` if there are too many.
    pub(super) fn begin(&mut self, asker: Asker) -> Option<u32> {
        let number = (1..=ENTRIES).find(|number| !self.0.contains_key(number))?;
        self.0.insert(number, asker);
        Some(number)
    }

    /// Who asked the question that was answered.
    pub(super) fn end(&mut self, number: u32) -> Option<Asker> {
        self.0.remove(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_find_their_askers_and_the_oldest_question_sets_the_deadline() {
        let mut lookups = Lookups::default();
        let now = Instant::now();
        let first = lookups.begin(Asker::Parent(7), now).unwrap();
        let later = now + Duration::from_secs(5);
        let second = lookups.begin(Asker::Worker(Pid(2), 1), later).unwrap();
        assert_ne!(first, second);
        assert_eq!(lookups.deadline(), Some(now + LIMIT));
        assert_eq!(lookups.end(first), Some(Asker::Parent(7)));
        assert_eq!(lookups.end(first), None);
        assert_eq!(lookups.deadline(), Some(later + LIMIT));
        assert_eq!(lookups.give_up(), [Asker::Worker(Pid(2), 1)]);
        assert_eq!(lookups.deadline(), None);
    }

    #[test]
    fn entries_of_userbases_have_their_askers_and_a_limit() {
        let mut entries = Entries::default();
        let numbers: Vec<_> =
            (0..ENTRIES).map_while(|worker| entries.begin(Asker::Worker(Pid(2), worker))).collect();
        assert_eq!(numbers.len(), ENTRIES as usize);
        assert_eq!(entries.begin(Asker::Parent(1)), None);
        assert_eq!(entries.end(numbers[3]), Some(Asker::Worker(Pid(2), 3)));
        assert_eq!(entries.end(numbers[3]), None);
        assert_eq!(entries.begin(Asker::Parent(1)), Some(numbers[3]));
    }

    #[test]
    fn one_worker_cannot_ask_without_end() {
        let mut lookups = Lookups::default();
        let now = Instant::now();
        for number in 0..OF_ONE_WORKER as u32 {
            assert!(lookups.begin(Asker::Worker(Pid(2), number), now).is_some());
        }
        assert_eq!(lookups.begin(Asker::Worker(Pid(2), 99), now), None);
        assert!(lookups.begin(Asker::Worker(Pid(3), 1), now).is_some());
        assert!(lookups.begin(Asker::Parent(1), now).is_some());
    }
}
