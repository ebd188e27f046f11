//! Durations in the words of the listings: `1d2h3m4s`.

use std::fmt;

/// Seconds, printed as days, hours, minutes and seconds without the parts that are zero; `0s`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seconds(pub i64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let seconds = self.0.unsigned_abs();
        let parts = [
            (seconds / 86_400, 'd'),
            (seconds / 3_600 % 24, 'h'),
            (seconds / 60 % 60, 'm'),
            (seconds % 60, 's'),
        ];
        for (number, unit) in parts.into_iter().filter(|(number, _)| *number > 0) {
            write!(f, "{number}{unit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // queue case 212, and the example of section 0.
    #[test]
    fn durations_leave_out_what_is_zero() {
        let cases = [
            (0, "0s"),
            (6, "6s"),
            (60, "1m"),
            (93_784, "1d2h3m4s"),
            (86_400, "1d"),
            (-3_661, "-1h1m1s"),
            (i64::MIN, "-106751991167300d15h30m8s"),
        ];
        for (seconds, text) in cases {
            assert_eq!(Seconds(seconds).to_string(), text);
        }
    }
}
