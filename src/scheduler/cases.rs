//! The scheduler's cases of the specification (9.2), by their numbers, on a clock moved by hand.

mod load;

use std::time::Duration;

use super::clock::Reading;
use super::run_queue::Scheduler;
use super::work::*;
use crate::model::{EnvelopeId, MessageId};

/// Wall time at which every case begins.
const T0: i64 = 1_795_000_000;
const FOUR_DAYS: Duration = Duration::from_secs(4 * 86_400);
const PLENTY: usize = 100_000;

fn id(number: u64) -> EnvelopeId {
    EnvelopeId::new((1 << 32) | number).unwrap()
}

/// Both clocks, `seconds` after the beginning.
fn at(seconds: i64) -> Reading {
    Reading {
        monotonic: Duration::from_secs(u64::try_from(seconds).unwrap()),
        wall: (T0 + seconds) * 1000,
    }
}

fn due(number: u64, kind: Kind) -> Due<'static> {
    Due {
        id: id(number),
        kind,
        destination: "example.org",
        created: T0,
        ttl: FOUR_DAYS,
        retries: 0,
        last_bounce: 0,
        in_flight: false,
        blocked: None,
    }
}

fn scheduler() -> Scheduler {
    Scheduler::new(Settings::default(), at(0))
}

/// A scheduler that knows one envelope.
fn with(due: &Due<'_>, now: i64) -> Scheduler {
    let mut scheduler = Scheduler::new(Settings::default(), at(now));
    assert!(scheduler.insert(due, at(now)));
    scheduler
}

/// What is released at `now`, one line an envelope.
fn released(scheduler: &mut Scheduler, now: i64) -> Vec<(Work, u64)> {
    let batches = scheduler.poll(at(now), PLENTY);
    batches
        .iter()
        .flat_map(|batch| batch.envelopes.iter().map(|id| (batch.work, id.get() & 0xffff_ffff)))
        .collect()
}

/// Seconds until the scheduler wants to be woken.
fn wake(scheduler: &mut Scheduler, now: i64) -> Option<u64> {
    scheduler.next_wake(at(now)).map(|left| left.as_secs())
}

/// Lets every attempt last `length` and fail; the times of the first attempts.
fn failing_attempts(scheduler: &mut Scheduler, length: i64, count: usize) -> Vec<i64> {
    let mut now = 0;
    let mut times = Vec::new();
    while times.len() < count {
        now += i64::try_from(wake(scheduler, now).unwrap()).unwrap();
        for (work, number) in released(scheduler, now) {
            assert!(matches!(work, Work::Deliver(_)), "{work:?} at {now}");
            times.push(now);
            now += length;
            assert!(scheduler.temporary(id(number), at(now)).is_some());
        }
    }
    times
}

// Cases 35, 36, 37.
#[test]
fn attempts_follow_the_kind_and_the_creation_time() {
    let cases: [(&str, Kind, i64, &[i64]); 4] = [
        ("case 35", Kind::Relay, 0, &[0, 400, 1600, 3600, 6400, 10_000, 14_400]),
        ("case 36", Kind::Local, 0, &[0, 10, 40, 90, 160, 250]),
        ("reports", Kind::Bounce, 0, &[0, 10, 40, 90, 160, 250]),
        ("case 37", Kind::Relay, 500, &[0, 1600, 3600]),
    ];
    for (name, kind, length, expected) in cases {
        let mut scheduler = with(&due(1, kind), 0);
        assert_eq!(failing_attempts(&mut scheduler, length, expected.len()), expected, "{name}");
    }
}

// Case 38.
#[test]
fn a_run_that_was_asked_for_counts_as_an_attempt() {
    let mut scheduler = with(&due(1, Kind::Local), 0);
    assert_eq!(failing_attempts(&mut scheduler, 0, 1), [0]);
    assert_eq!(released(&mut scheduler, 2), []);
    assert_eq!(scheduler.administer(Operation::Schedule, Target::Envelope(id(1)), at(2)), 1);
    assert_eq!(released(&mut scheduler, 2), [(Work::Deliver(Kind::Local), 1)]);
    let deferred = scheduler.temporary(id(1), at(2)).unwrap();
    assert_eq!(deferred.retries, 2);
    assert_eq!(wake(&mut scheduler, 2), Some(38), "at 40");
}

// Cases 39, 40, 42.
#[test]
fn after_a_restart_times_follow_what_is_stored() {
    let retried = Due { retries: 4, ..due(1, Kind::Relay) };
    let mut scheduler = with(&retried, 5000);
    assert_eq!(released(&mut scheduler, 5000), [], "case 39");
    assert_eq!(wake(&mut scheduler, 5000), Some(1400), "case 39: at 6400");

    let mut scheduler = with(&retried, 7000);
    assert_eq!(released(&mut scheduler, 7000), [(Work::Deliver(Kind::Relay), 1)], "case 40");

    let mut scheduler = with(&Due { created: 1000, ..due(1, Kind::Relay) }, 0);
    assert_eq!(wake(&mut scheduler, 0), Some(0));
    assert_eq!(released(&mut scheduler, 0), [(Work::Expire, 1)], "case 42");
}

// Case 41.
#[test]
fn an_envelope_expires_at_the_end_of_its_lifetime_and_not_before() {
    let hour = Due { ttl: Duration::from_secs(3600), ..due(1, Kind::Relay) };
    let mut scheduler = with(&hour, 0);
    assert_eq!(failing_attempts(&mut scheduler, 0, 3), [0, 400, 1600]);
    assert_eq!(wake(&mut scheduler, 1600), Some(2000));
    assert_eq!(released(&mut scheduler, 3599), []);
    assert_eq!(released(&mut scheduler, 3600), [(Work::Expire, 1)]);
    assert!(scheduler.ended(id(1), End::Expired));
    let statistics = scheduler.statistics();
    assert_eq!((statistics.expired, statistics.envelopes, statistics.in_flight), (1, 0, 0));
}

#[test]
fn what_is_ready_but_never_served_expires_in_time() {
    let hour = Due { ttl: Duration::from_secs(3600), ..due(1, Kind::Relay) };
    let mut scheduler = with(&hour, 0);
    assert!(scheduler.pause(Kind::Relay));
    assert_eq!(released(&mut scheduler, 10), []);
    assert_eq!(wake(&mut scheduler, 10), Some(3590));
    assert_eq!(released(&mut scheduler, 3600), [(Work::Expire, 1)]);
}

#[test]
fn an_end_that_could_not_be_written_down_is_repeated() {
    let mut scheduler = with(&Due { created: 1000, ..due(1, Kind::Relay) }, 0);
    scheduler.insert(&due(2, Kind::Relay), at(0));
    scheduler.administer(Operation::Remove, Target::Envelope(id(2)), at(0));
    for now in [0, 10, 20] {
        assert_eq!(released(&mut scheduler, now), [(Work::Remove, 2), (Work::Expire, 1)]);
        for number in [1, 2] {
            let deferred = scheduler.temporary(id(number), at(now)).unwrap();
            assert_eq!(deferred, Deferred { retries: 0, warn: None });
        }
        assert_eq!(wake(&mut scheduler, now), Some(10));
        assert_eq!(scheduler.administer(Operation::Schedule, Target::Envelope(id(2)), at(now)), 0);
    }
}

// Case 43.
#[test]
fn a_paused_envelope_expires_when_it_is_resumed() {
    let hour = Due { ttl: Duration::from_secs(3600), ..due(1, Kind::Relay) };
    let mut scheduler = with(&hour, 0);
    assert_eq!(scheduler.administer(Operation::Pause, Target::All, at(0)), 1);
    assert_eq!(wake(&mut scheduler, 0), None);
    assert_eq!(released(&mut scheduler, 5000), []);
    assert_eq!(scheduler.administer(Operation::Resume, Target::All, at(5000)), 1);
    assert_eq!(released(&mut scheduler, 5000), [(Work::Expire, 1)]);
}

// Cases 44, 45.
#[test]
fn senders_are_warned_once_an_interval() {
    let seconds = Duration::from_secs;
    let hours4 = seconds(4 * 3600);
    // Intervals, and the times of the failures that warn.
    type Case = (&'static str, Kind, Vec<Duration>, Vec<(i64, Duration)>);
    let cases: [Case; 3] = [
        ("case 44", Kind::Relay, vec![hours4], vec![(10_000, hours4)]),
        (
            "case 45",
            Kind::Local,
            vec![seconds(1), seconds(30)],
            vec![(0, seconds(1)), (10, seconds(30))],
        ),
        ("local, default", Kind::Local, vec![hours4], vec![(13_690, hours4)]),
    ];
    for (name, kind, warn_intervals, expected) in cases {
        let settings = Settings { warn_intervals, ..Settings::default() };
        let mut scheduler = Scheduler::new(settings, at(0));
        scheduler.insert(&due(1, kind), at(0));
        let mut warnings = Vec::new();
        let mut now = 0;
        while now < 20_000 {
            now += i64::try_from(wake(&mut scheduler, now).unwrap()).unwrap();
            assert_eq!(released(&mut scheduler, now), [(Work::Deliver(kind), 1)]);
            let deferred = scheduler.temporary(id(1), at(now)).unwrap();
            warnings.extend(deferred.warn.map(|delay| (now, delay)));
        }
        assert_eq!(warnings, expected, "{name}");
    }
}

#[test]
fn a_warning_is_not_repeated_after_a_restart() {
    let warned = |last_bounce| Due { retries: 6, last_bounce, ..due(1, Kind::Relay) };
    for (last_bounce, expected) in [(0, true), (T0 + 4 * 3600, false)] {
        let mut scheduler = with(&warned(last_bounce), 14_400);
        assert_eq!(released(&mut scheduler, 14_400).len(), 1);
        let deferred = scheduler.temporary(id(1), at(14_400)).unwrap();
        assert_eq!(deferred.warn.is_some(), expected, "{last_bounce}");
    }
}

fn list(scheduler: &mut Scheduler, now: i64) -> Vec<Listed> {
    scheduler.list(Target::All, None, at(now)).collect()
}

// The scheduler's part of cases 47, 48, 173.
#[test]
fn held_envelopes_wait_for_their_relay_the_last_first() {
    let mut scheduler = scheduler();
    for number in 1..=20 {
        scheduler.insert(&Due { in_flight: true, ..due(number, Kind::Relay) }, at(0));
    }
    for number in 1..=20 {
        assert!(scheduler.hold(id(number), HoldQueue(9), at(5)));
    }
    assert!(!scheduler.hold(id(1), HoldQueue(9), at(5)), "it is no longer in flight");
    assert_eq!(released(&mut scheduler, 600), []);
    let listed = list(&mut scheduler, 600);
    assert!(listed.iter().all(|one| one.held && one.state == State::Pending(-600)));

    assert_eq!(scheduler.release(HoldQueue(9), Release::Some(2), at(601)), 2);
    let relay = Work::Deliver(Kind::Relay);
    assert_eq!(released(&mut scheduler, 601), [(relay, 20), (relay, 19)]);

    let held = |scheduler: &Scheduler| {
        let statistics = scheduler.statistics();
        (statistics.held, statistics.hold_queues)
    };
    assert_eq!(held(&scheduler), (18, 1));
    assert_eq!(scheduler.release(HoldQueue(9), Release::Failed, at(601)), 18);
    assert_eq!(held(&scheduler), (0, 0));
    assert_eq!(released(&mut scheduler, 601), []);
    assert_eq!(wake(&mut scheduler, 601), Some(999), "at 1600, from the first try on");
    assert_eq!(scheduler.release(HoldQueue(9), Release::All, at(601)), 0);
}

// Case 49.
#[test]
fn a_full_hold_queue_sends_envelopes_away_for_a_short_while() {
    let mut scheduler = scheduler();
    for number in 1..=1001 {
        scheduler.insert(&Due { in_flight: true, ..due(number, Kind::Relay) }, at(0));
    }
    for number in 1..=1001 {
        assert!(scheduler.hold(id(number), HoldQueue(1), at(10)));
    }
    assert_eq!(scheduler.statistics().hold_overflow, 1);
    assert_eq!(scheduler.statistics().held, 1000);
    assert_eq!(wake(&mut scheduler, 10), Some(2), "3 × 2² = 12");
    assert_eq!(released(&mut scheduler, 12), [(Work::Deliver(Kind::Relay), 1001)]);
}

#[test]
fn an_envelope_does_not_expire_while_it_is_held() {
    let short = Due { ttl: Duration::from_secs(60), in_flight: true, ..due(1, Kind::Local) };
    let mut scheduler = with(&short, 0);
    scheduler.hold(id(1), HoldQueue(1), at(0));
    assert_eq!(wake(&mut scheduler, 0), None);
    assert_eq!(released(&mut scheduler, 100), []);
    scheduler.release(HoldQueue(1), Release::Some(1), at(100));
    assert_eq!(released(&mut scheduler, 100), [(Work::Expire, 1)]);
}

// Cases 50, 51.
#[test]
fn removal_of_an_envelope_in_flight_takes_effect_if_it_comes_back() {
    let flying = Due { in_flight: true, ..due(1, Kind::Relay) };
    let remove = |scheduler: &mut Scheduler| {
        scheduler.administer(Operation::Remove, Target::Envelope(id(1)), at(1))
    };
    let mut scheduler = with(&flying, 0);
    assert_eq!(remove(&mut scheduler), 1);
    assert_eq!(remove(&mut scheduler), 0, "marked already");
    assert!(scheduler.ended(id(1), End::Delivered), "case 50");
    let statistics = scheduler.statistics();
    assert_eq!((statistics.delivered, statistics.removed, statistics.envelopes), (1, 0, 0));

    for back in ["failed", "held"] {
        let mut scheduler = with(&flying, 0);
        assert_eq!(remove(&mut scheduler), 1);
        if back == "failed" {
            let deferred = scheduler.temporary(id(1), at(20_000)).unwrap();
            assert_eq!(deferred.warn, None, "case 51: no report");
        } else {
            assert!(scheduler.hold(id(1), HoldQueue(1), at(20_000)));
        }
        assert_eq!(released(&mut scheduler, 20_000), [(Work::Remove, 1)], "case 51: {back}");
        assert!(scheduler.ended(id(1), End::Removed));
        assert_eq!(scheduler.statistics().removed, 1);
    }
}

// Case 52.
#[test]
fn a_paused_envelope_that_is_scheduled_runs_once() {
    let mut scheduler = with(&due(1, Kind::Local), 0);
    let one = Target::Envelope(id(1));
    assert_eq!(scheduler.administer(Operation::Pause, one, at(0)), 1);
    assert_eq!(scheduler.administer(Operation::Pause, one, at(0)), 0);
    assert_eq!(scheduler.administer(Operation::Schedule, one, at(0)), 1);
    assert_eq!(released(&mut scheduler, 0), [(Work::Deliver(Kind::Local), 1)]);
    assert!(scheduler.temporary(id(1), at(1)).is_some());
    assert_eq!(released(&mut scheduler, 5000), []);
    assert!(list(&mut scheduler, 5000)[0].suspended);
    assert_eq!(scheduler.administer(Operation::Resume, one, at(5000)), 1);
    assert_eq!(released(&mut scheduler, 5000), [(Work::Deliver(Kind::Local), 1)]);
}

// Case 53, and the first half of 55.
#[test]
fn a_paused_kind_waits_and_the_other_goes_on() {
    let mut scheduler = scheduler();
    assert!(scheduler.pause(Kind::Relay));
    assert!(!scheduler.pause(Kind::Relay), "paused already");
    scheduler.insert(&due(1, Kind::Relay), at(0));
    scheduler.insert(&due(2, Kind::Local), at(0));
    assert_eq!(released(&mut scheduler, 0), [(Work::Deliver(Kind::Local), 2)]);
    assert_eq!(list(&mut scheduler, 3)[0].state, State::Pending(-3));
    assert!(scheduler.is_paused(Kind::Relay) && !scheduler.is_paused(Kind::Local));
    assert!(scheduler.resume(Kind::Relay));
    assert!(!scheduler.resume(Kind::Relay), "not paused");
    assert_eq!(released(&mut scheduler, 3), [(Work::Deliver(Kind::Relay), 1)]);
}

/// The table of section 2.7: what each operation answers, and where the envelope is then.
#[test]
fn operations_answer_by_the_place_of_the_envelope() {
    use Operation::{Pause, Remove, Resume, Schedule};
    // Makes envelope 1 be in the place.
    let place = |name: &str| {
        let mut scheduler = scheduler();
        let one = due(1, Kind::Relay);
        match name {
            "pending" => {
                scheduler.insert(&Due { retries: 3, ..one }, at(0));
            }
            "scheduled" => {
                scheduler.insert(&one, at(0));
            }
            "held" => {
                scheduler.insert(&Due { in_flight: true, ..one }, at(0));
                scheduler.hold(id(1), HoldQueue(1), at(0));
            }
            "in flight" => {
                scheduler.insert(&Due { in_flight: true, ..one }, at(0));
            }
            "suspended" => {
                scheduler.insert(&Due { blocked: Some(Block::Administrator), ..one }, at(0));
            }
            _ => {}
        }
        scheduler
    };
    let run = [(Work::Deliver(Kind::Relay), 1)];
    let gone = [(Work::Remove, 1)];
    type Case<'a> = (&'a str, Operation, usize, &'a [(Work, u64)]);
    let cases: [Case; 24] = [
        ("pending", Schedule, 1, &run),
        ("scheduled", Schedule, 1, &run),
        ("held", Schedule, 1, &run),
        ("in flight", Schedule, 0, &[]),
        ("suspended", Schedule, 1, &run),
        ("unknown", Schedule, 0, &[]),
        ("pending", Remove, 1, &gone),
        ("scheduled", Remove, 1, &gone),
        ("held", Remove, 1, &gone),
        ("in flight", Remove, 1, &[]),
        ("suspended", Remove, 1, &gone),
        ("unknown", Remove, 0, &[]),
        ("pending", Pause, 1, &[]),
        ("scheduled", Pause, 1, &[]),
        ("held", Pause, 1, &[]),
        ("in flight", Pause, 1, &[]),
        ("suspended", Pause, 0, &[]),
        ("unknown", Pause, 0, &[]),
        ("pending", Resume, 0, &[]),
        ("scheduled", Resume, 0, &run),
        ("held", Resume, 0, &[]),
        ("in flight", Resume, 0, &[]),
        ("suspended", Resume, 1, &run),
        ("unknown", Resume, 0, &[]),
    ];
    for (name, operation, done, expected) in cases {
        for target in [Target::Envelope(id(1)), Target::Message(id(1).message()), Target::All] {
            let mut scheduler = place(name);
            assert_eq!(
                scheduler.administer(operation, target, at(1)),
                done,
                "{name} {operation:?}"
            );
            assert_eq!(released(&mut scheduler, 1), expected, "{name} {operation:?}");
            if operation == Pause {
                let listed = list(&mut scheduler, 1);
                assert!(listed.iter().all(|one| one.suspended && !one.held), "{name}");
                scheduler.release(HoldQueue(1), Release::All, at(1));
                assert_eq!(released(&mut scheduler, 100_000), [], "{name} stays paused");
            }
        }
    }
}

#[test]
fn a_message_is_all_its_envelopes_and_no_others() {
    let mut scheduler = scheduler();
    let messages = [1_u64, 2, 2, 3];
    for (low, message) in messages.into_iter().enumerate() {
        let number = EnvelopeId::new((message << 32) | (low as u64 + 1)).unwrap();
        scheduler.insert(&Due { id: number, ..due(1, Kind::Local) }, at(0));
    }
    let second = Target::Message(MessageId::new(2).unwrap());
    assert_eq!(scheduler.administer(Operation::Pause, second, at(0)), 2);
    let texts = |listed: Vec<Listed>| -> Vec<String> {
        listed.iter().map(|one| format!("{} {}", one.id, one.suspended)).collect()
    };
    let all = texts(list(&mut scheduler, 0));
    let expected = [
        "0000000100000001 false",
        "0000000200000002 true",
        "0000000200000003 true",
        "0000000300000004 false",
    ];
    assert_eq!(all, expected);

    // Paging: every start gives the rest of its target.
    for (at_most, after) in (0..=4_usize).map(|n| (n, n.checked_sub(1))) {
        let after = after.and_then(|n| all.get(n)).map(|line| line[..16].parse().unwrap());
        let rest = texts(scheduler.list(Target::All, after, at(0)).collect());
        assert_eq!(rest, expected[at_most..], "after {after:?}");
    }
    for (after, expected) in
        [(1 << 32 | 1, 2), (2 << 32 | 2, 1), (2 << 32 | 3, 0), (3 << 32 | 9, 0)]
    {
        let listed = scheduler.list(second, EnvelopeId::new(after), at(0)).count();
        assert_eq!(listed, expected, "after {after:x}");
    }
}

#[test]
fn an_envelope_without_action_waits_for_it() {
    for block in [Block::NoAction, Block::OtherAction] {
        let mut scheduler = with(&Due { blocked: Some(block), ..due(1, Kind::Local) }, 0);
        assert_eq!(list(&mut scheduler, 0)[0].blocked, Some(block));
        let scheduled = scheduler.administer(Operation::Schedule, Target::Envelope(id(1)), at(0));
        assert_eq!(scheduled, 0, "{block:?}");
    }
    let mut scheduler = with(&Due { blocked: Some(Block::NoAction), ..due(1, Kind::Local) }, 0);
    assert_eq!(released(&mut scheduler, 0), []);
    assert_eq!(list(&mut scheduler, 0)[0].blocked, Some(Block::NoAction));
    assert_eq!(scheduler.administer(Operation::Schedule, Target::All, at(0)), 0);
    assert_eq!(scheduler.administer(Operation::Resume, Target::All, at(0)), 0);
    assert!(scheduler.block(id(1), Block::Suspect));
    assert!(scheduler.unblock(id(1), Block::NoAction, at(0)));
    assert!(!scheduler.unblock(id(1), Block::NoAction, at(0)));
    assert_eq!(released(&mut scheduler, 0), [], "one reason is left");
    assert!(scheduler.unblock(id(1), Block::Suspect, at(0)));
    assert_eq!(released(&mut scheduler, 0), [(Work::Deliver(Kind::Local), 1)]);
    assert!(!scheduler.block(id(2), Block::Suspect), "unknown");
}
