//! The log store: committing messages of 4 KiB, and recovering a spool of deferred ones.
//!
//! Sync costs depend on the file system below the temporary directory (`TMPDIR`): a memory file
//! system shows what the software costs.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pillarbox::model::id::MessageId;
use pillarbox::queue::log::{LogStore, Options};
use pillarbox::queue::store::{Body, Commit, Completion, NewEnvelope, Store, StoreError};
use platform::dir::Dir;

const BODY: usize = 4096;
const PAYLOAD: usize = 300;

fn open(path: &Path) -> Result<LogStore, StoreError> {
    let options = Options { free_percent: 0, ..Options::default() };
    LogStore::open(&Dir::open(path)?, options, |_| {})
}

fn wait<T: Send + 'static>(call: impl FnOnce(Completion<T>)) -> Result<T, StoreError> {
    let (sender, receiver) = mpsc::channel();
    call(Box::new(move |result| {
        // The receiver waits for exactly this.
        let _ = sender.send(result);
    }));
    receiver.recv().unwrap_or(Err(StoreError::Closed))
}

/// Commits a message for each id and waits for all.
fn fill(store: &mut LogStore, ids: &[MessageId]) -> Result<(), StoreError> {
    let (sender, receiver) = mpsc::channel();
    for message in ids {
        let commit = Commit {
            message: *message,
            body: Body::Inline(vec![b'x'; BODY]),
            envelopes: vec![NewEnvelope {
                id: message.envelope(NonZeroU32::MIN),
                payload: vec![b'e'; PAYLOAD],
            }],
            deadline: Instant::now() + Duration::from_secs(600),
        };
        let sender = sender.clone();
        store.commit(
            commit,
            Box::new(move |result| {
                // The receiver waits for all of them.
                let _ = sender.send(result);
            }),
        );
    }
    for _ in ids {
        receiver.recv().unwrap_or(Err(StoreError::Closed))?;
    }
    Ok(())
}

fn append(criterion: &mut Criterion) -> Result<(), StoreError> {
    let mut group = criterion.benchmark_group("append");
    for waiting in [1_usize, 10, 100] {
        let dir = tempfile::tempdir()?;
        let mut store = open(dir.path())?;
        group.throughput(Throughput::Elements(waiting as u64));
        group.bench_function(format!("{waiting} at a time"), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let ids = wait(|done| store.lease_ids(waiting, done)).unwrap_or_default();
                    let begun = Instant::now();
                    // A failure shows as no time at all.
                    if black_box(fill(&mut store, &ids)).is_ok() {
                        spent += begun.elapsed();
                    }
                    for id in ids {
                        store.done(id.envelope(NonZeroU32::MIN));
                    }
                }
                spent
            });
        });
    }
    group.finish();
    Ok(())
}

fn recover(criterion: &mut Criterion) -> Result<(), StoreError> {
    let mut group = criterion.benchmark_group("recover");
    group.sample_size(10);
    for messages in [1_000_usize, 100_000] {
        let dir = tempfile::tempdir()?;
        let mut store = open(dir.path())?;
        let ids = wait(|done| store.lease_ids(messages, done))?;
        for some in ids.chunks(1_000) {
            fill(&mut store, some)?;
        }
        Box::new(store).shutdown();
        group.throughput(Throughput::Elements(messages as u64));
        group.bench_function(format!("{messages} messages, until ids are leased"), |bencher| {
            bencher.iter(|| {
                let mut store = open(dir.path())?;
                wait(|done| store.lease_ids(1, done))
            });
        });
    }
    group.finish();
    Ok(())
}

fn run(criterion: &mut Criterion) {
    for result in [append(criterion), recover(criterion)] {
        if let Err(error) = result {
            panic!("the spool below TMPDIR: {error}");
        }
    }
}

criterion_group!(benches, run);
criterion_main!(benches);
