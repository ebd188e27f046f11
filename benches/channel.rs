//! A round trip over the channel between two roles: one question at a time, and many at once.
//!
//! Both ends live in one process and on one thread, so that what is measured is the channel itself:
//! serialising, framing, credits, two system calls a direction.

#![allow(clippy::expect_used)] // a failed assumption ends the measurement

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pillarbox::ipc::blob::Blob;
use pillarbox::ipc::link::Link;
use tokio::runtime::Runtime;

/// Questions under way at once.
const MANY: u32 = 256;

type Asking = Link<Blob, u32>;

/// A channel whose other end answers with the length of what it is asked.
fn channel(runtime: &Runtime) -> Asking {
    runtime.block_on(async {
        let (near, far) = platform::fd::socketpair().expect("a socket pair");
        let (asking, _) = Asking::open(near, MANY).expect("a runtime");
        let (answering, mut arrivals) = Link::<u32, Blob>::open(far, MANY).expect("a runtime");
        tokio::spawn(async move {
            let _open = answering;
            while let Some(arrived) = arrivals.recv().await {
                let length = arrived.message.0.len() as u32;
                arrived.responder.reply(&length, None).expect("a short message");
            }
        });
        asking
    })
}

fn round_trips(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let asking = channel(&runtime);
    for (name, size) in [("200 bytes", 200), ("4 KiB", 4096)] {
        let question = Blob(vec![b'x'; size]);
        let mut group = criterion.benchmark_group(format!("channel, {name}"));
        group.throughput(Throughput::Elements(1));
        group.bench_function("one at a time", |bencher| {
            bencher.iter(|| {
                let reply = runtime.block_on(asking.request(&question, None));
                black_box(reply.expect("an answer"))
            });
        });
        group.throughput(Throughput::Elements(u64::from(MANY)));
        group.bench_function("many at once", |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let asked: Vec<_> = (0..MANY)
                        .map(|_| {
                            let (asking, question) = (asking.clone(), question.clone());
                            tokio::spawn(async move { asking.request(&question, None).await })
                        })
                        .collect();
                    for reply in asked {
                        black_box(reply.await.expect("a task").expect("an answer"));
                    }
                });
            });
        });
        group.finish();
    }
}

criterion_group!(benches, round_trips);
criterion_main!(benches);
