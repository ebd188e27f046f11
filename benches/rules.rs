//! What a RCPT costs with a thousand rules: the search for the one that matches, tables included. And
//! what it costs to read many rules and a large table.
//!
//! More than 20 microseconds for a thousand rules is a regression, whatever they go by, and so is more
//! than half a second or 60 MiB for 10,000 rules and a table of 100,000 entries. The first and the last
//! are asserted; `PILLARBOX_BENCH_SLOWNESS=3` lets a machine that is slow, or busy, take three times as
//! long.

#![allow(missing_docs)] // criterion's macros make public items

mod memory;

use std::env;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use pillarbox::config::{self, Config, LocalAddress, Network, SourceReader};
use pillarbox::lookup::rules::{Client, Progress, Recipient, Search, Session, Verdict};
use pillarbox::model::Address;
use pillarbox::table::Tables;
use pillarbox::table::few::FewTables;

const RULES: usize = 1000;
/// The longest that a search among them may take, in microseconds.
const LIMIT: f64 = 20.0;

/// The configuration, the table `/table`, and a machine without names.
struct Machine {
    main: String,
    table: String,
}

impl SourceReader for Machine {
    fn read(&mut self, path: &str) -> io::Result<Vec<u8>> {
        match path {
            "main" => Ok(self.main.clone().into_bytes()),
            "/table" => Ok(self.table.clone().into_bytes()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn table_program(&mut self, _: &str) -> bool {
        false
    }
}

struct Nowhere;

impl Network for Nowhere {
    fn server_name(&mut self) -> String {
        "mail.example.org".to_owned()
    }

    fn addresses(&mut self) -> Vec<LocalAddress> {
        vec![IpAddr::V4(Ipv4Addr::LOCALHOST).into()]
    }

    fn interface(&mut self, _: &str) -> Option<Vec<LocalAddress>> {
        None
    }

    fn host(&mut self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(Vec::new())
    }

    fn service(&mut self, _: &str) -> Option<u16> {
        None
    }
}

/// A thousand rules with what `rule` makes of their numbers, and one more that takes all.
fn rules(rule: impl Fn(usize) -> String) -> Config {
    let mut text = "action a maildir\n".to_owned();
    for number in 0..RULES {
        let _infallible = writeln!(text, "match {} action a", rule(number));
    }
    text.push_str("match from any for any action a\n");
    load(&mut Machine { main: text, table: String::new() })
}

fn load(machine: &mut Machine) -> Config {
    match config::load("main", machine, &mut Nowhere, &[]) {
        Ok(loaded) => loaded.config,
        Err(errors) => panic!("{errors}"),
    }
}

fn search(prepared: &Prepared, session: &Session, address: &Address) -> Verdict {
    let recipient = Recipient { address, internal: false };
    let mut search = Search::new();
    let mut answer = None;
    let Prepared { config, few, tables } = prepared;
    loop {
        match search.advance(config, few, session, recipient, answer.as_ref()) {
            Progress::Ask(question) => answer = tables.answer(&question),
            Progress::Found(verdict) => return verdict,
        }
    }
}

/// A configuration and what is made of it once.
struct Prepared {
    config: Config,
    few: FewTables,
    tables: Tables,
}

impl Prepared {
    fn new(config: Config) -> Self {
        Self { few: FewTables::new(&config), tables: Tables::new(&config), config }
    }
}

/// How long `work` takes, in microseconds: in the fastest of many batches, for what else the machine
/// does can only add to it.
fn fastest(mut work: impl FnMut()) -> f64 {
    const EACH: u32 = 20;
    let mut batch = || {
        let begun = Instant::now();
        (0..EACH).for_each(|_| work());
        begun.elapsed() / EACH
    };
    (0..500).map(|_| batch()).min().unwrap_or_default().as_secs_f64() * 1e6
}

/// How much longer than ours this machine may take.
fn slowness() -> f64 {
    env::var("PILLARBOX_BENCH_SLOWNESS").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0)
}

fn decisions(criterion: &mut Criterion) {
    let session = Session {
        tag: String::new(),
        client: Client::Address(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)).into()),
        client_name: Some("client.example.net".to_owned()),
        helo: "client.example.net".to_owned(),
        login: None,
        tls: false,
        sender: Address::new("alice", "example.net"),
    };
    let address = Address::new("bob", "nowhere.example");
    let cases = [
        ("domain", rules(|n| format!("from any for domain \"d{n}.example.org\""))),
        ("local, domain", rules(|n| format!("for domain \"d{n}.example.org\""))),
        ("pattern", rules(|n| format!("from any for domain \"*.d{n}.example.org\""))),
        ("sender", rules(|n| format!("from mail-from \"user{n}@example.org\" for any"))),
        ("network", rules(|n| format!("from src \"10.{}.{}.0/24\" for any", n / 250, n % 250))),
    ];
    let mut group = criterion.benchmark_group("1,000 rules, none matches, by");
    for (name, config) in cases {
        let prepared = Prepared::new(config);
        let last = Verdict::Action { rule: RULES, action: config::ActionId(0) };
        assert_eq!(search(&prepared, &session, &address), last, "{name}");
        let mut once = || {
            black_box(search(black_box(&prepared), &session, black_box(&address)));
        };
        group.bench_function(name, |bencher| bencher.iter(&mut once));
        let (taken, limit) = (fastest(once), LIMIT * slowness());
        println!("1,000 rules by {name}: {taken:.1} of {limit:.0} microseconds");
        // What is not optimised takes as long as it takes.
        assert!(cfg!(debug_assertions) || taken <= limit, "{name}: {taken:.1} microseconds");
    }
}

fn reading(criterion: &mut Criterion) {
    let mut main = "table t file:/table\naction a maildir alias <t>\n".to_owned();
    for number in 0..10_000 {
        let _infallible =
            writeln!(main, "match from any for domain \"d{number}.example.org\" action a");
    }
    let table: String = (0..100_000).map(|n| format!("user{n}: mailbox{n}\n")).collect();
    let mut machine = Machine { main, table };
    let read = |machine: &mut Machine| {
        let config = load(machine);
        let tables = Tables::new(&config);
        let id = config.table_named("t");
        let done = id.map(|id| tables.update(id, machine.table.clone().into_bytes()));
        assert_eq!(done, Some(Ok(())));
        (config, tables)
    };
    if let (true, Some((before, _))) = (memory::forget_peak(), memory::now_and_peak()) {
        let held = read(&mut machine);
        if let Some((_, peak)) = memory::now_and_peak() {
            let taken = peak.saturating_sub(before);
            println!("10,000 rules and a table of 100,000 entries: at most {} KiB", taken / 1024);
            assert!(taken <= 60 * 1024 * 1024);
        }
        drop(held);
    }
    let mut group = criterion.benchmark_group("read");
    group.sample_size(10);
    group.bench_function("10,000 rules and a table of 100,000 entries", |bencher| {
        bencher.iter_with_large_drop(|| read(&mut machine));
    });
}

criterion_group!(benches, reading, decisions);
criterion_main!(benches);
