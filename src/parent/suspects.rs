//! Which envelopes may be what takes the set of roles down.
//!
//! The queue tells what is in flight; this remembers it over crashes. What was in flight in two
//! crashes in a row is a suspect: the next queue tries suspects one at a time. A suspect that was
//! alone, of all suspects, in flight in a further crash is held until an administrator schedules or
//! removes it. An attempt that ends, however it ends, clears its envelope.
//!
//! Only values: no clock, no process, no envelope is touched here. Nothing outlives the parent:
//! after a restart of the daemon suspicion begins anew.
//!
//! Sources: the design, section 1; `docs/decisions/0002-suspects.md`.
//! Limits: [`MAX_IN_FLIGHT_TOLD`] ids in flight, as many suspects, [`MAX_HELD`] held.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ipc::message::parent::{MAX_IN_FLIGHT_TOLD, SuspectLists};
use crate::model::EnvelopeId;

/// A set that served this long is no part of a row of crashes.
const STABLE: Duration = Duration::from_secs(600);
/// Envelopes held at most; each took a crash of its own.
const MAX_HELD: usize = 1000;

/// What is known about envelopes in flight and crashes.
#[derive(Clone, Debug, Default)]
pub struct Suspects {
    /// In flight now, as far as the queue has told.
    in_flight: BTreeSet<EnvelopeId>,
    /// In flight in the last crash.
    last: BTreeSet<EnvelopeId>,
    /// To be tried one at a time.
    tried: BTreeSet<EnvelopeId>,
    /// Not to be tried.
    held: BTreeSet<EnvelopeId>,
}

impl Suspects {
    /// The queue tells what is in flight, in the place of what it told before.
    pub fn in_flight(&mut self, ids: Vec<EnvelopeId>) {
        self.in_flight = ids.into_iter().take(MAX_IN_FLIGHT_TOLD).collect();
    }

    /// Attempts at these envelopes have ended, and nothing crashed.
    pub fn cleared(&mut self, ids: &[EnvelopeId]) {
        for id in ids {
            self.tried.remove(id);
            self.held.remove(id);
        }
    }

    /// The dispatcher or the queue ended unasked after it served for `served`. Answers which
    /// envelope is held from now on, if this crash says that of one.
    pub fn crashed(&mut self, served: Duration) -> Option<EnvelopeId> {
        if served >= STABLE {
            self.last.clear();
            self.tried.clear();
        }
        let in_flight = std::mem::take(&mut self.in_flight);
        let mut flying = in_flight.iter().filter(|id| self.is_suspect(**id));
        let alone = match (flying.next(), flying.next()) {
            (Some(id), None) => Some(*id),
            _ => None,
        };
        let before = std::mem::replace(&mut self.last, in_flight);
        let Some(id) = alone else {
            let again = self.last.intersection(&before).filter(|id| !self.held.contains(id));
            let room = MAX_IN_FLIGHT_TOLD.saturating_sub(self.tried.len());
            self.tried.extend(again.take(room));
            return None;
        };
        // It explains this crash: those that flew with it are not suspected for it.
        self.last.remove(&id);
        if self.held.len() >= MAX_HELD && !self.held.contains(&id) {
            return None;
        }
        self.tried.remove(&id);
        self.held.insert(id);
        Some(id)
    }

    /// What the next queue is told.
    #[must_use]
    pub fn lists(&self) -> SuspectLists {
        SuspectLists {
            tried: self.tried.iter().copied().collect(),
            held: self.held.iter().copied().collect(),
        }
    }

    fn is_suspect(&self, id: EnvelopeId) -> bool {
        self.tried.contains(&id) || self.held.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn id(number: u64) -> EnvelopeId {
        EnvelopeId::new((1 << 32) | number).unwrap()
    }

    fn ids(numbers: &[u64]) -> Vec<EnvelopeId> {
        numbers.iter().map(|number| id(*number)).collect()
    }

    /// What happens, in order.
    enum Step {
        /// A crash with these in flight after so long; which one is held for it.
        Crash(&'static [u64], Duration, Option<u64>),
        /// Attempts end.
        Cleared(&'static [u64]),
    }
    use Step::{Cleared, Crash};

    /// A name, what happens, who is tried one at a time and who is held in the end.
    type Case = (&'static str, &'static [Step], &'static [u64], &'static [u64]);

    #[test]
    fn suspicion_needs_two_crashes_in_a_row_and_a_hold_a_third_alone() {
        let cases: &[Case] = &[
            ("one crash says nothing", &[Crash(&[1, 2], SOON, None)], &[], &[]),
            (
                "in flight in both is suspect",
                &[Crash(&[1, 2, 3], SOON, None), Crash(&[2, 3, 4], SOON, None)],
                &[2, 3],
                &[],
            ),
            (
                "in flight in two crashes with one between is not",
                &[Crash(&[1], SOON, None), Crash(&[2], SOON, None), Crash(&[1], SOON, None)],
                &[],
                &[],
            ),
            (
                "alone at the third it is held, and the others stay suspects",
                &[
                    Crash(&[1, 2], SOON, None),
                    Crash(&[1, 2], SOON, None),
                    Crash(&[2], SOON, Some(2)),
                ],
                &[1],
                &[2],
            ),
            (
                "alone of the suspects counts, whatever else flies",
                &[
                    Crash(&[1], SOON, None),
                    Crash(&[1], SOON, None),
                    Crash(&[1, 8, 9], SOON, Some(1)),
                ],
                &[],
                &[1],
            ),
            (
                "two suspects in flight hold none",
                &[
                    Crash(&[1, 2], SOON, None),
                    Crash(&[1, 2], SOON, None),
                    Crash(&[1, 2], SOON, None),
                ],
                &[1, 2],
                &[],
            ),
            (
                "a crash without a suspect in flight holds none",
                &[
                    Crash(&[1], SOON, None),
                    Crash(&[1], SOON, None),
                    Crash(&[7], SOON, None),
                    Crash(&[], SOON, None),
                ],
                &[1],
                &[],
            ),
            (
                "an attempt that ends clears",
                &[Crash(&[1, 2], SOON, None), Crash(&[1, 2], SOON, None), Cleared(&[1])],
                &[2],
                &[],
            ),
            (
                "what flew with the one that is held is not suspected for that crash",
                &[
                    Crash(&[1], SOON, None),
                    Crash(&[1, 5], SOON, None),
                    Crash(&[1, 5], SOON, Some(1)),
                ],
                &[],
                &[1],
            ),
            (
                "but is for the next",
                &[
                    Crash(&[1], SOON, None),
                    Crash(&[1, 5], SOON, None),
                    Crash(&[1, 5], SOON, Some(1)),
                    Crash(&[5], SOON, None),
                    Crash(&[5], SOON, Some(5)),
                ],
                &[],
                &[1, 5],
            ),
            (
                "ten minutes of service end the row",
                &[Crash(&[1], SOON, None), Crash(&[1], STABLE, None)],
                &[],
                &[],
            ),
            (
                "and suspicion, but no hold",
                &[
                    Crash(&[1, 2], SOON, None),
                    Crash(&[1, 2], SOON, None),
                    Crash(&[1], SOON, Some(1)),
                    Crash(&[2], STABLE, None),
                ],
                &[],
                &[1],
            ),
            (
                "the crash after the ten minutes begins a row",
                &[Crash(&[1], SOON, None), Crash(&[1], STABLE, None), Crash(&[1], SOON, None)],
                &[1],
                &[],
            ),
            (
                "what an administrator schedules and crashes again is held again",
                &[
                    Crash(&[1], SOON, None),
                    Crash(&[1], SOON, None),
                    Crash(&[1], SOON, Some(1)),
                    Crash(&[1], STABLE, Some(1)),
                ],
                &[],
                &[1],
            ),
            (
                "and is free when its attempt ends",
                &[
                    Crash(&[1], SOON, None),
                    Crash(&[1], SOON, None),
                    Crash(&[1], SOON, Some(1)),
                    Cleared(&[1]),
                ],
                &[],
                &[],
            ),
        ];
        for (name, steps, tried, held) in cases {
            let mut suspects = Suspects::default();
            for (number, step) in steps.iter().enumerate() {
                match step {
                    Crash(in_flight, served, expected) => {
                        suspects.in_flight(ids(in_flight));
                        let found = suspects.crashed(*served);
                        assert_eq!(found, expected.map(id), "{name}: step {number}");
                    }
                    Cleared(numbers) => suspects.cleared(&ids(numbers)),
                }
            }
            let expected = SuspectLists { tried: ids(tried), held: ids(held) };
            assert_eq!(suspects.lists(), expected, "{name}");
        }
    }

    #[test]
    fn what_a_queue_told_counts_for_one_crash_alone() {
        let mut suspects = Suspects::default();
        suspects.in_flight(ids(&[1]));
        suspects.crashed(SOON);
        suspects.crashed(SOON);
        assert_eq!(suspects.lists(), SuspectLists::default());
    }

    #[test]
    fn memory_is_bounded_whatever_is_told() {
        let mut suspects = Suspects::default();
        for round in 0..3 {
            let first = round * 10_000 + 1;
            let many: Vec<_> = (first..first + 9_000).map(id).collect();
            for _ in 0..2 {
                suspects.in_flight(many.clone());
                suspects.crashed(SOON);
            }
        }
        assert_eq!(suspects.lists().tried.len(), MAX_IN_FLIGHT_TOLD);
    }
}
