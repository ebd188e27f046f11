//! The crash test of the spool: lives of a log that end at any moment and in any way.
//!
//! `PILLARBOX_LONG=1` runs many more cases.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;

use super::engine::Log;
use super::keeper::perform;
use super::model::{Trial, opened};
use super::sim::{Fault, Random, SimDisk, Survives};

/// A short life of a spool in which everything happens: segments in turn, updates, holds,
/// replacements, ends, large bodies, compaction, freeing. Jobs are done in an order that depends on
/// `order`.
fn life(trial: &mut Trial, order: u64) {
    let mut random = Random::new(order);
    for round in 0..10_u64 {
        for envelopes in [1, 1, 3] {
            trial.commit(envelopes);
        }
        trial.write();
        if let Some(id) = trial.pick(&mut random) {
            trial.update(id);
        }
        if let Some(id) = trial.pick(&mut random) {
            trial.replace(id);
        }
        if let Some(id) = trial.pick(&mut random) {
            trial.extend(id);
        }
        trial.write();
        if let Some(id) = trial.pick(&mut random) {
            trial.hold(id, round.is_multiple_of(2));
        }
        for _ in 0..4 {
            if let Some(id) = trial.pick(&mut random) {
                trial.end(id, random.below(2) == 0);
            }
        }
        trial.write();
        for _ in 0..random.below(4) {
            trial.job(&mut random);
        }
        trial.clean();
        if round % 3 == 2 {
            trial.tick();
        }
        if trial.log.is_waiting() {
            while !trial.jobs.is_empty() {
                trial.job(&mut random);
            }
            trial.write();
        }
    }
    trial.settle(&mut random);
}

/// Recovers from a disk, compares, lives on, compares, recovers again, compares.
fn recover_and_check(trial: &Trial, disk: &SimDisk, case: &str) {
    let log = opened(disk, 2).unwrap_or_else(|error| panic!("{case}: {error}"));
    trial.check(&log, case);
    let mut after = Trial {
        disk: disk.clone(),
        log,
        queue: VecDeque::new(),
        jobs: Vec::new(),
        said: Arc::default(),
        promises: trial.promises.clone(),
        next_message: trial.next_message,
        next_low: trial.next_low,
        now: trial.now,
    };
    for _ in 0..4 {
        after.write();
        while !after.jobs.is_empty() {
            after.job(&mut Random::new(1));
        }
        after.clean();
    }
    trial.check(&after.log, &format!("{case}, later"));
    let cut = disk.after_power_cut(Survives::Nothing);
    let log = opened(&cut, 3).unwrap_or_else(|error| panic!("{case}, again: {error}"));
    trial.check(&log, &format!("{case}, again"));
}

fn is_long() -> bool {
    std::env::var_os("PILLARBOX_LONG").is_some_and(|value| value == "1")
}

#[test]
fn nothing_promised_is_lost_when_the_power_goes_at_any_call() {
    let (orders, subsets, stride) = if is_long() { (12, 24, 1) } else { (2, 2, 7) };
    let mut cases = 0;
    for order in 1..=orders {
        let total = {
            let mut trial = Trial::new();
            life(&mut trial, order);
            trial.check(&trial.log, "undisturbed");
            trial.disk.calls()
        };
        for call in (0..total).filter(|call| call % stride == order % stride) {
            let mut trial = Trial::new();
            let begun = trial.disk.calls();
            trial.disk.set_fault(Fault::Off(call.max(begun)));
            life(&mut trial, order);
            let mut survivals = vec![Survives::Nothing, Survives::All];
            survivals.extend((0..subsets).map(|n| Survives::Some(call * 31 + n)));
            for survives in survivals {
                let disk = trial.disk.after_power_cut(survives);
                recover_and_check(&trial, &disk, &format!("order {order}, {call}, {survives:?}"));
                cases += 1;
            }
        }
    }
    println!("power cuts at a call: {cases} cases");
    assert!(cases > 100);
}

#[test]
fn nothing_promised_is_lost_when_the_log_is_cut_at_any_byte() {
    let (orders, writes) = if is_long() { (4, usize::MAX) } else { (1, 6) };
    let mut cases = 0;
    for order in 1..=orders {
        let total = {
            let mut trial = Trial::new();
            life(&mut trial, order);
            trial.disk.calls()
        };
        let mut seen = 0;
        // Every batch, or some spread over the whole life.
        let step = if writes == usize::MAX { 1 } else { total / 24 };
        for call in (0..total).step_by(step.max(1) as usize) {
            if seen >= writes {
                break;
            }
            let mut trial = Trial::new();
            trial.disk.set_fault(Fault::Off(call.max(trial.disk.calls())));
            life(&mut trial, order);
            let Some(length) = trial.disk.last_write() else { continue };
            seen += 1;
            for cut in 0..length {
                let disk = trial.disk.after_power_cut(Survives::Cut(cut));
                let log = opened(&disk, 2).unwrap();
                trial.check(&log, &format!("order {order}, call {call}, byte {cut} of {length}"));
                cases += 1;
            }
        }
    }
    println!("log cut at a byte: {cases} cases");
    assert!(cases > 1000);
}

#[test]
fn nothing_promised_is_lost_when_any_call_fails_once() {
    let (orders, stride) = if is_long() { (12, 1) } else { (1, 5) };
    let mut cases = 0;
    for order in 1..=orders {
        let total = {
            let mut trial = Trial::new();
            life(&mut trial, order);
            trial.disk.calls()
        };
        for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
            for call in (0..total).filter(|call| call % stride == order % stride) {
                let case = format!("order {order}, {kind:?} at {call}");
                let mut trial = Trial::new();
                trial.disk.set_fault(Fault::Once(call.max(trial.disk.calls()), kind));
                life(&mut trial, order);
                trial.check(&trial.log, &case);
                // A killed process, then a power cut.
                recover_and_check(&trial, &trial.disk.restarted(), &case);
                let disk = trial.disk.after_power_cut(Survives::Nothing);
                recover_and_check(&trial, &disk, &case);
                let before = trial.living().len();
                trial.commit(1);
                let mut random = Random::new(call);
                trial.settle(&mut random);
                assert!(trial.living().len() > before, "{case}: takes no mail afterwards");
                cases += 3;
            }
        }
    }
    println!("one failing call: {cases} cases");
    assert!(cases > 100);
}

#[test]
fn nothing_promised_is_lost_when_recovery_itself_fails_once() {
    let stride = if is_long() { 1 } else { 3 };
    let mut trial = Trial::new();
    let total = {
        life(&mut trial, 5);
        trial.disk.calls()
    };
    let mut trial = Trial::new();
    trial.disk.set_fault(Fault::Off(total * 2 / 3));
    life(&mut trial, 5);
    let mut cases = 0;
    for call in (0..120).filter(|call| call % stride == 0) {
        let disk = trial.disk.after_power_cut(Survives::All);
        disk.set_fault(Fault::Once(call, ErrorKind::Other));
        // A start that fails is tried again by whoever started it.
        let log = opened(&disk, 2).or_else(|_| opened(&disk, 3)).unwrap();
        disk.set_fault(Fault::None);
        trial.check(&log, &format!("call {call} of recovery"));
        cases += 1;
    }
    println!("one failing call of recovery: {cases} cases");
    assert!(cases > 20);
}

#[test]
fn nothing_promised_is_lost_over_many_lives() {
    let (walks, steps) = if is_long() { (2_000, 400) } else { (60, 200) };
    let mut cuts = 0;
    for seed in 1..=walks {
        let mut random = Random::new(seed);
        let mut trial = Trial::new();
        for step in 0_u32..steps {
            let case = format!("walk {seed}, step {step}");
            wander(&mut trial, &mut random);
            if random.below(30) != 0 {
                continue;
            }
            let disk = match random.below(4) {
                0 => trial.disk.restarted(),
                1 => trial.disk.after_power_cut(Survives::Nothing),
                _ => trial.disk.after_power_cut(Survives::Some(random.below(u64::MAX))),
            };
            let log = opened(&disk, u128::from(seed) << 20 | u128::from(step))
                .unwrap_or_else(|error| panic!("{case}: {error}"));
            trial.check(&log, &case);
            let (disk, log) = settled(&trial, disk, log, &mut random, &case);
            trial.accept(disk, log);
            cuts += 1;
        }
        trial.disk.set_fault(Fault::None);
        trial.settle(&mut random);
        trial.check(&trial.log, &format!("walk {seed}, end"));
    }
    println!("random lives: {walks}, ends of a process or of power in them: {cuts}");
    assert!(cuts > 100);
}

/// Lets a recovered log write again what it found, since until then a power cut may still undo
/// requests that nobody was told about; sometimes there is one.
fn settled(
    trial: &Trial,
    mut disk: SimDisk,
    mut log: Log,
    random: &mut Random,
    case: &str,
) -> (SimDisk, Log) {
    let mut jobs = log.take_jobs();
    for turn in 0.. {
        if log.is_settled() {
            break;
        }
        assert!(turn < 1000, "{case}: what was found is never written again");
        if random.below(10) == 0 {
            disk = disk.after_power_cut(Survives::Some(random.below(u64::MAX)));
            log = opened(&disk, 7 << 40 | u128::from(random.below(1 << 40))).unwrap();
            trial.check(&log, &format!("{case}, cut again"));
            jobs = log.take_jobs();
        }
        if !jobs.is_empty() {
            let job = jobs.swap_remove(random.below(jobs.len() as u64) as usize);
            log.report(perform(&disk, job));
        } else if log.can_clean() {
            log.clean_step();
        }
        log.maintain();
        jobs.extend(log.take_jobs());
    }
    // What was asked of this process and not done goes with it; the log starts once more.
    let log = opened(&disk, 9 << 40 | u128::from(random.below(1 << 40))).unwrap();
    trial.check(&log, &format!("{case}, settled"));
    (disk, log)
}

/// One random step of a life.
fn wander(trial: &mut Trial, random: &mut Random) {
    match random.below(21) {
        0..=2 => trial.commit(1 + random.below(3) as usize),
        3 => {
            if let Some(id) = trial.pick(random) {
                trial.update(id);
            }
        }
        4 => {
            if let Some(id) = trial.pick(random) {
                trial.replace(id);
            }
        }
        5..=6 => {
            if let Some(id) = trial.pick(random) {
                trial.end(id, random.below(2) == 0);
            }
        }
        7 => {
            if let Some(id) = trial.pick(random) {
                trial.hold(id, random.below(2) == 0);
            }
        }
        8..=11 => trial.write(),
        12..=15 => trial.job(random),
        16..=17 => trial.clean(),
        18 => trial.tick(),
        19 => {
            if let Some(id) = trial.pick(random) {
                trial.extend(id);
            }
        }
        _ => {
            let kind = if random.below(2) == 0 { ErrorKind::Other } else { ErrorKind::StorageFull };
            let at = trial.disk.calls() + random.below(12);
            trial.disk.set_fault(Fault::Once(at, kind));
        }
    }
}
