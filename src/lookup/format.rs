//! Format specifiers: `%{name}` in delivery commands and paths, replaced by parts of addresses and
//! of the user's account.
//!
//! What an address brings along is made harmless for a shell that the text may reach: characters
//! that mean something to it become colons. The directory of a user and the inner command of a
//! wrapper come from the administrator and stay.
//!
//! Limits: 127 bytes between the braces, 1022 bytes a value and in all.
//!
//! Source: smtpd.conf(5), FORMAT SPECIFIERS.

use super::address::Address;

/// The longest text between braces, in bytes.
const MAX_SPECIFIER: usize = 127;
/// The longest value and the longest result, in bytes.
const MAX_RESULT: usize = 1022;
/// The largest number in a range.
const MAX_INDEX: i32 = 1024;
/// What becomes a colon everywhere.
const HARMFUL: &str = "!#$&'*?`{|}~";

/// What specifiers stand for.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// `sender`: the envelope sender.
    pub sender: &'a Address,
    /// `rcpt`: the recipient as the client gave it.
    pub recipient: &'a Address,
    /// `dest`: the recipient after expansion.
    pub destination: &'a Address,
    /// `user.username`: the name in the userbase.
    pub user: &'a str,
    /// `user.directory`: the home in the userbase.
    pub directory: &'a str,
    /// `mda`: the delivery command, for wrappers alone.
    pub command: Option<&'a str>,
    /// What separates user and tag of a local part.
    pub delimiter: char,
}

/// A text cannot be expanded. The delivery fails for good.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("mda command line could not be expanded")]
pub struct BadFormat;

/// Expands `text`. A leading `~/` is the user's directory, `%%` is a percent sign. When a specifier
/// has no end within 127 bytes, the text stays as it is as a whole.
///
/// # Errors
/// [`BadFormat`]: an unknown name or modifier, a range that is none or outside the value, a value or
/// a result that is too long.
pub fn expand(text: &str, values: &Values<'_>) -> Result<String, BadFormat> {
    let mut result = String::new();
    let mut rest = text;
    if let Some(below) = text.strip_prefix("~/") {
        result.push_str(values.directory);
        result.push('/');
        rest = below;
    }
    while let Some((before, after)) = rest.split_once('%') {
        result.push_str(before);
        if let Some(specifier) = after.strip_prefix('{') {
            let Some((specifier, after)) = specifier.split_once('}') else {
                return Ok(text.to_owned());
            };
            if specifier.len() > MAX_SPECIFIER {
                return Ok(text.to_owned());
            }
            result.push_str(&value(specifier, values)?);
            rest = after;
        } else {
            result.push('%');
            rest = after.strip_prefix('%').unwrap_or(after);
        }
        if result.len() > MAX_RESULT {
            return Err(BadFormat);
        }
    }
    result.push_str(rest);
    if result.len() > MAX_RESULT { Err(BadFormat) } else { Ok(result) }
}

/// Makes a part of an address harmless for the environment of a command.
#[must_use]
pub fn for_environment(text: &str) -> String {
    harmless(text, true)
}

/// The value of what stands between braces: `NAME`, a range in brackets, modifiers after a colon.
fn value(specifier: &str, values: &Values<'_>) -> Result<String, BadFormat> {
    let end = specifier.find(['[', ':']).unwrap_or(specifier.len());
    let (name, rest) = specifier.split_at(end);
    let (range, rest) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (range, rest) = rest.split_once(']').ok_or(BadFormat)?;
            (Some(Range::parse(range)?), rest)
        }
        None => (None, rest),
    };
    let modifiers = match rest.strip_prefix(':') {
        Some(modifiers) => Some(modifiers),
        None if rest.is_empty() => None,
        None => return Err(BadFormat),
    };
    let (mut text, trusted) = named(&name.to_ascii_lowercase(), values)?;
    let mut raw = false;
    for modifier in modifiers.into_iter().flat_map(|all| all.split('|')) {
        match modifier.to_ascii_lowercase().as_str() {
            "lowercase" => text = text.to_ascii_lowercase(),
            "uppercase" => text = text.to_ascii_uppercase(),
            "strip" => text = strip(&text, values.delimiter),
            "raw" => raw = true,
            _ => return Err(BadFormat),
        }
    }
    if let Some(range) = range {
        text = range.of(&text)?;
    }
    if !trusted {
        text = harmless(&text, raw);
    }
    if text.len() > MAX_RESULT { Err(BadFormat) } else { Ok(text) }
}

/// The value of a name, and whether it comes from the administrator.
fn named(name: &str, values: &Values<'_>) -> Result<(String, bool), BadFormat> {
    let sender = || if values.sender.is_null() { String::new() } else { values.sender.to_string() };
    let text = match name {
        "sender" => sender(),
        "sender.user" => values.sender.local.clone(),
        "sender.domain" => values.sender.domain.clone(),
        "rcpt" => values.recipient.to_string(),
        "rcpt.user" => values.recipient.local.clone(),
        "rcpt.domain" => values.recipient.domain.clone(),
        "dest" => values.destination.to_string(),
        "dest.user" => values.destination.local.clone(),
        "dest.domain" => values.destination.domain.clone(),
        "user.username" => values.user.to_owned(),
        "user.directory" => return Ok((values.directory.to_owned(), true)),
        "mbox.from" if values.sender.is_null() => "MAILER-DAEMON".to_owned(),
        "mbox.from" => sender(),
        "mda" => return Ok((values.command.ok_or(BadFormat)?.to_owned(), true)),
        _ => return Err(BadFormat),
    };
    Ok((text, false))
}

/// Takes away what is between the first delimiter and the next `@`.
fn strip(text: &str, delimiter: char) -> String {
    let Some((user, tag)) = text.split_once(delimiter) else { return text.to_owned() };
    let domain = tag.find('@').and_then(|at| tag.get(at..)).unwrap_or_default();
    format!("{user}{domain}")
}

fn harmless(text: &str, percent: bool) -> String {
    let harmful = |c: char| HARMFUL.contains(c) || (c == '%' && !percent);
    text.chars().map(|c| if harmful(c) { ':' } else { c }).collect()
}

/// Which characters of a value are meant.
#[derive(Clone, Copy, Debug)]
enum Range {
    /// `[n]`.
    One(i32),
    /// `[a:b]`, both included.
    Span { first: i32, last: Option<i32> },
}

impl Range {
    fn parse(text: &str) -> Result<Self, BadFormat> {
        let number = |text: &str| {
            let number: i32 = text.parse().map_err(|_| BadFormat)?;
            if (-MAX_INDEX..=MAX_INDEX).contains(&number) { Ok(number) } else { Err(BadFormat) }
        };
        let Some((first, last)) = text.split_once(':') else {
            return number(text).map(Self::One);
        };
        let first = if first.is_empty() { 0 } else { number(first)? };
        let last = if last.is_empty() { None } else { Some(number(last)?) };
        Ok(Self::Span { first, last })
    }

    /// The characters of `text` that are meant; of an empty text, none.
    fn of(self, text: &str) -> Result<String, BadFormat> {
        let length = i32::try_from(text.chars().count()).map_err(|_| BadFormat)?;
        if length == 0 {
            return Ok(String::new());
        }
        let (first, last) = match self {
            Self::One(index) => (index, index),
            Self::Span { first, last } => {
                let first = if first < 0 { length + first } else { first };
                let last = match last {
                    None => length - 1,
                    Some(last) if last < 0 => length - 1 + last,
                    Some(last) => last.min(length - 1),
                };
                (first, last)
            }
        };
        if first < 0 || first >= length || last < first {
            return Err(BadFormat);
        }
        let skipped = usize::try_from(first).map_err(|_| BadFormat)?;
        let taken = usize::try_from(last - first + 1).map_err(|_| BadFormat)?;
        Ok(text.chars().skip(skipped).take(taken).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(use_values: impl FnOnce(&Values<'_>) -> T) -> T {
        let null = Address::default();
        let recipient = Address::new("User+T?g", "Example.org");
        let destination = Address::new("tech+abc", "dest.org");
        use_values(&Values {
            sender: &null,
            recipient: &recipient,
            destination: &destination,
            user: "alice",
            directory: "/home/al$ice",
            command: None,
            delimiter: '+',
        })
    }

    fn check(cases: &[(u32, &str, Result<&str, BadFormat>)]) {
        for (number, text, expected) in cases {
            let result = with(|values| expand(text, values));
            assert_eq!(result, expected.map(str::to_owned), "config case {number}: {text}");
        }
    }

    #[test]
    fn specifiers() {
        check(&[
            (244, "%{rcpt}", Ok("User+T:g@Example.org")),
            (244, "%{rcpt:raw}", Ok("User+T:g@Example.org")),
            (244, "%{rcpt:lowercase|strip}", Ok("user@example.org")),
            (246, "%{rcpt.domain[0]:lowercase}", Ok("e")),
            (246, "%{user.username[0:4]:uppercase}", Ok("ALICE")),
            (247, "%{RCPT.USER:LOWERCASE}", Ok("user+t:g")),
            (248, "%%{rcpt}", Ok("%{rcpt}")),
            (248, "100%", Ok("100%")),
            (248, "%d", Ok("%d")),
            (249, "a %{dest.user} %{rcpt", Ok("a %{dest.user} %{rcpt")),
            (250, "<%{sender}> %{mbox.from}", Ok("<> MAILER-DAEMON")),
            (251, "~/Maildir", Ok("/home/al$ice/Maildir")),
            (251, "/x~/y", Ok("/x~/y")),
            (252, "%{mda}", Err(BadFormat)),
            (252, "%{nope}", Err(BadFormat)),
            (0, "%{user.directory}/%{user.username}", Ok("/home/al$ice/alice")),
            (0, "%{dest} %{dest.domain}", Ok("tech+abc@dest.org dest.org")),
            // modifiers first, then the range
            (0, "%{dest.user[-3:]:strip}", Ok("ech")),
            (0, "%{dest:strip}", Ok("tech@dest.org")),
            (0, "%{sender[5:2]}", Ok("")),
            (0, "%{rcpt:}", Err(BadFormat)),
            (0, "%{rcpt:lower}", Err(BadFormat)),
            (0, "%{rcpt:lowercase[0]}", Err(BadFormat)),
            (0, "%{}", Err(BadFormat)),
            (0, "", Ok("")),
        ]);
    }

    #[test]
    fn ranges() {
        let cases = [
            // config case 245
            ("[0:-4]", Ok("Example")),
            ("[-3:]", Ok("org")),
            ("[-1]", Err(BadFormat)),
            ("[0]", Ok("E")),
            ("[10]", Ok("g")),
            ("[8:]", Ok("org")),
            ("[0:6]", Ok("Example")),
            ("[:3]", Ok("Exam")),
            ("[:]", Ok("Example.org")),
            ("[0:100]", Ok("Example.org")),
            ("[-2:-1]", Ok("r")),
            ("[11]", Err(BadFormat)),
            ("[5:2]", Err(BadFormat)),
            ("[]", Err(BadFormat)),
            ("[a]", Err(BadFormat)),
            ("[-100:]", Err(BadFormat)),
            ("[0:-11]", Err(BadFormat)),
            ("[0:2000]", Err(BadFormat)),
            ("[0]x", Err(BadFormat)),
            ("[0", Err(BadFormat)),
        ];
        for (range, expected) in cases {
            let result = with(|values| expand(&format!("%{{rcpt.domain{range}}}"), values));
            assert_eq!(result, expected.map(str::to_owned), "{range}");
        }
    }

    #[test]
    fn what_an_address_brings_is_made_harmless() {
        let recipient = Address::new("!#$%&'*?`{|}~/\";<>()\\ x", "d");
        let expanded = |text| {
            with(|values| expand(text, &Values { recipient: &recipient, ..*values })).unwrap()
        };
        assert_eq!(expanded("%{rcpt.user}"), ":::::::::::::/\";<>()\\ x");
        assert_eq!(expanded("%{rcpt.user:raw}"), ":::%:::::::::/\";<>()\\ x");
        assert_eq!(for_environment("a%b$c`d"), "a%b:c:d");
    }

    #[test]
    fn a_wrapper_gets_the_command_as_it_is() {
        let result =
            with(|values| expand("nice %{mda}", &Values { command: Some("a '$b'"), ..*values }));
        assert_eq!(result, Ok("nice a '$b'".to_owned()));
    }

    #[test]
    fn what_is_too_long_is_an_error_and_a_long_specifier_is_none() {
        let long = "x".repeat(1023);
        let recipient = Address::new(&long, "d");
        let expanded =
            |text: &str| with(|values| expand(text, &Values { recipient: &recipient, ..*values }));
        assert_eq!(expanded("%{rcpt.user}"), Err(BadFormat));
        assert_eq!(expanded(&long), Err(BadFormat));
        assert_eq!(expanded("%{rcpt.user[0:9]}"), Ok("x".repeat(10)));
        let unending = format!("%{{{}}}", "y".repeat(128));
        assert_eq!(expanded(&unending), Ok(unending.clone()));
    }
}
