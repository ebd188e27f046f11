//! Speed of the SMTP server's parts: command parser, reception of message content, whole sessions.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pillarbox::dispatcher::smtp::rehearsal::{Rehearsal, Script};
use pillarbox::dispatcher::smtp::{Peer, Settings};
use pillarbox::message::{Framing, Options, Pipeline};
use pillarbox::proto::{address, command};

/// Bytes that a shell reads at once.
const CHUNK: usize = 32 * 1024;

fn commands(criterion: &mut Criterion) {
    let lines: [&[u8]; 6] = [
        b"EHLO client.example.org",
        b"MAIL FROM:<alice@example.org> SIZE=4096 BODY=8BITMIME",
        b"RCPT TO:<bob@example.com>",
        b"DATA",
        b"QUIT",
        b"UNKNOWN to us",
    ];
    criterion.bench_function("command lines, six", |bencher| {
        bencher
            .iter(|| lines.iter().filter(|line| command::parse(black_box(line)).is_some()).count());
    });
    criterion.bench_function("forward path", |bencher| {
        bencher.iter(|| {
            address::forward_path(
                black_box(b"<bob@example.com>"),
                "mx.example.org",
                address::Charset::Ascii,
            )
        });
    });
}

fn content(criterion: &mut Criterion) {
    let header = "From: Alice <alice@example.org>\r\nTo: bob@example.com\r\nSubject: x\r\n\r\n";
    let lines = |length: usize, size: usize| {
        let line = "x".repeat(length) + "\r\n";
        (header.to_owned() + &line.repeat(size / line.len()) + ".\r\n").into_bytes()
    };
    let cases = [
        ("4 KiB", lines(76, 4096)),
        ("10 MiB", lines(76, 10 << 20)),
        ("10 MiB, long lines", lines(998, 10 << 20)),
        ("10 MiB, empty lines", lines(0, 10 << 20)),
    ];
    let mut group = criterion.benchmark_group("content");
    group.sample_size(20);
    for (name, bytes) in &cases {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(*name, |bencher| {
            bencher.iter_batched_ref(
                || Vec::with_capacity(2 * CHUNK),
                |output| {
                    let mut pipeline = Pipeline::new(Options {
                        domain: Arc::from("mx.example.org"),
                        additions: None,
                        masquerade: None,
                        framing: Framing::Strict,
                        max_size: u64::MAX,
                        received: 0,
                    });
                    for chunk in bytes.chunks(CHUNK) {
                        output.clear();
                        black_box(pipeline.feed(chunk, output));
                    }
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn sessions(criterion: &mut Criterion) {
    let message = "Subject: x\r\n\r\n".to_owned() + &("x".repeat(76) + "\r\n").repeat(52) + ".\r\n";
    let steps = [
        "",
        "EHLO client.example.org\r\n",
        "MAIL FROM:<alice@example.org>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n",
        &message,
        "QUIT\r\n",
    ];
    criterion.bench_function("session with one message of 4 KiB", |bencher| {
        bencher.iter(|| {
            let peer = Peer::remote([10, 9, 8, 7].into());
            let mut session =
                Rehearsal::new(Settings::new("mx.example.org"), peer, Script::default());
            for step in steps {
                black_box(session.send(step.as_bytes()));
            }
            assert_eq!(session.stored.len(), 1);
        });
    });
}

criterion_group!(benches, commands, content, sessions);
criterion_main!(benches);
