//! The time line on which envelopes are scheduled.
//!
//! Envelopes store wall time, which an administrator, a time server or a flat battery may move.
//! The scheduler therefore runs on a line of its own: it starts at the wall clock, follows the
//! monotonic clock, and never goes back. A step of the wall clock is followed forward by at most
//! an hour, so that a suspended machine catches up but a wrong date expires nothing; a step back
//! is made good by later steps forward, not by waiting twice.

use std::time::Duration;

/// The furthest that one step of the wall clock moves the time line, in milliseconds.
const MAX_STEP: i64 = 3_600_000;

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reading {
    /// Time since an arbitrary start; never goes back.
    pub monotonic: Duration,
    /// Milliseconds since 1970.
    pub wall: i64,
}

/// Seconds on the time line: comparable with one another, equal to wall time while it is steady.
pub type Seconds = i64;

/// A clock that never goes back, steered by [`Reading`]s.
#[derive(Debug)]
pub struct TimeLine {
    latest: Reading,
    now: i64,
    /// Milliseconds that the line is before the wall clock after steps back.
    ahead: i64,
}

impl TimeLine {
    /// A line that starts at the wall time of `start`.
    #[must_use]
    pub fn new(start: Reading) -> Self {
        Self { latest: start, now: start.wall, ahead: 0 }
    }

    /// Moves on to `reading`.
    pub fn observe(&mut self, reading: Reading) {
        let elapsed = reading.monotonic.saturating_sub(self.latest.monotonic);
        let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        let step = reading
            .wall
            .saturating_sub(self.latest.wall)
            .saturating_sub(elapsed)
            .clamp(-MAX_STEP, MAX_STEP);
        self.ahead = self.ahead.saturating_sub(step);
        self.now = self.now.saturating_add(elapsed);
        if self.ahead < 0 {
            self.now = self.now.saturating_sub(self.ahead);
            self.ahead = 0;
        }
        self.latest =
            Reading { monotonic: reading.monotonic.max(self.latest.monotonic), wall: reading.wall };
    }

    /// Whole seconds on the line.
    #[must_use]
    pub fn seconds(&self) -> Seconds {
        self.now.div_euclid(1000)
    }

    /// Milliseconds on the line.
    #[must_use]
    pub fn milliseconds(&self) -> i64 {
        self.now
    }

    /// Where on the line the wall time `created`, in seconds, is; never after now.
    #[must_use]
    pub fn place(&self, created: i64) -> Seconds {
        let age = self.latest.wall.div_euclid(1000).saturating_sub(created).max(0);
        self.seconds().saturating_sub(age)
    }

    /// Time until `due`; zero if that is now or past.
    #[must_use]
    pub fn until(&self, due: Seconds) -> Duration {
        let left = due.saturating_mul(1000).saturating_sub(self.now);
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn reading(monotonic: i64, wall: i64) -> Reading {
        Reading { monotonic: Duration::from_millis(monotonic.unsigned_abs()), wall }
    }

    #[test]
    fn the_line_follows_small_steps_and_clamps_large_ones() {
        // Readings after a start at 0 and wall 100 h, then the time on the line.
        type Case<'a> = (&'a str, &'a [(i64, i64)], i64);
        let cases: [Case; 8] = [
            ("steady", &[(5000, 100 * HOUR + 5000)], 100 * HOUR + 5000),
            ("forward a minute", &[(1000, 100 * HOUR + 61_000)], 100 * HOUR + 61_000),
            ("forward a year", &[(1000, 8860 * HOUR + 1000)], 101 * HOUR + 1000),
            ("back a minute", &[(1000, 100 * HOUR - 59_000)], 100 * HOUR + 1000),
            ("back a year", &[(1000, -8660 * HOUR)], 100 * HOUR + 1000),
            (
                "back and forward again gains nothing",
                &[(1000, 100 * HOUR - 59_000), (2000, 100 * HOUR + 2000)],
                100 * HOUR + 2000,
            ),
            (
                "a wrong date does not go on counting",
                &[(1000, 8860 * HOUR + 1000), (2000, 8860 * HOUR + 2000)],
                101 * HOUR + 2000,
            ),
            ("monotonic that stands still", &[(0, 100 * HOUR)], 100 * HOUR),
        ];
        for (name, readings, expected) in cases {
            let mut line = TimeLine::new(reading(0, 100 * HOUR));
            for &(monotonic, wall) in readings {
                line.observe(reading(monotonic, wall));
            }
            assert_eq!(line.milliseconds(), expected, "{name}");
        }
    }

    #[test]
    fn extreme_readings_saturate() {
        let mut line = TimeLine::new(reading(0, i64::MIN));
        line.observe(Reading { monotonic: Duration::MAX, wall: i64::MAX });
        line.observe(Reading { monotonic: Duration::ZERO, wall: i64::MIN });
        line.observe(Reading { monotonic: Duration::MAX, wall: i64::MAX });
        assert_eq!(line.until(i64::MIN), Duration::ZERO);
        assert!(line.place(i64::MIN) <= line.seconds());
    }

    #[test]
    fn an_envelope_from_the_future_is_as_old_as_now() {
        let mut line = TimeLine::new(reading(0, 100 * HOUR));
        line.observe(reading(0, 99 * HOUR));
        assert_eq!(line.place(100 * 3600), line.seconds());
        assert_eq!(line.place(99 * 3600 - 10), line.seconds() - 10);
    }
}
