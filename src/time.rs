//! Times and durations as text.
//!
//! What turns times into text takes clock and zone as values. [`local_zone`] and [`local_now`] are for
//! the edges that have to ask.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// The zone of this machine, read when it is first asked for: a confined process cannot read it, so
/// roles ask before they are confined.
#[must_use]
pub fn local_zone() -> TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    ZONE.get_or_init(TimeZone::system).clone()
}

/// Now, in the zone of this machine.
#[must_use]
pub fn local_now() -> Zoned {
    Timestamp::now().to_zoned(local_zone())
}

/// A time as in a Date header, with the zone's name as a comment:
/// `Sat, 21 Nov 2026 19:33:53 +0000 (UTC)` (RFC 5322, section 3.3; the day is not padded).
#[must_use]
pub fn time_to_text(at: Timestamp, zone: &TimeZone) -> String {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let information = zone.to_offset_info(at);
    let offset = information.offset();
    let local = offset.to_datetime(at);
    let name = |names: &[&'static str], index: i8| {
        usize::try_from(index).ok().and_then(|i| names.get(i)).copied().unwrap_or_default()
    };
    let minutes = offset.seconds() / 60;
    format!(
        "{}, {} {} {} {:02}:{:02}:{:02} {}{:02}{:02} ({})",
        name(&DAYS, local.weekday().to_monday_zero_offset()),
        local.day(),
        name(&MONTHS, local.month() - 1),
        local.year(),
        local.hour(),
        local.minute(),
        local.second(),
        if minutes < 0 { '-' } else { '+' },
        minutes.abs() / 60,
        minutes.abs() % 60,
        information.abbreviation(),
    )
}

/// A duration as in log lines: `0s`, or the units that are not zero, as in `1d2h3m4s`. Parts of a
/// second are dropped.
#[must_use]
pub fn duration_to_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [
        (seconds / 86_400, 'd'),
        (seconds / 3600 % 24, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ];
    let mut text = String::new();
    for (count, unit) in units {
        if count > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "{count}{unit}");
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_english_with_offset_and_zone_name() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let central = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let newfoundland = TimeZone::posix("NST3:30").unwrap();
        let cases = [
            ("2026-11-21T19:33:53Z", &TimeZone::UTC, "Sat, 21 Nov 2026 19:33:53 +0000 (UTC)"),
            ("2026-07-01T23:59:59Z", &central, "Thu, 2 Jul 2026 01:59:59 +0200 (CEST)"),
            ("2026-01-01T00:00:00Z", &central, "Thu, 1 Jan 2026 01:00:00 +0100 (CET)"),
            ("2024-02-29T03:00:00Z", &newfoundland, "Wed, 28 Feb 2024 23:30:00 -0330 (NST)"),
        ];
        for (time, zone, text) in cases {
            assert_eq!(time_to_text(at(time), zone), text);
        }
    }

    #[test]
    fn durations_name_only_units_that_are_not_zero() {
        let cases = [
            (0, "0s"),
            (4, "4s"),
            (60, "1m"),
            (3_604, "1h4s"),
            (86_400, "1d"),
            (93_784, "1d2h3m4s"),
            (400 * 86_400, "400d"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration_to_text(Duration::from_secs(seconds)), text);
        }
        assert_eq!(duration_to_text(Duration::from_millis(1999)), "1s");
    }
}
