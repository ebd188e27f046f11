//! What the scheduler costs: inserting, a wake-up with much to release, failures, a listing.

#![allow(missing_docs)] // criterion's macros make public items

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pillarbox::model::EnvelopeId;
use pillarbox::scheduler::clock::Reading;
use pillarbox::scheduler::run_queue::Scheduler;
use pillarbox::scheduler::work::{Due, End, Kind, Settings, Target};

const NOW: i64 = 1_795_000_000;
const MANY: u64 = 100_000;

fn at(seconds: i64) -> Reading {
    Reading { monotonic: Duration::from_secs(seconds.unsigned_abs()), wall: (NOW + seconds) * 1000 }
}

/// A scheduler with `MANY` envelopes, tried `retries` times, for 1,000 destinations.
fn filled(retries: u16) -> Scheduler {
    let settings =
        Settings { max_inflight: usize::MAX, overdue_per_second: u32::MAX, ..Settings::default() };
    let mut scheduler = Scheduler::new(settings, at(0));
    let destinations: Vec<String> = (0..1000).map(|n| format!("d{n}.example.org")).collect();
    for number in 0..MANY {
        // Ids are random; an odd factor spreads the messages over all of them.
        let message = (number + 1).wrapping_mul(0x9e37_79b1) & 0xffff_ffff;
        let Some(id) = EnvelopeId::new((message << 32) | 1) else { continue };
        let destination = destinations.get((number % 1000) as usize).map_or("", String::as_str);
        let due = Due {
            id,
            kind: Kind::Relay,
            destination,
            created: NOW,
            ttl: Duration::from_secs(4 * 86_400),
            retries,
            last_bounce: 0,
            in_flight: false,
            blocked: None,
        };
        scheduler.insert(&due, at(0));
    }
    scheduler
}

fn scheduler(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scheduler, 100,000 envelopes");
    group.sample_size(10);
    group.bench_function("insert", |bencher| bencher.iter_with_large_drop(|| filled(1)));
    group.bench_function("release and deliver", |bencher| {
        bencher.iter_batched(
            || filled(0),
            |mut scheduler| {
                for batch in scheduler.poll(at(1), usize::MAX) {
                    for id in batch.envelopes {
                        scheduler.ended(id, End::Delivered);
                    }
                }
                scheduler
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("release and fail", |bencher| {
        bencher.iter_batched(
            || filled(0),
            |mut scheduler| {
                for batch in scheduler.poll(at(1), usize::MAX) {
                    for id in batch.envelopes {
                        scheduler.temporary(id, at(1));
                    }
                }
                scheduler
            },
            BatchSize::LargeInput,
        );
    });
    let mut scheduler = filled(1);
    group.bench_function("list", |bencher| {
        bencher.iter(|| black_box(scheduler.list(Target::All, None, at(1)).count()));
    });
    group.finish();
}

criterion_group!(benches, scheduler);
criterion_main!(benches);
