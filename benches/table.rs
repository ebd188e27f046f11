//! What tables cost: reading them, looking something up, the memory that they take.
//!
//! A look-up in a million entries takes as long as in a thousand. A table takes at most two and a
//! half times the bytes of its file, the index that its use needs included: the bench fails if not.

#![allow(missing_docs)] // criterion's macros make public items

mod memory;

use std::env;
use std::hint::black_box;
use std::process::{Command, exit};
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
    /// A buffer of just the length of the text.
    fn text(&self, entries: usize) -> Vec<u8> {
        let length = (0..entries).map(|number| (self.line)(number).len()).sum();
        let mut text = Vec::with_capacity(length);
        for number in 0..entries {
            text.extend_from_slice((self.line)(number).as_bytes());
        }
        text
    }

    fn kind(&self) -> TableKind {
        match self.service {
            Service::Alias => TableKind::Mapping,
            _ => TableKind::List,
        }
    }

    fn table(&self, entries: usize) -> Table {
        match Table::read(self.text(entries), self.kind()) {
            Ok(table) => table,
            Err(error) => panic!("{}:{error}", self.name),
        }
    }
}

/// In which process of its own a sample is measured: what others leave behind does not count there.
const SAMPLE: &str = "PILLARBOX_BENCH_TABLE_SAMPLE";

fn memory_of_a_million(_: &mut Criterion) {
    if let Ok(name) = env::var(SAMPLE) {
        SAMPLES.iter().filter(|sample| sample.name == name).for_each(measure);
        exit(0);
    }
    for sample in SAMPLES {
        let program = env::current_exe();
        let child = program
            .map(|program| Command::new(program).arg("--bench").env(SAMPLE, sample.name).status());
        match child {
            Ok(Ok(status)) => assert!(status.success(), "{}: too much memory", sample.name),
            Ok(Err(error)) | Err(error) => println!("memory of tables: not measured: {error}"),
        }
    }
}

fn measure(sample: &Sample) {
    let text = sample.text(MANY);
    let size = text.len();
    let (true, Some((before, _))) = (memory::forget_peak(), memory::now_and_peak()) else {
        println!("memory of tables: this system does not tell");
        return;
    };
    let table = Table::read(text, sample.kind());
    let Ok(table) = table else { panic!("{}: not a table", sample.name) };
    table.prepare(sample.service);
    assert!(table.contains(sample.service, &(sample.key)(MANY / 2), '+'), "{}", sample.name);
    let Some((after, highest)) = memory::now_and_peak() else { return };
    // The text was there before and is part of the table now.
    let times = |bytes: usize| (size + bytes.saturating_sub(before)) as f64 / size as f64;
    let (held, peak) = (times(after), times(highest));
    let name = sample.name;
    println!("a million {name}, file of {size} bytes: {held:.2} times that, at most {peak:.2}");
    assert!(peak <= 2.5, "{name}: {peak:.2} times the file");
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
