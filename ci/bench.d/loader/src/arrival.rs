//! What arrived: each number once, twice, damaged, or not.

use std::time::SystemTime;

use crate::message::Found;

/// Counts what turns up at a destination.
#[derive(Debug)]
pub struct Arrivals {
    /// How often each number came.
    times: Vec<u8>,
    /// Messages of the run, whole or not.
    pub total: usize,
    damaged: usize,
    /// When the last one came.
    pub last: Option<SystemTime>,
}

/// The account after a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Account {
    /// Accepted, but not there.
    pub lost: usize,
    /// There more than once.
    pub duplicate: usize,
    /// There, but not as sent.
    pub damaged: usize,
}

impl Arrivals {
    /// For a run of `messages` messages, each to `1` destination.
    pub fn new(messages: usize) -> Self {
        Self { times: vec![0; messages], total: 0, damaged: 0, last: None }
    }

    /// Notes one message that came at `when`.
    pub fn note(&mut self, found: Found, when: SystemTime) {
        match found {
            Found::Foreign => return,
            Found::Damaged => self.damaged += 1,
            Found::Whole(number) => match self.times.get_mut(number) {
                Some(times) => *times = times.saturating_add(1),
                None => self.damaged += 1,
            },
        }
        self.total += 1;
        self.last = self.last.max(Some(when));
    }

    /// Compares with what was accepted.
    pub fn account(&self, accepted: &[bool]) -> Account {
        let missing = self.times.iter().zip(accepted).filter(|(times, yes)| **yes && **times == 0);
        Account {
            // A damaged message is not lost as well.
            lost: missing.count().saturating_sub(self.damaged),
            duplicate: self.times.iter().filter(|times| **times > 1).count(),
            damaged: self.damaged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_accounted_for() {
        let mut arrivals = Arrivals::new(5);
        let found = [
            Found::Whole(0),
            Found::Whole(1),
            Found::Whole(1),
            Found::Damaged,
            Found::Foreign,
            Found::Whole(4),
        ];
        for found in found {
            arrivals.note(found, SystemTime::UNIX_EPOCH);
        }
        let account = arrivals.account(&[true, true, true, true, false]);
        assert_eq!(account, Account { lost: 1, duplicate: 1, damaged: 1 });
        assert_eq!(arrivals.total, 5);
    }
}
