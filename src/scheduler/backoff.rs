//! When a failed delivery is tried again, and when its sender is warned.
//!
//! All times are counted from the creation of the envelope, so an attempt that takes long, a
//! restart, or a run that an administrator asked for shifts nothing.
//!
//! Sources: the queue page of the specification, 2.2 and 2.6.

use std::time::Duration;

use super::clock::Seconds;
use super::work::Kind;

/// Most delay warnings that can be configured.
pub const MAX_WARNINGS: usize = 4;
/// Base of the retries of envelopes that found their hold queue full, in seconds.
pub const OVERFLOW_BASE: i64 = 3;

/// The base of a kind's retries, in seconds.
#[must_use]
pub fn base(kind: Kind) -> i64 {
    match kind {
        Kind::Bounce | Kind::Local => 10,
        Kind::Relay => 400,
    }
}

/// The time of attempt `retries`, which may be past: `created + base × retries²`.
#[must_use]
pub fn first_try(created: Seconds, base: i64, retries: u16) -> Seconds {
    let n = i64::from(retries);
    created.saturating_add(base * n * n)
}

/// The next try after `now`: `created + base × n²` for the smallest `n ≥ from` that is after it.
///
/// `base` is positive.
#[must_use]
pub fn next_try(created: Seconds, base: i64, from: u16, now: Seconds) -> Seconds {
    let age = now.saturating_sub(created).max(0);
    // The largest n whose square is within the age; the next one is after it.
    let n = (age / base).isqrt() + 1;
    let n = if now < created { 0 } else { n };
    let n = n.max(i64::from(from));
    created.saturating_add(base.saturating_mul(n.saturating_mul(n)))
}

/// The warning that falls due with a failure whose next try is `next_try`.
///
/// `warned` is the threshold of the last warning, counted in seconds from `created` (negative if
/// there was none). The first interval in configuration order that the next try reaches and that
/// lies after the last warning is the one.
#[must_use]
pub fn warning(
    intervals: &[Duration],
    created: Seconds,
    warned: i64,
    next_try: Seconds,
) -> Option<Duration> {
    let waits = next_try.saturating_sub(created);
    intervals.iter().take(MAX_WARNINGS).copied().find(|interval| {
        let interval = i64::try_from(interval.as_secs()).unwrap_or(i64::MAX);
        waits >= interval && warned < interval
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR_DAYS: i64 = 4 * 86_400;

    /// Tries at once fail at once until the next would be past four days.
    fn attempts(kind: Kind) -> Vec<Seconds> {
        let mut times = vec![0];
        let mut retries = 0;
        loop {
            retries += 1;
            let now = times.last().copied().unwrap_or_default();
            let next = next_try(0, base(kind), retries, now);
            if next >= FOUR_DAYS {
                return times;
            }
            times.push(next);
        }
    }

    // Queue cases 35 and 36, and the last lines of the table in 2.2.
    #[test]
    fn undisturbed_attempts_follow_the_squares() {
        let relay = attempts(Kind::Relay);
        assert_eq!(relay[..9], [0, 400, 1600, 3600, 6400, 10_000, 14_400, 19_600, 25_600]);
        assert_eq!((relay.len(), relay.last()), (30, Some(&336_400)));
        for kind in [Kind::Bounce, Kind::Local] {
            let local = attempts(kind);
            assert_eq!(local[..9], [0, 10, 40, 90, 160, 250, 360, 490, 640]);
            assert_eq!((local.len(), local.last()), (186, Some(&342_250)));
        }
    }

    #[test]
    fn the_next_try_is_after_now_and_not_before_its_turn() {
        let cases = [
            ("queue case 37: an attempt of 500 s", 400, 1, 500, 1600),
            ("queue case 38: an early attempt", 10, 2, 2, 40),
            ("a try that is due now has been made", 400, 1, 400, 1600),
            ("one second before", 400, 1, 399, 400),
            ("from the beginning", 400, 0, 0, 400),
            ("from the beginning, before creation", 400, 0, -5, 0),
            ("overflow", OVERFLOW_BASE, 0, 11, 12),
            ("far away", 10, u16::MAX, 0, 10 * 65_535 * 65_535),
            ("never", 10, 1, i64::MAX - 1, i64::MAX),
        ];
        for (name, base, from, now, expected) in cases {
            assert_eq!(next_try(0, base, from, now), expected, "{name}");
        }
    }

    #[test]
    fn a_warning_is_sent_by_the_last_failure_before_its_interval() {
        let hours = |h: u64| Duration::from_secs(h * 3600);
        let seconds = Duration::from_secs;
        // Intervals, last warning, next try, warning.
        type Case<'a> = (&'a str, &'a [Duration], i64, i64, Option<Duration>);
        let cases: [Case; 9] = [
            ("queue case 44: before", &[hours(4)], -1, 10_000, None),
            ("queue case 44: next try exactly at it", &[hours(4)], -1, 14_400, Some(hours(4))),
            ("queue case 44: once", &[hours(4)], 14_400, 19_600, None),
            ("local: before", &[hours(4)], -1, 13_690, None),
            ("local: at", &[hours(4)], -1, 14_440, Some(hours(4))),
            ("queue case 45: first", &[seconds(1), seconds(30)], -1, 10, Some(seconds(1))),
            ("queue case 45: second", &[seconds(1), seconds(30)], 1, 40, Some(seconds(30))),
            ("a larger one suppresses", &[seconds(30), seconds(1)], 30, 90, None),
            ("none configured", &[], -1, i64::MAX, None),
        ];
        for (name, intervals, warned, next, expected) in cases {
            assert_eq!(warning(intervals, 0, warned, next), expected, "{name}");
        }
    }
}
