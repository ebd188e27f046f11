//! Who goes first when much is due, and what clocks, crashes and strangers cannot upset.

use super::*;

#[test]
fn kinds_of_work_take_turns() {
    let mut scheduler = scheduler();
    for number in 1..=15 {
        scheduler.insert(&due(number, Kind::Relay), at(0));
        scheduler.insert(&due(100 + number, Kind::Local), at(0));
        scheduler.insert(&Due { created: 1000, ..due(200 + number, Kind::Local) }, at(0));
    }
    scheduler.insert(&due(301, Kind::Relay), at(0));
    scheduler.administer(Operation::Remove, Target::Envelope(id(301)), at(0));
    let batches: Vec<(Work, usize)> = scheduler
        .poll(at(0), PLENTY)
        .iter()
        .map(|batch| (batch.work, batch.envelopes.len()))
        .collect();
    let expected = [
        (Work::Remove, 1),
        (Work::Expire, 10),
        (Work::Deliver(Kind::Local), 10),
        (Work::Deliver(Kind::Relay), 10),
        (Work::Expire, 5),
        (Work::Deliver(Kind::Local), 5),
        (Work::Deliver(Kind::Relay), 5),
    ];
    assert_eq!(batches, expected);
}

#[test]
fn nothing_is_released_beyond_credits_and_limits() {
    let settings = Settings { max_inflight: 25, max_schedule: 4, ..Settings::default() };
    let mut scheduler = Scheduler::new(settings, at(0));
    for number in 1..=50 {
        scheduler.insert(&due(number, Kind::Local), at(0));
    }
    let mut flying = Vec::new();
    for (credits, expected) in [(0, 0), (3, 3), (10, 10), (100, 12), (100, 0)] {
        let batches = scheduler.poll(at(0), credits);
        assert!(batches.iter().all(|batch| batch.envelopes.len() <= 4));
        let ids: Vec<EnvelopeId> = batches.into_iter().flat_map(|batch| batch.envelopes).collect();
        assert_eq!(ids.len(), expected, "{credits} credits");
        flying.extend(ids);
    }
    assert_eq!(wake(&mut scheduler, 0), None, "only an outcome helps");
    assert!(scheduler.ended(flying[0], End::Delivered));
    assert_eq!(wake(&mut scheduler, 0), Some(0));
    assert_eq!(released(&mut scheduler, 0).len(), 1);
}

#[test]
fn new_mail_goes_first_and_overdue_mail_at_a_bounded_rate() {
    let settings = Settings { overdue_per_second: 100, ..Settings::default() };
    let mut scheduler = Scheduler::new(settings, at(0));
    for number in 1..=400 {
        let overdue = Due { created: T0 - 50_000, retries: 2, ..due(number, Kind::Relay) };
        scheduler.insert(&overdue, at(0));
    }
    for number in 1001..=1020 {
        scheduler.insert(&due(number, Kind::Relay), at(0));
    }
    let first = released(&mut scheduler, 0);
    assert!(first[..20].iter().all(|(_, number)| *number > 1000), "{first:?}");
    assert_eq!(first.len(), 120);
    assert_eq!(scheduler.next_wake(at(0)), Some(Duration::from_millis(10)));
    assert_eq!(released(&mut scheduler, 1).len(), 100);
    assert_eq!(released(&mut scheduler, 9).len(), 100, "what is saved up is bounded");
}

#[test]
fn new_mail_without_end_leaves_overdue_mail_a_share() {
    let mut scheduler = scheduler();
    for number in 1..=100 {
        scheduler.insert(&Due { retries: 1, created: T0 - 900, ..due(number, Kind::Relay) }, at(0));
    }
    let mut overdue = 0;
    for round in 0..80 {
        for number in 0..10 {
            scheduler.insert(&due(1000 + round * 10 + number, Kind::Relay), at(0));
        }
        let batches = scheduler.poll(at(0), 10);
        overdue += batches.iter().filter(|b| b.envelopes[0] < id(1000)).count();
    }
    assert_eq!(overdue, 10, "one turn in eight");
}

#[test]
fn mail_that_was_never_tried_is_not_new_after_an_outage() {
    let mut scheduler = scheduler();
    scheduler.insert(&Due { created: T0 - 61, ..due(1, Kind::Relay) }, at(0));
    scheduler.insert(&Due { created: T0 - 60, ..due(2, Kind::Relay) }, at(0));
    let relay = Work::Deliver(Kind::Relay);
    assert_eq!(released(&mut scheduler, 0), [(relay, 2), (relay, 1)]);
}

#[test]
fn what_is_unknown_or_not_in_flight_has_no_outcome() {
    let mut scheduler = with(&due(1, Kind::Local), 0);
    let before = scheduler.statistics();
    for number in [1, 2] {
        assert!(!scheduler.ended(id(number), End::Delivered));
        assert_eq!(scheduler.temporary(id(number), at(0)), None);
        assert!(!scheduler.hold(id(number), HoldQueue(1), at(0)));
    }
    assert!(!scheduler.insert(&due(1, Kind::Relay), at(0)), "known already");
    assert_eq!(scheduler.statistics(), before);
    assert_eq!(released(&mut scheduler, 0), [(Work::Deliver(Kind::Local), 1)]);
}

#[test]
fn a_clock_that_jumps_expires_nothing_and_delays_nothing() {
    let year = 365 * 86_400;
    for jump in [year, -year] {
        let mut scheduler = with(&due(1, Kind::Relay), 0);
        assert_eq!(released(&mut scheduler, 0).len(), 1);
        assert!(scheduler.temporary(id(1), at(0)).is_some());
        let jumped = |seconds: i64| Reading { wall: (T0 + seconds + jump) * 1000, ..at(seconds) };
        // A jump forward counts for an hour at most, so the retry at 400 may come at once.
        let ids = |batches: Vec<Batch>| batches.iter().map(|b| b.work).collect::<Vec<_>>();
        assert!(scheduler.next_wake(jumped(1)).unwrap() <= Duration::from_secs(399));
        assert_eq!(ids(scheduler.poll(jumped(400), PLENTY)), [Work::Deliver(Kind::Relay)]);
    }
}

#[test]
fn hostile_times_are_borne() {
    for created in [i64::MIN, -1, 0, i64::MAX] {
        for last_bounce in [i64::MIN, i64::MAX] {
            let mut scheduler = scheduler();
            let odd = Due {
                created,
                last_bounce,
                retries: u16::MAX,
                ttl: Duration::MAX,
                ..due(1, Kind::Relay)
            };
            assert!(scheduler.insert(&odd, at(0)));
            scheduler.administer(Operation::Schedule, Target::All, at(0));
            if released(&mut scheduler, 0) == [(Work::Deliver(Kind::Relay), 1)] {
                assert!(scheduler.temporary(id(1), at(1)).is_some());
            }
            assert_eq!(list(&mut scheduler, 2).len(), 1);
            assert_eq!(scheduler.next_wake(at(2)).is_none(), scheduler.statistics().in_flight > 0);
        }
    }
}

#[test]
fn an_envelope_that_was_not_tried_is_due_again_after_a_second_and_no_failure_counts() {
    for kind in [Kind::Bounce, Kind::Local, Kind::Relay] {
        let mut scheduler = with(&due(1, kind), 0);
        assert_eq!(released(&mut scheduler, 0), [(Work::Deliver(kind), 1)]);
        assert!(scheduler.returned(id(1), at(0)));
        assert!(!scheduler.returned(id(1), at(0)), "it is not in flight any more");
        assert_eq!(released(&mut scheduler, 0), []);
        assert_eq!(released(&mut scheduler, 1), [(Work::Deliver(kind), 1)]);
        assert!(scheduler.returned(id(1), at(5 * 3600)));
        let listed: Vec<_> = scheduler.list(Target::All, None, at(5 * 3600)).collect();
        assert_eq!((listed[0].retries, listed[0].state), (0, State::Pending(1)));
        assert_eq!(scheduler.statistics().temporary, 0);
        // The first real failure counts as one, and only then is a delay said.
        assert_eq!(released(&mut scheduler, 5 * 3600 + 1), [(Work::Deliver(kind), 1)]);
        let deferred = scheduler.temporary(id(1), at(5 * 3600 + 1)).unwrap();
        assert_eq!(deferred.retries, 1);
        assert!(deferred.warn.is_some());
    }
}

#[test]
fn an_envelope_that_came_back_untried_can_be_removed_and_expires() {
    let mut scheduler = with(&due(1, Kind::Relay), 0);
    released(&mut scheduler, 0);
    assert_eq!(scheduler.administer(Operation::Remove, Target::Envelope(id(1)), at(0)), 1);
    assert!(scheduler.returned(id(1), at(0)));
    assert_eq!(released(&mut scheduler, 0), [(Work::Remove, 1)]);
    // An end that came back is repeated, after a pause as well.
    assert!(scheduler.returned(id(1), at(0)));
    assert_eq!(released(&mut scheduler, 0), []);
    assert_eq!(released(&mut scheduler, 1), [(Work::Remove, 1)]);

    let mut scheduler = with(&due(2, Kind::Relay), 0);
    released(&mut scheduler, 0);
    assert!(scheduler.returned(id(2), at(4 * 86_400)));
    assert_eq!(released(&mut scheduler, 4 * 86_400), [(Work::Expire, 2)]);
}

#[test]
fn a_suspect_runs_once_when_it_is_named_and_freely_when_it_is_cleared() {
    let kind = Kind::Relay;
    let mut scheduler = with(&due(1, kind), 0);
    assert!(scheduler.block(id(1), Block::Suspect));
    assert_eq!(released(&mut scheduler, 0), []);
    let listed: Vec<_> = scheduler.list(Target::All, None, at(0)).collect();
    assert_eq!(listed[0].blocked, Some(Block::Suspect));
    assert_eq!(scheduler.administer(Operation::Schedule, Target::All, at(1)), 0);
    assert_eq!(released(&mut scheduler, 1), []);
    let named = Target::Envelope(id(1));
    assert_eq!(scheduler.administer(Operation::Schedule, named, at(2)), 1);
    assert_eq!(released(&mut scheduler, 2), [(Work::Deliver(kind), 1)]);
    assert!(scheduler.returned(id(1), at(2)));
    assert_eq!(released(&mut scheduler, 9), [], "blocked as before");
    assert!(scheduler.unblock(id(1), Block::Suspect, at(10)));
    assert_eq!(released(&mut scheduler, 10), [(Work::Deliver(kind), 1)]);
}
