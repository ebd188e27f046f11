//! The Sender Rewriting Scheme: senders of forwarded mail that lead back here.
//!
//! A server that forwards a message may not send for the sender's domain (SPF). So the sender
//! becomes an address of a domain of ours that names the original one, the day, and a hash that
//! only we can make: `SRS0=HHHH=TT=domain=user@ours`. One that another server has rewritten
//! already becomes `SRS1`, which leads to that server and over it to the original. A report to
//! such an address is turned back.
//!
//! The hash is four characters of base64 of SHA-1 over the key and all that follows the hash, the
//! domain included. A day is a number modulo 1024 in two base32 digits.
//!
//! Sources: "SRS: The Sender Rewriting Scheme" (Shevek, 2004); the SMTP page of the specification,
//! 4.2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use super::address::is_local_part;
use crate::model::Mailbox;

/// Days after which their numbers begin anew.
const MODULUS: i64 = 1024;
/// Days by which the clock of who signed may be ahead.
const AHEAD: i64 = 1;
/// Longest rewritten address, in bytes.
const MAX_ADDRESS: usize = 255;
/// Characters of a hash.
const HASH: usize = 4;
/// The digits of days.
const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// What may stand behind a hash of another server.
const SEPARATORS: [u8; 3] = *b"=+-";

/// Why an address is not turned back; the text is for the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SrsError {
    /// It was not made with a key of ours, or was changed.
    #[error("the hash is not ours")]
    Hash,
    /// A part of it is missing, or what it leads to is no address.
    #[error("the form is not that of SRS")]
    Syntax,
    /// It was made too long ago, or in the future.
    #[error("it is too old, or from the future")]
    Time,
}

/// The first digit of the scheme, and what stands behind `SRS0=` or `SRS1=`.
fn scheme(local: &str) -> Option<(u8, &str)> {
    let (prefix, rest) = local.split_at_checked(5)?;
    match prefix.as_bytes() {
        [b'S' | b's', b'R' | b'r', b'S' | b's', digit @ (b'0' | b'1'), b'='] => {
            Some((*digit, rest))
        }
        _ => None,
    }
}

/// Whether this local part is that of a rewritten sender.
#[must_use]
pub fn is_rewritten(local: &str) -> bool {
    scheme(local).is_some()
}

/// The sender of a message that is forwarded for a recipient in `domain`, on the day `day` (since
/// 1970). `None` if it cannot be rewritten: it is to be left as it is.
#[must_use]
pub fn rewrite(sender: &Mailbox, domain: &str, key: &str, day: i64) -> Option<Mailbox> {
    let (digit, signed) = match scheme(sender.local()) {
        None => ('0', format!("{}={}={}", day_text(day), sender.domain(), sender.local())),
        Some((b'0', rest)) => ('1', format!("{}=={rest}", sender.domain())),
        Some((_, rest)) => {
            let (_, behind) = rest.split_at_checked(HASH)?;
            let separator = behind.as_bytes().first()?;
            if !SEPARATORS.contains(separator) {
                return None;
            }
            ('1', behind.get(1..)?.to_owned())
        }
    };
    let signed = format!("{signed}@{domain}");
    let text = format!("SRS{digit}={}={signed}", hash(key, &signed));
    let rewritten = Mailbox::parse(&text).ok()?;
    (text.len() <= MAX_ADDRESS && is_local_part(rewritten.local())).then_some(rewritten)
}

/// The address that a rewritten one stands for, on the day `day` (since 1970). `keys` are tried in
/// their order; `days` is how long an address can be turned back.
///
/// # Errors
/// It is to be taken as it is.
pub fn turn_back(
    address: &Mailbox,
    keys: &[&str],
    days: u32,
    day: i64,
) -> Result<Mailbox, SrsError> {
    let (digit, rest) = scheme(address.local()).ok_or(SrsError::Syntax)?;
    let (given, behind) = rest.split_at_checked(HASH).ok_or(SrsError::Syntax)?;
    let mut behind = behind.chars();
    // Whatever separates them.
    behind.next().ok_or(SrsError::Syntax)?;
    let signed = behind.as_str();
    let whole = format!("{signed}@{}", address.domain());
    if !keys.iter().any(|key| hash(key, &whole) == given) {
        return Err(SrsError::Hash);
    }
    let text = if digit == b'0' {
        let dated = check_day(signed, days, day)?;
        let (domain, user) = dated.split_once('=').ok_or(SrsError::Syntax)?;
        format!("{user}@{domain}")
    } else {
        let (last, original) = signed.split_once("==").ok_or(SrsError::Syntax)?;
        // Its hash is of the server that it leads to.
        let (_, dated) = original.split_at_checked(HASH).ok_or(SrsError::Syntax)?;
        let dated = dated.strip_prefix(separator).ok_or(SrsError::Syntax)?;
        check_day(dated, days, day)?;
        format!("SRS0={original}@{last}")
    };
    let original = Mailbox::parse(&text).map_err(|_| SrsError::Syntax)?;
    if is_local_part(original.local()) && super::address::is_domain(original.domain()) {
        Ok(original)
    } else {
        Err(SrsError::Syntax)
    }
}

fn separator(character: char) -> bool {
    u8::try_from(character).is_ok_and(|byte| SEPARATORS.contains(&byte))
}

/// What follows the day that `text` begins with, if that is not over.
fn check_day(text: &str, days: u32, day: i64) -> Result<&str, SrsError> {
    let (digits, behind) = text.split_at_checked(2).ok_or(SrsError::Syntax)?;
    let behind = behind.strip_prefix(separator).ok_or(SrsError::Syntax)?;
    let mut number = 0;
    for digit in digits.bytes() {
        let value = DIGITS.iter().position(|&known| known == digit).ok_or(SrsError::Syntax)?;
        number = number * 32 + i64::try_from(value).map_err(|_| SrsError::Syntax)?;
    }
    let age = (day - number).rem_euclid(MODULUS);
    let ahead = (number - day).rem_euclid(MODULUS);
    if age <= i64::from(days) || ahead <= AHEAD { Ok(behind) } else { Err(SrsError::Time) }
}

fn day_text(day: i64) -> String {
    let number = day.rem_euclid(MODULUS);
    let digit = |value: i64| {
        let index = usize::try_from(value % 32).unwrap_or_default();
        char::from(DIGITS.get(index).copied().unwrap_or(b'A'))
    };
    [digit(number / 32), digit(number)].into_iter().collect()
}

/// The hash of `signed`, in characters that a local part may have.
fn hash(key: &str, signed: &str) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(signed).finalize();
    let mut text = STANDARD.encode(digest).replace('/', "_").replace('+', "-");
    text.truncate(HASH);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spec_case::ran;

    const KEY: &str = "secretkey";
    /// The day whose text is `JK`.
    const DAY: i64 = 9 * 32 + 10 + 20 * MODULUS;

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap()
    }

    fn rewritten(sender: &str) -> Option<String> {
        rewrite(&mailbox(sender), "example.org", KEY, DAY).map(|mailbox| mailbox.to_string())
    }

    #[test]
    fn hashes_and_days_are_those_of_the_scheme() {
        let cases = [
            ("JK=b=a@example.org", "DE-Y"),
            ("first.test==Ksxc=JK=b=a@example.org", "bxpC"),
            ("AA=b=a@example.org", "zvKU"),
        ];
        for (signed, expected) in cases {
            assert_eq!(hash(KEY, signed), expected, "{signed}");
        }
        let days = [(0, "AA"), (1, "AB"), (31, "A7"), (32, "BA"), (1023, "77"), (1024, "AA")];
        for (day, expected) in days {
            assert_eq!(day_text(day), expected, "{day}");
        }
        assert_eq!(day_text(DAY), "JK");
    }

    #[test]
    fn senders_are_rewritten() {
        let long = format!("{}@b", "a".repeat(200));
        let fits = format!("{}@b", "a".repeat(255 - "SRS0=HHHH=JK=b=@example.org".len()));
        let fitting = rewritten(&fits).map(|text| text.len());
        assert_eq!(fitting, Some(255));
        let cases = [
            (207, "a@b", Some("SRS0=DE-Y=JK=b=a@example.org")),
            (
                209,
                "SRS1=abcd=first.test==HHHH=TT=b=a@second.test",
                Some("SRS1=Cdfn=first.test==HHHH=TT=b=a@example.org"),
            ),
            (
                210,
                "SRS0=Ksxc=JK=b=a@first.test",
                Some("SRS1=bxpC=first.test==Ksxc=JK=b=a@example.org"),
            ),
            (
                0,
                "srs0=Ksxc=JK=b=a@first.test",
                Some("SRS1=bxpC=first.test==Ksxc=JK=b=a@example.org"),
            ),
            (
                0,
                "SRS1=abcd+first.test==HHHH=TT=b=a@second.test",
                Some("SRS1=Cdfn=first.test==HHHH=TT=b=a@example.org"),
            ),
            (0, "SRS1=abcdefirst.test==HHHH=TT=b=a@second.test", None),
            (0, "SRS1=abc@second.test", None),
            (0, "a@[1.2.3.4]", None),
        ];
        for (number, sender, expected) in cases {
            assert_eq!(rewritten(sender).as_deref(), expected, "smtp case {number}");
            ran("smtp", number);
        }
        assert!(rewritten(&long).is_some());
        assert_eq!(rewritten(&format!("{}@b", "a".repeat(229))), None, "255 bytes at most");
    }

    #[test]
    fn rewritten_senders_are_turned_back_while_they_are_good() {
        let signed_on = |day: i64| {
            let address = rewrite(&mailbox("orig@src.test"), "example.org", KEY, day);
            address.unwrap().to_string()
        };
        let forwarded = "SRS1=bxpC=first.test==Ksxc=JK=b=a@example.org".to_owned();
        let good = signed_on(DAY);
        let back = |text: &str| Ok(text.to_owned());
        let orig = || back("orig@src.test");
        let cases = [
            (211, good.clone(), vec![KEY], orig()),
            (212, good.clone(), vec!["newer", KEY], orig()),
            (0, good.clone(), vec!["newer"], Err(SrsError::Hash)),
            (0, good.clone(), vec![], Err(SrsError::Hash)),
            (213, signed_on(DAY - 4), vec![KEY], orig()),
            (213, signed_on(DAY - 5), vec![KEY], Err(SrsError::Time)),
            (213, signed_on(DAY + 1), vec![KEY], orig()),
            (213, signed_on(DAY + 2), vec![KEY], Err(SrsError::Time)),
            (214, good.to_lowercase(), vec![KEY], Err(SrsError::Hash)),
            (214, good.replace("SRS0=", "srs0="), vec![KEY], orig()),
            (0, good.replace("orig", "evil"), vec![KEY], Err(SrsError::Hash)),
            (0, good.replace("example.org", "other.test"), vec![KEY], Err(SrsError::Hash)),
            (0, forwarded, vec![KEY], back("SRS0=Ksxc=JK=b=a@first.test")),
            (0, "SRS0=@example.org".into(), vec![KEY], Err(SrsError::Syntax)),
            (0, "SRS0=abcd@example.org".into(), vec![KEY], Err(SrsError::Syntax)),
            (0, "orig@src.test".into(), vec![KEY], Err(SrsError::Syntax)),
        ];
        for (number, address, keys, expected) in cases {
            let found = turn_back(&mailbox(&address), &keys, 4, DAY).map(|found| found.to_string());
            assert_eq!(found, expected, "smtp case {number}: {address}");
            ran("smtp", number);
        }
        assert!(is_rewritten("SRS0=x") && is_rewritten("srs1=x"));
        assert!(!is_rewritten("SRS2=x") && !is_rewritten("SRS0") && !is_rewritten("a"));
    }

    // Who knows the key can sign what leads nowhere; a day over the turn of the count is near.
    #[test]
    fn what_was_signed_must_still_be_an_address() {
        let sign = |signed: &str| {
            let whole = format!("{signed}@example.org");
            mailbox(&format!("SRS0={}={whole}", hash(KEY, &whole)))
        };
        let cases = [
            ("JK=b", Err(SrsError::Syntax)),
            ("JK=b=", Err(SrsError::Syntax)),
            ("JK==a", Err(SrsError::Syntax)),
            ("JK=b=a@c", Err(SrsError::Syntax)),
            ("JKxb=a", Err(SrsError::Syntax)),
            ("jk=b=a", Err(SrsError::Syntax)),
            ("J", Err(SrsError::Syntax)),
            ("JK=b=a=c", Ok("a=c@b".to_owned())),
        ];
        for (signed, expected) in cases {
            let found = turn_back(&sign(signed), &[KEY], 4, DAY).map(|found| found.to_string());
            assert_eq!(found, expected, "{signed}");
        }
        let old = rewrite(&mailbox("a@b"), "c.test", KEY, MODULUS - 1).unwrap();
        assert_eq!(turn_back(&old, &[KEY], 4, MODULUS + 2), Ok(mailbox("a@b")));
    }

    proptest! {
        #[test]
        fn what_is_rewritten_is_turned_back(
            local in "[a-z=+-]{1,20}(\\.[a-z]{1,5})?",
            domain in "[a-z]{1,10}\\.test",
            day in 0_i64..100_000,
        ) {
            let sender = mailbox(&format!("{local}@{domain}"));
            let once = rewrite(&sender, "one.test", KEY, day).unwrap();
            prop_assert_eq!(turn_back(&once, &[KEY], 4, day), Ok(sender));
            let twice = rewrite(&once, "two.test", "other", day).unwrap();
            prop_assert_eq!(turn_back(&twice, &["other"], 4, day), Ok(once));
        }

        #[test]
        fn no_address_breaks_the_reader(local in "(SRS[01]=)?[!-;A-~\u{e9}]{1,30}") {
            if let Ok(address) = Mailbox::new(&local, "example.org") {
                let _ = turn_back(&address, &[KEY], 4, DAY);
                let _ = rewrite(&address, "one.test", KEY, DAY);
            }
        }
    }
}
