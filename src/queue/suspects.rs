//! What was in flight when roles crashed, and what is in flight in case they do.
//!
//! The parent names suspects when this process begins ([`SuspectLists`]): those to be tried are
//! handed out one at a time, in the order in which the scheduler releases them; those that are held
//! are blocked in the scheduler until an administrator schedules one, and then have to take their
//! turn as well. When the attempt at a suspect has ended, the parent and the scheduler are told.
//!
//! The other way round the parent is told what is in flight: at most ten times a second, when it has
//! changed, and once more before this process leaves. Nothing is said or done for each message.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::role::{Event, Queue};
use crate::ipc::message::parent::{MAX_IN_FLIGHT_TOLD, RoleToParent, SuspectLists};
use crate::ipc::message::scheduler::QueueToScheduler;
use crate::model::EnvelopeId;

/// Pause between two reports of what is in flight.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the parent may take to note what was in flight in the end.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Suspects that wait here for their turn; more go back to the scheduler.
const WAITING: usize = 64;

/// Suspects, and whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    tried: HashSet<EnvelopeId>,
    held: HashSet<EnvelopeId>,
    /// Out for an attempt, or waiting in a hold queue for the rest of it.
    trying: Option<EnvelopeId>,
    /// Released by the scheduler, not handed out.
    waiting: VecDeque<EnvelopeId>,
    /// Those whose attempts ended in this turn of the loop.
    cleared: Vec<EnvelopeId>,
    /// A report of what is in flight is under way, or was a moment ago.
    pub(super) telling: bool,
}

/// Whether an envelope may be handed out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    /// It may.
    Now,
    /// A suspect that has to wait for another, and is kept here.
    Waits,
    /// As before, but it goes back to the scheduler.
    Back,
}

impl Suspects {
    pub(super) fn new(lists: &SuspectLists) -> Self {
        Self {
            tried: lists.tried.iter().copied().collect(),
            held: lists.held.iter().copied().collect(),
            ..Self::default()
        }
    }

    /// Whether the scheduler must not release it by itself.
    pub(super) fn is_held(&self, id: EnvelopeId) -> bool {
        self.held.contains(&id)
    }

    fn contains(&self, id: EnvelopeId) -> bool {
        self.tried.contains(&id) || self.held.contains(&id)
    }

    /// Asks for an envelope's turn.
    pub(super) fn turn(&mut self, id: EnvelopeId) -> Turn {
        if !self.contains(id) {
            return Turn::Now;
        }
        if self.trying.is_some_and(|other| other != id) {
            if self.waiting.len() >= WAITING {
                return Turn::Back;
            }
            self.waiting.push_back(id);
            return Turn::Waits;
        }
        self.trying = Some(id);
        Turn::Now
    }

    /// An envelope is back; its attempt `ended`, or was none. Answers who is next.
    fn is_back(&mut self, id: EnvelopeId, ended: bool) -> Option<EnvelopeId> {
        if self.trying == Some(id) {
            self.trying = None;
        }
        if ended && (self.tried.remove(&id) | self.held.remove(&id)) {
            self.cleared.push(id);
        }
        if self.trying.is_some() { None } else { self.waiting.pop_front() }
    }
}

impl Queue {
    /// Notes that an envelope is back from the dispatcher or gone, and gives the turn to the next
    /// suspect. `ended`: there was an attempt, and it crashed nothing.
    pub(super) fn is_back(&mut self, id: EnvelopeId, ended: bool) {
        if let Some(next) = self.suspects.is_back(id, ended) {
            self.release_by_id(next);
        }
    }

    /// Says who is no suspect any more, and what is in flight.
    pub(super) fn flush_suspects(&mut self) {
        let cleared = std::mem::take(&mut self.suspects.cleared);
        if !cleared.is_empty() {
            self.tell_scheduler(QueueToScheduler::Cleared(cleared.clone()));
            let parent = self.parent.clone();
            tokio::spawn(async move {
                let _gone = parent.notice(&RoleToParent::Cleared(cleared), None).await;
            });
        }
        if self.suspects.telling || !self.releases.take_changed() {
            return;
        }
        self.suspects.telling = true;
        let report = self.in_flight();
        let (parent, events) = (self.parent.clone(), self.events.clone());
        tokio::spawn(async move {
            // A parent that is gone takes this process with it.
            let _gone = parent.request(&report, None).await;
            tokio::time::sleep(PAUSE).await;
            let again = Event::Go(Box::new(|queue| queue.suspects.telling = false));
            let _ended = events.send(again);
        });
    }

    /// Tells the parent what was in flight in the end, and waits until it has noted that.
    pub(super) async fn last_word(&self) {
        let report = self.in_flight();
        let noted = self.parent.request(&report, None);
        // A parent that is gone, or busy, does without.
        let _late = tokio::time::timeout(LAST_WORD, noted).await;
    }

    fn in_flight(&self) -> RoleToParent {
        RoleToParent::InFlight(self.releases.ids().take(MAX_IN_FLIGHT_TOLD).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> EnvelopeId {
        EnvelopeId::new((1 << 32) | number).unwrap()
    }

    fn suspects(tried: &[u64], held: &[u64]) -> Suspects {
        let ids = |numbers: &[u64]| numbers.iter().map(|number| id(*number)).collect();
        Suspects::new(&SuspectLists { tried: ids(tried), held: ids(held) })
    }

    #[test]
    fn one_suspect_flies_at_a_time_and_others_do_not_wait_for_it() {
        let mut suspects = suspects(&[1, 2, 3], &[4]);
        assert!(suspects.is_held(id(4)) && !suspects.is_held(id(1)));
        assert_eq!(suspects.turn(id(2)), Turn::Now);
        assert_eq!(suspects.turn(id(1)), Turn::Waits);
        assert_eq!(suspects.turn(id(4)), Turn::Waits, "scheduled by an administrator");
        assert_eq!(suspects.turn(id(9)), Turn::Now);
        assert_eq!(suspects.is_back(id(9), true), None, "2 is still out");
        // From a hold queue it comes again for the rest of its turn.
        assert_eq!(suspects.turn(id(2)), Turn::Now);
        assert_eq!(suspects.is_back(id(2), true), Some(id(1)));
        assert_eq!(suspects.turn(id(1)), Turn::Now);
        assert_eq!(suspects.is_back(id(1), false), Some(id(4)), "not tried");
        assert_eq!(suspects.turn(id(4)), Turn::Now);
        assert_eq!(suspects.is_back(id(4), true), None);
        assert_eq!(suspects.cleared, [id(2), id(4)]);
        assert_eq!(suspects.turn(id(1)), Turn::Now);
        assert_eq!(suspects.turn(id(2)), Turn::Now, "cleared");
        assert_eq!(suspects.turn(id(3)), Turn::Waits);
    }

    #[test]
    fn those_that_wait_are_few() {
        let numbers: Vec<u64> = (1..=100).collect();
        let mut suspects = suspects(&numbers, &[]);
        let turns: Vec<Turn> = numbers.iter().map(|number| suspects.turn(id(*number))).collect();
        assert_eq!(turns.iter().filter(|turn| **turn == Turn::Now).count(), 1);
        assert_eq!(turns.iter().filter(|turn| **turn == Turn::Waits).count(), WAITING);
    }
}
