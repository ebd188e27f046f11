//! What an envelope costs the scheduler in memory.
//!
//! A process of its own, since it measures itself: resident memory before and after, as the
//! system counts it. The budget is 200 bytes an envelope, names of destinations apart.

use std::time::Duration;

use pillarbox::model::EnvelopeId;
use pillarbox::scheduler::clock::Reading;
use pillarbox::scheduler::run_queue::Scheduler;
use pillarbox::scheduler::work::{Due, Kind, Settings};

const ENVELOPES: u64 = 400_000;
const BUDGET: u64 = 200;

/// Resident bytes of this process; `None` where the system has no such file.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

#[test]
fn an_envelope_takes_at_most_200_bytes() {
    let Some(before) = resident() else {
        println!("skipped: no /proc/self/status on this system");
        return;
    };
    let now = Reading { monotonic: Duration::ZERO, wall: 1_795_000_000_000 };
    let mut scheduler = Scheduler::new(Settings::default(), now);
    let destinations: Vec<String> = (0..1000).map(|n| format!("d{n}.example.org")).collect();
    for number in 0..ENVELOPES {
        // Ids are random; an odd factor spreads the messages over all of them.
        let message = (number / 3 + 1).wrapping_mul(0x9e37_79b1) & 0xffff_ffff;
        let Some(id) = EnvelopeId::new((message << 32) | (number % 3 + 1)) else {
            panic!("both halves are set");
        };
        let due = Due {
            id,
            kind: Kind::Relay,
            destination: &destinations[number as usize % destinations.len()],
            created: 1_795_000_000 - (number % 400) as i64,
            ttl: Duration::from_secs(4 * 86_400),
            retries: 1 + (number % 9) as u16,
            last_bounce: 0,
            in_flight: false,
            blocked: None,
        };
        assert!(scheduler.insert(&due, now));
    }
    let used = resident().map_or(0, |after| after - before) / ENVELOPES;
    println!("{used} bytes an envelope");
    assert!(used > 50, "a measurement that saw nothing: {used} bytes");
    assert!(used <= BUDGET, "{used} bytes an envelope");
    assert_eq!(scheduler.statistics().envelopes as u64, ENVELOPES);
}
