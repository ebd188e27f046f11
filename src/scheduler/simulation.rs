//! Months of mail, by seed: a world that does to the scheduler whatever it may do, in any order,
//! and keeps its own simple account of every envelope.
//!
//! What it checks, over all runs: nothing is lost, nothing is in flight twice, an envelope tries
//! at its times and expires exactly at the end of its lifetime, and in the end all is settled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::backoff;
use super::clock::Reading;
use super::run_queue::Scheduler;
use super::work::*;
use crate::model::EnvelopeId;

const T0: i64 = 1_795_000_000;
const RUNS: u64 = 40;
/// Seconds of new mail in a run.
const ACTIVE: i64 = 48 * 3600;

/// A sequence that its seed decides (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// What the world knows of an envelope.
struct Known {
    kind: Kind,
    created: i64,
    ttl: i64,
    retries: u16,
    /// Next try by the formula; `None` after an operation that makes it run at any time.
    due: Option<i64>,
    flying: Option<Work>,
    held: bool,
    paused: bool,
    removed: bool,
    /// Whether it could expire at its exact time ever since.
    undisturbed: bool,
}

struct World {
    chance: Chance,
    now: i64,
    scheduler: Scheduler,
    known: BTreeMap<EnvelopeId, Known>,
    /// Ends of attempts: time, envelope.
    attempts: BTreeSet<(i64, EnvelopeId)>,
    settled: u64,
    expired_exactly: u64,
}

fn reading(now: i64) -> Reading {
    Reading { monotonic: Duration::from_secs((now - T0).unsigned_abs()), wall: now * 1000 }
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            chance: Chance(seed),
            now: T0,
            scheduler: Scheduler::new(Settings::default(), reading(T0)),
            known: BTreeMap::new(),
            attempts: BTreeSet::new(),
            settled: 0,
            expired_exactly: 0,
        }
    }

    fn run(&mut self) {
        let mut next_event = self.now;
        loop {
            let active = self.now < T0 + ACTIVE;
            if active && self.now >= next_event {
                self.event();
                next_event = self.now + 1 + self.chance.below(600) as i64;
            }
            self.release();
            if !active && self.known.is_empty() {
                break;
            }
            if !active {
                self.let_go();
            }
            self.sleep(active.then_some(next_event));
            self.end_attempts();
        }
        let statistics = self.scheduler.statistics();
        assert_eq!((statistics.envelopes, statistics.in_flight, statistics.held), (0, 0, 0));
        let ends = statistics.delivered + statistics.permanent + statistics.expired;
        assert_eq!(ends + statistics.removed, self.settled);
    }

    /// Moves to the next time at which anything can happen.
    fn sleep(&mut self, event: Option<i64>) {
        let wake = self.scheduler.next_wake(reading(self.now));
        let wake = wake.map(|left| self.now + left.as_millis().div_ceil(1000) as i64);
        let outcome = self.attempts.first().map(|(at, _)| *at);
        let next = [wake, outcome, event].into_iter().flatten().min();
        self.now = next.expect("something is left, so something happens").max(self.now);
    }

    fn release(&mut self) {
        for batch in self.scheduler.poll(reading(self.now), usize::MAX) {
            for id in batch.envelopes {
                self.check_release(id, batch.work, &batch.destination);
                let length = match self.chance.below(4) {
                    0 => 0,
                    1 => 1,
                    2 => self.chance.below(30) as i64,
                    _ => self.chance.below(900) as i64,
                };
                self.attempts.insert((self.now + length, id));
            }
        }
    }

    fn check_release(&mut self, id: EnvelopeId, work: Work, destination: &str) {
        let now = self.now;
        let known = self.known.get_mut(&id).expect("it is known");
        assert_eq!(known.flying.replace(work), None, "{id} is in flight twice");
        assert!(!known.held, "{id} is held");
        match work {
            Work::Deliver(kind) => {
                assert_eq!(kind, known.kind);
                assert_eq!(destination, name(id));
                assert!(!known.removed, "{id} was removed");
                assert!(known.due.is_none_or(|due| due <= now), "{id} runs early");
                assert!(now < known.created + known.ttl || known.paused, "{id} is over");
                assert!(!known.paused || known.due.is_none(), "{id} is paused");
            }
            Work::Expire => {
                assert!(now >= known.created + known.ttl, "{id} expires early");
                if known.undisturbed {
                    assert_eq!(now, known.created + known.ttl, "{id} expires late");
                    self.expired_exactly += 1;
                }
                assert!(!known.removed && !known.paused);
            }
            Work::Remove => assert!(known.removed),
        }
        // From now on it may be in flight when its time ends.
        known.undisturbed = false;
    }

    fn end_attempts(&mut self) {
        while let Some(&(at, id)) = self.attempts.first().filter(|(at, _)| *at <= self.now) {
            self.attempts.remove(&(at, id));
            self.outcome(id);
        }
    }

    fn outcome(&mut self, id: EnvelopeId) {
        let now = reading(self.now);
        let known = self.known.get_mut(&id).expect("it is known");
        let work = known.flying.take().expect("it is in flight");
        let end = match (work, self.chance.below(20)) {
            (Work::Expire | Work::Remove, 0) => {
                let deferred = self.scheduler.temporary(id, now).expect("it is in flight");
                assert_eq!(deferred, Deferred { retries: known.retries, warn: None });
                return;
            }
            (Work::Expire, _) => End::Expired,
            (Work::Remove, _) => End::Removed,
            (Work::Deliver(_), 0) => End::Permanent,
            (Work::Deliver(_), 1) => End::Delivered,
            (Work::Deliver(_), 2) => {
                assert!(self.scheduler.hold(id, HoldQueue(self.chance.below(3)), now));
                known.held = !known.paused && !known.removed;
                known.due = None;
                return;
            }
            (Work::Deliver(kind), _) => {
                let deferred = self.scheduler.temporary(id, now).expect("it is in flight");
                known.retries += 1;
                assert_eq!(deferred.retries, known.retries);
                let base = backoff::base(kind);
                let due = backoff::next_try(known.created, base, known.retries, self.now);
                known.due = Some(due);
                known.undisturbed = self.now <= known.created + known.ttl && !known.paused;
                return;
            }
        };
        assert!(self.scheduler.ended(id, end));
        assert!(!self.scheduler.ended(id, end), "it is forgotten");
        self.known.remove(&id);
        self.settled += 1;
    }

    fn event(&mut self) {
        match self.chance.below(10) {
            0..5 => self.mail(),
            5 => self.operate(Operation::Pause),
            6 => self.operate(Operation::Resume),
            7 => self.operate(Operation::Schedule),
            8 if self.chance.one_in(4) => self.operate(Operation::Remove),
            _ => self.release_held(),
        }
    }

    /// A message with some envelopes, some of them as after a restart.
    fn mail(&mut self) {
        let message = 1 + self.chance.below(u64::from(u32::MAX));
        for low in 1..=1 + self.chance.below(12) {
            let id = EnvelopeId::new((message << 32) | low).expect("both halves are set");
            let kind = match self.chance.below(3) {
                0 => Kind::Bounce,
                1 => Kind::Local,
                _ => Kind::Relay,
            };
            let old = self.chance.one_in(5);
            let age = if old { self.chance.below(100_000) as i64 } else { 0 };
            let retries = if old { self.chance.below(12) as u16 } else { 0 };
            let ttl = 60 + self.chance.below(5 * 86_400) as i64;
            let created = self.now - age;
            let in_flight = !old && self.chance.one_in(3);
            let due = Due {
                id,
                kind,
                destination: name(id),
                created,
                ttl: Duration::from_secs(ttl.unsigned_abs()),
                retries,
                last_bounce: 0,
                in_flight,
                blocked: None,
            };
            let new = self.scheduler.insert(&due, reading(self.now));
            assert_eq!(new, !self.known.contains_key(&id));
            if !new {
                continue;
            }
            let known = Known {
                kind,
                created,
                ttl,
                retries,
                due: Some(backoff::first_try(created, backoff::base(kind), retries)),
                flying: in_flight.then_some(Work::Deliver(kind)),
                held: false,
                paused: false,
                removed: false,
                undisturbed: !in_flight && self.now <= created + ttl,
            };
            self.known.insert(id, known);
            if in_flight {
                self.attempts.insert((self.now + 2, id));
            }
        }
    }

    fn operate(&mut self, operation: Operation) {
        if self.known.is_empty() {
            return;
        }
        let some = self.chance.below(self.known.len() as u64) as usize;
        let Some(id) = self.known.keys().nth(some).copied() else { return };
        let (target, ids) = if self.chance.one_in(3) {
            let of_message = |one: &&EnvelopeId| one.message() == id.message();
            let ids = self.known.keys().filter(of_message).copied().collect();
            (Target::Message(id.message()), ids)
        } else {
            (Target::Envelope(id), vec![id])
        };
        let mut expected = 0;
        for id in ids {
            let known = self.known.get_mut(&id).expect("it was listed");
            known.undisturbed = false;
            expected += usize::from(match operation {
                Operation::Pause => !std::mem::replace(&mut known.paused, true),
                Operation::Remove => !std::mem::replace(&mut known.removed, true),
                Operation::Resume => std::mem::take(&mut known.paused),
                Operation::Schedule if known.removed || known.flying.is_some() => false,
                Operation::Schedule => {
                    known.due = None;
                    true
                }
            });
            if known.flying.is_none() && operation != Operation::Resume {
                known.held = false;
            }
        }
        let done = self.scheduler.administer(operation, target, reading(self.now));
        // What waits to be removed counts as scheduled or not by where it is.
        if operation != Operation::Schedule {
            assert_eq!(done, expected, "{operation:?} {target:?}");
        }
    }

    fn release_held(&mut self) {
        let queue = HoldQueue(self.chance.below(3));
        let release = match self.chance.below(3) {
            0 => Release::All,
            1 => Release::Failed,
            _ => Release::Some(2),
        };
        self.scheduler.release(queue, release, reading(self.now));
        let listed: Vec<Listed> =
            self.scheduler.list(Target::All, None, reading(self.now)).collect();
        assert_eq!(listed.len(), self.known.len(), "nothing is lost");
        for one in listed {
            let known = self.known.get_mut(&one.id).expect("it is known");
            assert_eq!(one.suspended, known.paused, "{}", one.id);
            assert!(!one.held || known.held, "{}", one.id);
            known.held = one.held;
            let flying = matches!(one.state, State::InFlight(_));
            assert_eq!(flying, known.flying.is_some(), "{}", one.id);
        }
    }

    /// Ends what keeps envelopes from ending.
    fn let_go(&mut self) {
        let now = reading(self.now);
        self.scheduler.administer(Operation::Resume, Target::All, now);
        for queue in 0..3 {
            self.scheduler.release(HoldQueue(queue), Release::All, now);
        }
        for known in self.known.values_mut() {
            known.undisturbed &= !known.paused && !known.held;
            known.paused = false;
            known.held = false;
        }
    }
}

fn name(id: EnvelopeId) -> &'static str {
    ["a.example", "b.example", "c.example"][id.get() as usize % 3]
}

#[test]
fn months_of_mail_lose_nothing_and_repeat_nothing() {
    let (mut hours, mut settled, mut expired) = (0, 0, 0);
    for seed in 0..RUNS {
        let mut world = World::new(seed);
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
        assert!(failed.is_ok(), "seed {seed}");
        hours += (world.now - T0) / 3600;
        settled += world.settled;
        expired += world.expired_exactly;
    }
    println!("{hours} hours, {settled} envelopes settled, {expired} expired to the second");
    assert!(hours > 4000 && settled > 50_000 && expired > 500);
}
