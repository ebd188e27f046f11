//! Tests of single rules of the spool: a full disk, a failing one, damage, space, memory, start.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use platform::dir::Access;

use super::disk::{Disk, Folder};
use super::engine::{Log, Options, lock};
use super::keeper::perform;
use super::op::{Answer, LogBody, Op};
use super::sim::{Fault, SimDisk};
use super::state::State;
use crate::model::id::{EnvelopeId, MessageId};
use crate::queue::store::{Event, Health, NewEnvelope, StoreError};

const OPTIONS: Options =
    Options { smallest_segment: 16 << 10, largest_segment: 32 << 10, free_percent: 5 };

/// A log on a simulated disk whose jobs are done at once.
struct Bench {
    disk: SimDisk,
    log: Log,
    queue: VecDeque<Op>,
    answers: Arc<Mutex<Vec<Result<(), StoreError>>>>,
    events: Vec<Event>,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::open(SimDisk::new())
    }

    fn open(disk: SimDisk) -> Self {
        Self::with(disk, OPTIONS)
    }

    fn with(disk: SimDisk, options: Options) -> Self {
        let mut number = u128::from(disk.calls()) << 32;
        let entropy = Box::new(move || {
            number += 1;
            number
        });
        let state = Arc::new(Mutex::new(State::new()));
        let mut log = Log::open(Arc::new(disk.clone()), options, entropy, state).unwrap();
        let events = log.take_events();
        let now = Instant::now();
        let mut bench =
            Self { disk, log, queue: VecDeque::new(), answers: Arc::default(), events, now };
        bench.run();
        bench
    }

    /// Does everything that can be done without the clock.
    fn run(&mut self) {
        for _ in 0..200 {
            while self.log.write(&mut self.queue, self.now) {}
            if self.log.can_clean() {
                self.log.clean_step();
            }
            self.log.maintain();
            let jobs = self.log.take_jobs();
            self.events.extend(self.log.take_events());
            if jobs.is_empty() && !self.log.can_clean() {
                break;
            }
            for job in jobs {
                self.log.report(perform(&self.disk, job));
            }
        }
    }

    fn tick(&mut self) {
        self.now += Duration::from_secs(1);
        self.log.tick(self.now);
        self.run();
    }

    fn send(&mut self, number: u32, body: usize) -> EnvelopeId {
        let message = MessageId::new(number).unwrap();
        let id = message.envelope(NonZeroU32::MIN);
        let answers = Arc::clone(&self.answers);
        self.queue.push_back(Op::Commit {
            message,
            body: LogBody::Inline(vec![b'b'; body]),
            envelopes: vec![NewEnvelope { id, payload: vec![b'e'; 40] }],
            deadline: self.now + Duration::from_secs(30),
            answer: Answer::new(Box::new(move |result| answers.lock().unwrap().push(result))),
        });
        id
    }

    fn commit(&mut self, number: u32, body: usize) -> Result<EnvelopeId, StoreError> {
        let id = self.send(number, body);
        self.run();
        self.answers.lock().unwrap().pop().expect("answered").map(|()| id)
    }

    fn end(&mut self, envelope: EnvelopeId) {
        self.queue.push_back(Op::End { envelope, done: None });
        self.run();
    }

    fn live(&self) -> u64 {
        lock(&self.log.state).counts().0
    }

    fn segments(&self) -> Vec<String> {
        let mut names = self.disk.names(Folder::Log).unwrap();
        names.retain(|name| name.ends_with(".seg"));
        names.sort();
        names
    }
}

#[test]
fn little_space_refuses_mail_and_more_space_takes_it_again() {
    let mut bench = Bench::new();
    bench.commit(1, 100).unwrap();
    bench.disk.set_free(1 << 20);
    bench.tick();
    assert!(matches!(bench.commit(2, 100), Err(StoreError::Full)));
    assert_eq!(bench.events.last(), Some(&Event::Health(Health::Full)));
    bench.disk.set_free(1 << 40);
    bench.tick();
    bench.commit(3, 100).unwrap();
    assert_eq!(bench.events.last(), Some(&Event::Health(Health::Accepting)));
}

#[test]
fn without_room_outcomes_go_to_the_reserve_and_freeing_makes_room() {
    let mut bench = Bench::new();
    let mut stored = Vec::new();
    for number in 1..=30 {
        stored.push(bench.commit(number, 1000).unwrap());
    }
    bench.disk.refuse_blocks(true);
    let refusal = (31..60).find_map(|number| match bench.commit(number, 1000) {
        Ok(id) => {
            stored.push(id);
            None
        }
        Err(error) => Some(error),
    });
    assert!(matches!(refusal, Some(StoreError::Full)), "{refusal:?}");
    // Outcomes are still taken, and what they free is used again.
    for id in stored.drain(..) {
        bench.end(id);
    }
    assert_eq!(bench.live(), 0);
    for _ in 0..3 {
        bench.tick();
    }
    bench.commit(1000, 1000).unwrap();
    let after = Bench::open(bench.disk.restarted());
    assert_eq!(after.live(), 1);
}

#[test]
fn when_the_reserve_is_full_too_delivery_is_told_to_stop() {
    let mut bench = Bench::new();
    bench.disk.refuse_blocks(true);
    let mut held = Vec::new();
    for number in 1.. {
        match bench.commit(number, 1000) {
            Ok(id) => held.push(id),
            Err(_) => break,
        }
    }
    // Updates of mail that stays use up the reserve.
    for round in 0..200 {
        for envelope in &held {
            let payload = vec![b'u'; 200];
            let done = Box::new(|_| {});
            bench.queue.push_back(Op::Update { envelope: *envelope, payload, done });
        }
        bench.run();
        if bench.events.contains(&Event::Health(Health::Stopped)) {
            break;
        }
        assert!(round < 199, "{:?}", bench.events);
    }
    bench.disk.refuse_blocks(false);
    bench.tick();
    bench.tick();
    bench.commit(5000, 10).unwrap();
    assert_eq!(bench.events.last(), Some(&Event::Health(Health::Accepting)));
}

#[test]
fn a_log_that_fails_twice_refuses_mail_until_the_disk_works_again() {
    let mut bench = Bench::new();
    let first = bench.commit(1, 10).unwrap();
    bench.disk.set_fault(Fault::Off(bench.disk.calls()));
    assert!(matches!(bench.commit(2, 10), Err(StoreError::Failing)));
    assert_eq!(bench.events.last(), Some(&Event::Health(Health::Failing)));
    bench.end(first);
    assert_eq!(bench.live(), 1, "kept for later");
    bench.disk.set_fault(Fault::None);
    bench.tick();
    bench.commit(3, 10).unwrap();
    assert_eq!(bench.events.last(), Some(&Event::Health(Health::Accepting)));
    assert_eq!(bench.live(), 1);
    let after = Bench::open(bench.disk.restarted());
    let state = lock(&after.log.state);
    assert!(state.message(MessageId::new(3).unwrap()).is_some());
    assert_eq!(state.counts(), (1, 1));
}

#[test]
fn one_failed_sync_refuses_its_messages_and_keeps_their_neighbours() {
    let mut bench = Bench::new();
    let first = bench.commit(1, 10).unwrap();
    // The write is the next call, the sync the one after.
    bench.disk.set_fault(Fault::Once(bench.disk.calls() + 1, ErrorKind::Other));
    bench.queue.push_back(Op::End { envelope: first, done: None });
    assert!(matches!(bench.commit(2, 10), Err(StoreError::Failing)));
    bench.commit(3, 10).unwrap();
    for disk in [bench.disk.restarted(), bench.disk.clone()] {
        let after = Bench::open(disk);
        let state = lock(&after.log.state);
        let there = |number| state.message(MessageId::new(number).unwrap()).is_some();
        assert_eq!([there(1), there(2), there(3)], [false, false, true]);
    }
}

#[test]
fn damage_below_a_durable_offset_is_put_aside_and_reported() {
    let mut bench = Bench::new();
    for number in 1..=3 {
        bench.commit(number, 100).unwrap();
    }
    // In the first message's body: 8,192 bytes of blocks, a batch record, a header.
    let name = bench.segments()[0].clone();
    bench.disk.damage(Folder::Log, &name, 8192 + 64 + 40 + 5);
    let after = Bench::open(bench.disk.restarted());
    let quarantined: Vec<_> = after
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Quarantined { id, reason } => Some((id.as_str(), reason.as_str())),
            _ => None,
        })
        .collect();
    let [("00000001", reason)] = quarantined[..] else { panic!("{quarantined:?}") };
    assert!(reason.contains("checksum of body is wrong"), "{reason}");
    assert_eq!(after.live(), 2);
    let mut kept = after.disk.names(Folder::Corrupt).unwrap();
    kept.sort();
    assert_eq!(kept, ["00000001", "00000001.reason"]);
}

#[test]
fn damage_above_it_is_a_torn_batch() {
    let mut bench = Bench::new();
    bench.commit(1, 100).unwrap();
    bench.commit(2, 100).unwrap();
    let name = bench.segments()[0].clone();
    let end = bench.log.active.as_ref().unwrap().end as usize;
    bench.disk.damage(Folder::Log, &name, end - 8);
    let after = Bench::open(bench.disk.restarted());
    let events = &after.events;
    assert!(events.iter().any(|event| matches!(event, Event::Torn { .. })), "{events:?}");
    assert!(!events.iter().any(|event| matches!(event, Event::Quarantined { .. })), "{events:?}");
    assert_eq!(after.live(), 1);
}

#[test]
fn a_segment_with_a_damaged_header_is_put_aside_whole() {
    let mut bench = Bench::new();
    bench.commit(1, 100).unwrap();
    let name = bench.segments()[0].clone();
    bench.disk.damage(Folder::Log, &name, 20);
    let mut after = Bench::open(bench.disk.restarted());
    let reported =
        Event::Quarantined { id: name.clone(), reason: "segment header is damaged".to_owned() };
    assert!(after.events.contains(&reported), "{:?}", after.events);
    assert!(after.disk.open(Folder::Corrupt, &name, Access::Read).is_ok());
    after.commit(2, 10).unwrap();
}

#[test]
fn space_stays_under_three_times_the_live_bytes_and_four_segments() {
    let mut bench = Bench::new();
    let mut live = VecDeque::new();
    let mut worst = 0;
    for number in 1..3000 {
        live.push_back(bench.commit(number, 200 + number as usize * 7 % 900).unwrap());
        // Most mail goes at once, every tenth stays for long.
        if number % 10 != 0 {
            let id = live.pop_back().unwrap();
            bench.end(id);
        } else if live.len() > 60 {
            let id = live.pop_front().unwrap();
            bench.end(id);
        }
        let figures = Log::statistics(&lock(&bench.log.state));
        let bound = 3 * figures.live_bytes + 4 * OPTIONS.largest_segment;
        assert!(figures.log_bytes <= bound, "{number}: {figures:?}");
        worst = worst.max(figures.log_bytes);
    }
    assert!(worst > 0);
    let figures = Log::statistics(&lock(&bench.log.state));
    assert!(figures.compacted_bytes < figures.written_bytes, "{figures:?}");
    assert_eq!(Bench::open(bench.disk.restarted()).live(), live.len() as u64);
}

#[test]
fn a_hundred_thousand_envelopes_start_fast_and_take_little_memory() {
    const COUNT: u32 = 100_000;
    let disk = SimDisk::new();
    let mut bench = Bench::with(disk.clone(), Options::default());
    for some in (1..=COUNT).collect::<Vec<_>>().chunks(2000) {
        for number in some {
            bench.send(*number, 64);
        }
        bench.run();
    }
    assert_eq!(bench.live(), u64::from(COUNT));
    let memory = Log::statistics(&lock(&bench.log.state)).index_bytes;
    assert!(memory / u64::from(COUNT) <= 64, "{memory} bytes");
    bench.log.retire(true);
    bench.run();
    drop(bench);

    let begun = Instant::now();
    let after = Bench::with(disk.restarted(), Options::default());
    let spent = begun.elapsed();
    assert_eq!(after.live(), u64::from(COUNT));
    let memory = Log::statistics(&lock(&after.log.state)).index_bytes;
    assert!(memory / u64::from(COUNT) <= 64, "{memory} bytes after recovery");
    println!("{COUNT} envelopes: recovered in {spent:?}, {memory} bytes of index");
    // Without optimisation, on a machine that does other things as well.
    assert!(spent < Duration::from_secs(10), "{spent:?}");
}
