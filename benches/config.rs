//! Speed of reading configurations: ten thousand rules, and a table file with a hundred thousand
//! entries. Both together must take under half a second.

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pillarbox::config::rehearsal::Files;

/// Rules of different shapes, with actions and tables that they name.
fn rules(count: usize) -> String {
    let mut text = String::from("table ours { a.example, b.example }\n");
    for number in 0..count / 100 {
        let _infallible = writeln!(text, "action \"a{number}\" maildir \"/mail/{number}\"");
    }
    for number in 0..count {
        let action = number / 100;
        let _infallible = match number % 4 {
            0 => writeln!(text, "match from any for domain d{number}.example action a{action}"),
            1 => writeln!(text, "match from src 10.0.{action}.0/24 for any action a{action}"),
            2 => writeln!(
                text,
                "match tag t{number} mail-from \"@d{number}.example\" for domain <ours> reject"
            ),
            _ => writeln!(text, "match !from local for domain regex \"^x{number}[.]\" reject"),
        };
    }
    text
}

fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("configuration");
    group.sample_size(10);
    let text = rules(10_000);
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("ten thousand rules", |bencher| {
        let mut files = Files::main(text.clone());
        bencher.iter(|| {
            let reading = black_box(&mut files).reading(&[]);
            assert!(!reading.diagnostics.are_fatal(), "{}", reading.diagnostics);
            reading.config.rules.len()
        });
    });
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("a table of a hundred thousand entries", |bencher| {
        let table: String = (0..100_000).map(|n| format!("user{n}: box{n}\n")).collect();
        let mut files = Files::main("table t file:/t\naction a mbox alias <t>\nmatch action a\n");
        files.add("/t", table);
        bencher.iter(|| {
            let reading = black_box(&mut files).reading(&[]);
            assert!(!reading.diagnostics.are_fatal(), "{}", reading.diagnostics);
            reading.config.tables.len()
        });
    });
    group.finish();
}

criterion_group!(benches, reading);
criterion_main!(benches);
