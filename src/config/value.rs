//! Small notations inside values: delays and sizes.
//!
//! Source: smtpd.conf(5); sizes as scan_scaled(3) reads them.

use std::time::Duration;

/// Reads a delay: a whole number of at least 1 and one of the units `s`, `m`, `h`, `d`; at most
/// 2,147,483,647 seconds.
///
/// # Errors
/// The text to complain about: without its unit when the number is at fault.
pub(super) fn delay(text: &str) -> Result<Duration, &str> {
    let unit: u64 = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 60 * 60,
        Some(b'd') => 24 * 60 * 60,
        _ => return Err(text),
    };
    let number = &text[..text.len() - 1];
    let seconds = number
        .trim_start()
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(unit))
        .filter(|seconds| (1..=i32::MAX as u64).contains(seconds));
    seconds.map(Duration::from_secs).ok_or(number)
}

/// Reads a size in bytes: digits, a fraction if there is a scale, one of the scales `B K M G T P E`
/// (powers of 1024, either case). `None` for anything else, for negative and for more than 63 bits.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim_start();
    let text = text.strip_prefix('+').unwrap_or(text);
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = text.split_at(digits);
    let (fraction, scale) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let shift = match scale.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        "E" => 60,
        _ => return None,
    };
    let unit = 1u128 << shift;
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part = match fraction.len() {
        0 => 0,
        // More digits than these change nothing: 10^18 is finer than a byte of any scale.
        length => {
            let kept = &fraction[..length.min(18)];
            kept.parse::<u128>().ok()? * unit / 10u128.pow(u32::try_from(kept.len()).ok()?)
        }
    };
    let bytes = whole.checked_mul(unit)?.checked_add(part)?;
    u64::try_from(bytes).ok().filter(|&bytes| i64::try_from(bytes).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays() {
        // config cases 79, 80, 126, 133
        let good = [("1s", 1), ("4d", 345_600), ("24855d", 2_147_472_000), (" +2h", 7200)];
        for (text, seconds) in good {
            assert_eq!(delay(text), Ok(Duration::from_secs(seconds)), "{text:?}");
        }
        let bad = [
            ("0s", "0"),
            ("1w", "1w"),
            ("1.5h", "1.5"),
            ("24856d", "24856"),
            ("forever", "forever"),
            ("", ""),
            ("d", ""),
            ("-1d", "-1"),
            ("é", "é"),
        ];
        for (text, complaint) in bad {
            assert_eq!(delay(text), Err(complaint), "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        // config cases 127, 128
        let cases = [
            ("35M", Some(36_700_160)),
            ("1.5G", Some(1_610_612_736)),
            ("0", Some(0)),
            ("10b", Some(10)),
            ("1.5", Some(1)),
            (".5k", Some(512)),
            ("7E", Some(7 << 60)),
            ("9E", None),
            ("10MB", None),
            ("10X", None),
            ("-5M", None),
            ("", None),
            (".", None),
            ("M", None),
            ("99999999999999999999999999999999999999999E", None),
        ];
        for (text, expected) in cases {
            assert_eq!(size(text), expected, "{text:?}");
        }
    }
}
