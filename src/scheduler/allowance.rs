//! The rate at which overdue envelopes are released.
//!
//! After an outage there may be a hundred thousand of them; let loose at once they would keep new
//! mail from the disk, the name servers and the relays.

use std::time::Duration;

/// How many overdue envelopes may be released: so many a second, saved up for one second.
#[derive(Debug)]
pub(super) struct Allowance {
    per_second: u32,
    /// Thousandths of an envelope.
    saved: i64,
    /// Milliseconds on the time line.
    refilled: i64,
}

impl Allowance {
    /// A second's worth, saved up at `now`, in milliseconds.
    pub(super) fn full(per_second: u32, now: i64) -> Self {
        let per_second = per_second.max(1);
        Self { per_second, saved: i64::from(per_second) * 1000, refilled: now }
    }

    /// Another rate from now on.
    pub(super) fn change(&mut self, per_second: u32) {
        self.per_second = per_second.max(1);
    }

    /// Adds what the time since the last call allows.
    pub(super) fn refill(&mut self, now: i64) {
        let elapsed = now.saturating_sub(self.refilled).clamp(0, 1000);
        let most = i64::from(self.per_second) * 1000;
        self.saved = (self.saved + elapsed * i64::from(self.per_second)).min(most);
        self.refilled = now;
    }

    /// Envelopes that may be released now.
    pub(super) fn available(&self) -> usize {
        usize::try_from(self.saved / 1000).unwrap_or(0)
    }

    /// So many have been released.
    pub(super) fn spend(&mut self, envelopes: usize) {
        self.saved -= i64::try_from(envelopes).unwrap_or(i64::MAX).saturating_mul(1000);
    }

    /// Time until one envelope is allowed.
    pub(super) fn wait(&self) -> Duration {
        let missing = (1000 - self.saved).max(0);
        let milliseconds = missing.unsigned_abs().div_ceil(u64::from(self.per_second));
        Duration::from_millis(milliseconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_saved_up_and_no_more() {
        let mut allowance = Allowance::full(3, 0);
        assert_eq!((allowance.available(), allowance.wait()), (3, Duration::ZERO));
        allowance.spend(3);
        assert_eq!((allowance.available(), allowance.wait()), (0, Duration::from_millis(334)));
        allowance.refill(333);
        assert_eq!((allowance.available(), allowance.wait()), (0, Duration::from_millis(1)));
        allowance.refill(334);
        assert_eq!((allowance.available(), allowance.wait()), (1, Duration::ZERO));
        allowance.refill(3_600_000);
        assert_eq!(allowance.available(), 3);
        allowance.refill(i64::MIN);
        allowance.refill(i64::MAX);
        assert_eq!(allowance.available(), 3);
        allowance.change(0);
        allowance.spend(3);
        assert_eq!(allowance.wait(), Duration::from_secs(1), "the slowest rate is one a second");
    }
}
