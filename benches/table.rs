//! What tables cost: reading them, looking something up, the memory that they take.
//!
//! A look-up in a million entries takes as long as in a thousand. A table takes at most two and a
//! half times the bytes of its file, the index that its use needs included: the bench fails if not.

#![allow(missing_docs)] // criterion's macros make public items

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pillarbox::config::TableKind;
use pillarbox::table::map::{self, ReadOnly};
use pillarbox::table::{Map, Service, Table};

const MANY: usize = 1_000_000;

/// A kind of file: its name, its lines, what it is asked for, a key that is there.
struct Sample {
    name: &'static str,
    service: Service,
    line: fn(usize) -> String,
    key: fn(usize) -> String,
}

const SAMPLES: [Sample; 4] = [
    Sample {
        name: "aliases",
        service: Service::Alias,
        line: |n| format!("user{n}: mailbox{n}\n"),
        key: |n| format!("user{n}"),
    },
    Sample {
        name: "domains",
        service: Service::Domain,
        line: |n| format!("*.d{n}.example\n"),
        key: |n| format!("mx.D{n}.example"),
    },
    Sample {
        name: "networks",
        service: Service::Netaddr,
        line: |n| format!("10.{}.{}.{}\n", n >> 16, (n >> 8) & 255, n & 255),
        key: |n| format!("10.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255),
    },
    Sample {
        name: "mail addresses",
        service: Service::Mailaddr,
        line: |n| format!("user{n}@example.org\n"),
        key: |n| format!("user{n}+tag@example.org"),
    },
];

impl Sample {
    fn text(&self, entries: usize) -> Vec<u8> {
        let mut text: String = (0..entries).map(self.line).collect();
        text.shrink_to_fit();
        text.into_bytes()
    }

    fn table(&self, entries: usize) -> Table {
        let kind = match self.service {
            Service::Alias => TableKind::Mapping,
            _ => TableKind::List,
        };
        match Table::read(self.text(entries), kind) {
            Ok(table) => table,
            Err(error) => panic!("{}:{error}", self.name),
        }
    }
}

/// Bytes of this process in memory now, and at most so far (proc(5)); nothing on other systems.
fn memory() -> Option<(usize, usize)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? * 1024)
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}

/// Measured before anything else, so that the highest mark is that of the table.
fn memory_of_a_million(_: &mut Criterion) {
    let mut report = String::new();
    for sample in SAMPLES {
        let text = sample.text(MANY);
        let size = text.len();
        // The mark of what has been is set back.
        let reset = std::fs::write("/proc/self/clear_refs", "5");
        let (Some((before, _)), Ok(())) = (memory(), reset) else {
            println!("memory of tables: this system does not tell");
            return;
        };
        let kind =
            if sample.service == Service::Alias { TableKind::Mapping } else { TableKind::List };
        let Ok(table) = Table::read(text, kind) else { continue };
        table.prepare(sample.service);
        assert!(table.contains(sample.service, &(sample.key)(MANY / 2), '+'), "{}", sample.name);
        let Some((after, highest)) = memory() else { return };
        let times = |bytes: usize| bytes as f64 / size as f64;
        let held = times(size + after.saturating_sub(before));
        let peak = times(size + highest.saturating_sub(before));
        let _infallible = writeln!(
            report,
            "memory of a million {}: file of {size} bytes, table {held:.2} times, at most {peak:.2}",
            sample.name
        );
        assert!(peak <= 2.5, "{report}");
        drop(table);
    }
    print!("{report}");
}

fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read 100,000 entries");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for sample in SAMPLES {
        let text = sample.text(100_000);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(sample.name, |bencher| {
            bencher.iter_with_large_drop(|| {
                let table = Table::read(text.clone(), TableKind::Undecided);
                table.map(|table| table.prepare(sample.service))
            });
        });
    }
}

fn looking_up(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("look up");
    for entries in [1000, MANY] {
        for sample in SAMPLES {
            let table = sample.table(entries);
            table.prepare(sample.service);
            let mut number = 0;
            group.bench_function(format!("{} of {entries}", sample.name), |bencher| {
                bencher.iter(|| {
                    // A step that goes through all of them, in no order.
                    number = (number + 7_919) % entries;
                    let key = (sample.key)(number);
                    assert!(table.contains(sample.service, black_box(&key), '+'));
                });
            });
        }
    }
}

fn maps(criterion: &mut Criterion) {
    let Ok(file) = tempfile::tempfile() else { return };
    let mut entries: Vec<(String, String)> =
        (0..MANY).map(|n| (format!("user{n}"), format!("mailbox{n}"))).collect();
    entries.sort_unstable();
    let storage =
        file.try_clone().ok().and_then(|file| redb::backends::FileBackend::new(file).ok());
    let Some(storage) = storage else { return };
    let pairs = entries.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    if let Err(error) = map::write(storage, pairs) {
        panic!("{error}");
    }
    let length = file.metadata().map_or(0, |found| found.len());
    println!("map of a million aliases: {length} bytes");
    let Ok(map) = Map::open(ReadOnly::new(file, length)) else { panic!("the map does not open") };
    let mut number = 0;
    criterion.bench_function("look up/map of 1000000", |bencher| {
        bencher.iter(|| {
            number = (number + 7_919) % MANY;
            let found = map.value(black_box(&format!("user{number}")));
            assert!(found.is_ok_and(|found| found.is_some()));
        });
    });
}

criterion_group!(benches, memory_of_a_million, reading, looking_up, maps);
criterion_main!(benches);
