//! Parameters of MAIL and RCPT.
//!
//! Sources: RFC 1870 (SIZE), RFC 3461 (RET, ENVID, NOTIFY, ORCPT), RFC 4954 section 5 (AUTH),
//! RFC 6152 (BODY), RFC 6531 (SMTPUTF8), RFC 6533 (ORCPT with it); the SMTP page of the specification, 1.7.

use crate::model::envelope::{Notify, RecipientDsn, Ret};
use crate::proto::reply;

/// Longest ENVID, in bytes.
pub const MAX_ENVID: usize = 100;
/// Longest ORCPT, in bytes.
pub const MAX_ORCPT: usize = 500;

/// What a listener takes.
#[derive(Clone, Copy, Debug)]
pub struct Offered {
    /// RET, ENVID, NOTIFY and ORCPT.
    pub dsn: bool,
    /// SMTPUTF8. For RCPT: whether MAIL had it.
    pub smtputf8: bool,
    /// Largest value of SIZE.
    pub max_message_size: u64,
}

/// Parameters of MAIL that are kept.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MailParameters {
    /// How much of the message a failure report returns.
    pub ret: Option<Ret>,
    /// The client's identifier of the transaction.
    pub envid: Option<String>,
    /// Whether addresses and headers may be in UTF-8.
    pub smtputf8: bool,
}

/// A parameter was refused, with this reply.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Reads what follows the path of MAIL.
///
/// # Errors
/// The reply to the first parameter, from the left, that is not taken.
pub fn mail(text: &[u8], offered: Offered) -> Result<MailParameters, Refused> {
    let mut parameters = MailParameters::default();
    for option in options(text) {
        let unsupported = || Refused(unsupported("503 5.5.4 Invalid command arguments: ", option));
        let (name, value) = name_and_value(option);
        match (name.to_ascii_uppercase().as_slice(), value) {
            (b"SIZE", Some(size)) => check_size(size, offered.max_message_size)?,
            (b"AUTH", Some(_)) => {}
            (b"BODY", Some(body))
                if body.eq_ignore_ascii_case(b"7BIT") || body.eq_ignore_ascii_case(b"8BITMIME") => {
            }
            (b"RET", Some(ret)) if offered.dsn => {
                if ret.eq_ignore_ascii_case(b"HDRS") {
                    parameters.ret = Some(Ret::Headers);
                } else if ret.eq_ignore_ascii_case(b"FULL") {
                    parameters.ret = Some(Ret::Full);
                }
            }
            (b"SMTPUTF8", None) if offered.smtputf8 => parameters.smtputf8 = true,
            (b"ENVID", Some(envid)) if offered.dsn => parameters.envid = Some(check_envid(envid)?),
            _ => return Err(unsupported()),
        }
    }
    Ok(parameters)
}

/// Reads what follows the path of RCPT. Parameters belong to this one recipient.
///
/// # Errors
/// The reply to the first parameter, from the left, that is not taken.
pub fn recipient(text: &[u8], offered: Offered) -> Result<RecipientDsn, Refused> {
    let mut dsn = RecipientDsn::default();
    for option in options(text) {
        let (name, value) = name_and_value(option);
        match (name.to_ascii_uppercase().as_slice(), value) {
            (b"NOTIFY", Some(words)) if offered.dsn => {
                dsn.notify.0 |= notify_bits(words);
                if dsn.notify.has(Notify::NEVER) && dsn.notify.0 != Notify::NEVER {
                    return Err(Refused(reply::NEVER_COMBINED.to_owned()));
                }
            }
            (b"ORCPT", Some(orcpt)) if offered.dsn => {
                let checked = check_orcpt(orcpt, offered.smtputf8);
                dsn.orcpt =
                    Some(checked.ok_or_else(|| Refused(reply::BAD_ORIGINAL_RECIPIENT.to_owned()))?);
            }
            _ => return Err(Refused(unsupported("503 ", option))),
        }
    }
    Ok(dsn)
}

/// The pieces between single spaces that are not empty.
fn options(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b' ').filter(|piece| !piece.is_empty())
}

fn name_and_value(option: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut halves = option.splitn(2, |&byte| byte == b'=');
    (halves.next().unwrap_or_default(), halves.next())
}

fn unsupported(code: &str, option: &[u8]) -> String {
    format!("{code}Unsupported option {}", String::from_utf8_lossy(option))
}

fn check_size(size: &[u8], limit: u64) -> Result<(), Refused> {
    if size.is_empty() || !size.iter().all(u8::is_ascii_digit) {
        return Err(Refused(reply::BAD_SIZE.to_owned()));
    }
    // A number beyond 64 bits is above every limit.
    let number = std::str::from_utf8(size).ok().and_then(|text| text.parse::<u64>().ok());
    if number.is_none_or(|number| number > limit) {
        return Err(Refused(reply::DECLARED_TOO_BIG.to_owned()));
    }
    Ok(())
}

/// An ENVID is stored and sent on as received: printable ASCII, which has no line end.
fn check_envid(envid: &[u8]) -> Result<String, Refused> {
    if envid.len() > MAX_ENVID {
        let value = String::from_utf8_lossy(envid);
        return Err(Refused(format!(
            "503 5.5.4 Invalid command arguments: option too large, truncated: {value}"
        )));
    }
    printable(envid).ok_or_else(|| Refused(reply::BAD_ENVID.to_owned()))
}

/// `type;xtext`: the type is any printable text, the rest xtext with upper-case digits (RFC 3461,
/// sections 4 and 4.2). With SMTPUTF8 an address of type `utf-8` may be in UTF-8; what is returned is
/// its form in ASCII, which every server takes that knows ORCPT (RFC 6533, section 3).
fn check_orcpt(orcpt: &[u8], smtputf8: bool) -> Option<String> {
    let in_ascii = if smtputf8 { without_utf8(orcpt) } else { None };
    let orcpt = in_ascii.as_deref().unwrap_or(orcpt);
    if orcpt.len() > MAX_ORCPT {
        return None;
    }
    let semicolon = orcpt.iter().position(|&byte| byte == b';')?;
    let mut rest = orcpt.get(semicolon + 1..)?;
    loop {
        rest = match rest {
            [] => return printable(orcpt),
            [b'+', high, low, tail @ ..] if is_upper_hex(*high) && is_upper_hex(*low) => tail,
            [b'+' | b'=', ..] => return None,
            [b'!'..=b'~', tail @ ..] => tail,
            _ => return None,
        };
    }
}

/// An address of type `utf-8` with `\x{…}` for each character that is not ASCII; `None` for a value
/// of another kind.
fn without_utf8(orcpt: &[u8]) -> Option<Vec<u8>> {
    let (kind, address) = std::str::from_utf8(orcpt).ok()?.split_once(';')?;
    if !kind.eq_ignore_ascii_case("utf-8") || address.contains(char::is_control) {
        return None;
    }
    let mut text = format!("{kind};");
    for character in address.chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            text.push_str(&format!("\\x{{{:X}}}", u32::from(character)));
        }
    }
    Some(text.into_bytes())
}

fn is_upper_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'F')
}

fn printable(bytes: &[u8]) -> Option<String> {
    let plain = bytes.iter().all(|byte| matches!(byte, b'!'..=b'~'));
    plain.then(|| String::from_utf8_lossy(bytes).into_owned())
}

/// The set that a comma-separated list names; unknown words are ignored.
fn notify_bits(words: &[u8]) -> u8 {
    const BITS: [(&[u8], u8); 4] = [
        (b"SUCCESS", Notify::SUCCESS),
        (b"FAILURE", Notify::FAILURE),
        (b"DELAY", Notify::DELAY),
        (b"NEVER", Notify::NEVER),
    ];
    words
        .split(|&byte| byte == b',')
        .filter_map(|word| BITS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)))
        .fold(0, |set, (_, bit)| set | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERED: Offered = Offered { dsn: true, smtputf8: true, max_message_size: 36_700_160 };
    const NO_DSN: Offered = Offered { dsn: false, ..OFFERED };
    const NO_UTF8: Offered = Offered { smtputf8: false, ..OFFERED };

    // Proves: smtp cases 67-77 (the parameters).
    #[test]
    fn parameters_of_mail() {
        let keep = |ret: Option<Ret>, envid: Option<&str>| {
            Ok(MailParameters { ret, envid: envid.map(str::to_owned), smtputf8: false })
        };
        let nothing = || keep(None, None);
        let unsupported = |option: &str| {
            Err(format!("503 5.5.4 Invalid command arguments: Unsupported option {option}"))
        };
        let long = "x".repeat(101);
        let too_long = format!("ENVID={long}");
        let fits = format!("ENVID={}", "x".repeat(100));
        let cases = [
            ("", OFFERED, nothing()),
            (" SIZE=10", OFFERED, nothing()),
            ("SIZE=10", OFFERED, nothing()),
            (" size=36700160", OFFERED, nothing()),
            (" SIZE=36700161", OFFERED, Err(reply::DECLARED_TOO_BIG.to_owned())),
            (" SIZE=99999999999", OFFERED, Err(reply::DECLARED_TOO_BIG.to_owned())),
            (" SIZE=99999999999999999999999", OFFERED, Err(reply::DECLARED_TOO_BIG.to_owned())),
            (" SIZE=abc", OFFERED, Err(reply::BAD_SIZE.to_owned())),
            (" SIZE=", OFFERED, Err(reply::BAD_SIZE.to_owned())),
            (" SIZE=+1", OFFERED, Err(reply::BAD_SIZE.to_owned())),
            (" SIZE", OFFERED, unsupported("SIZE")),
            (" BODY=8BITMIME", OFFERED, nothing()),
            ("  body=7bit ", OFFERED, nothing()),
            (" BODY=BINARYMIME", OFFERED, unsupported("BODY=BINARYMIME")),
            (" AUTH=<>", OFFERED, nothing()),
            (" SMTPUTF8", OFFERED, Ok(MailParameters { smtputf8: true, ..Default::default() })),
            (" smtputf8", OFFERED, Ok(MailParameters { smtputf8: true, ..Default::default() })),
            (" SMTPUTF8=1", OFFERED, unsupported("SMTPUTF8=1")),
            (" SMTPUTF8", NO_UTF8, unsupported("SMTPUTF8")),
            (" RET=HDRS ENVID=abc", OFFERED, keep(Some(Ret::Headers), Some("abc"))),
            (" ret=full", OFFERED, keep(Some(Ret::Full), None)),
            (" RET=FOO", OFFERED, nothing()),
            (" RET=FULL", NO_DSN, unsupported("RET=FULL")),
            (" ENVID=a", NO_DSN, unsupported("ENVID=a")),
            (" ENVID=a\rb", OFFERED, Err(reply::BAD_ENVID.to_owned())),
            ("\tSIZE=1", OFFERED, unsupported("\tSIZE=1")),
            (fits.as_str(), OFFERED, keep(None, Some(&fits["ENVID=".len()..]))),
            (
                too_long.as_str(),
                OFFERED,
                Err(format!(
                    "503 5.5.4 Invalid command arguments: option too large, truncated: {long}"
                )),
            ),
        ];
        for (text, offered, expected) in cases {
            assert_eq!(mail(text.as_bytes(), offered).map_err(|e| e.0), expected, "{text:?}");
        }
    }

    // Proves: smtp cases 85-93 (the parameters).
    #[test]
    fn parameters_of_rcpt() {
        let keep = |notify: u8, orcpt: Option<&str>| {
            Ok(RecipientDsn { notify: Notify(notify), orcpt: orcpt.map(str::to_owned) })
        };
        let unsupported = |option: &str| Err(format!("503 Unsupported option {option}"));
        let never = || Err("553 NOTIFY option NEVER cannot be combined with other options".into());
        let orcpt = || Err("553 ORCPT address syntax error".to_owned());
        let long = format!(" ORCPT=rfc822;{}", "x".repeat(494));
        // 200 bytes, but not in the form that is kept.
        let long_utf8 = format!(" ORCPT=utf-8;{}", "ü".repeat(100));
        let cases = [
            ("", OFFERED, keep(0, None)),
            ("x", OFFERED, unsupported("x")),
            (" FOO=1", OFFERED, unsupported("FOO=1")),
            (" NOTIFY=SUCCESS,FAILURE", OFFERED, keep(3, None)),
            (" notify=delay,whatever", OFFERED, keep(4, None)),
            (" NOTIFY=NEVER", OFFERED, keep(8, None)),
            (" NOTIFY=NEVER,DELAY", OFFERED, never()),
            (" NOTIFY=NEVER NOTIFY=DELAY", OFFERED, never()),
            (" ORCPT=rfc822;a+2Bb@c", OFFERED, keep(0, Some("rfc822;a+2Bb@c"))),
            (" ORCPT=rfc822;a+2bb@c", OFFERED, orcpt()),
            (" ORCPT=foo", OFFERED, orcpt()),
            (" ORCPT=rfc822;a=b", OFFERED, orcpt()),
            (" ORCPT=rfc822;a+2", OFFERED, orcpt()),
            (" ORCPT=a\rb;c", OFFERED, orcpt()),
            (" ORCPT=;", OFFERED, keep(0, Some(";"))),
            (" ORCPT=utf-8;ü+2B@用.x", OFFERED, keep(0, Some("utf-8;\\x{FC}+2B@\\x{7528}.x"))),
            (" ORCPT=UTF-8;a\\x{FC}@c", OFFERED, keep(0, Some("UTF-8;a\\x{FC}@c"))),
            (" ORCPT=utf-8;ü+2b@c", OFFERED, orcpt()),
            (" ORCPT=utf-8;ü\u{85}@c", OFFERED, orcpt()),
            (" ORCPT=utf-8;ü@c", NO_UTF8, orcpt()),
            (" ORCPT=rfc822;ü@c", OFFERED, orcpt()),
            (long_utf8.as_str(), OFFERED, orcpt()),
            (long.as_str(), OFFERED, orcpt()),
            (" NOTIFY=NEVER", NO_DSN, unsupported("NOTIFY=NEVER")),
            (" ORCPT=rfc822;a", NO_DSN, unsupported("ORCPT=rfc822;a")),
        ];
        for (text, offered, expected) in cases {
            assert_eq!(recipient(text.as_bytes(), offered).map_err(|e| e.0), expected, "{text:?}");
        }
    }
}
