//! Format specifiers in the command lines and paths of local deliveries: `%{rcpt.user:lowercase}`.
//!
//! Text in, text out: nothing is looked up or run here. What a template of the configuration, an
//! alias or a `.forward` may name is listed in [`Values`]; every value but the home directory and
//! the inner command of a wrapper comes from an address and is made harmless on the way.
//!
//! Sources: smtpd.conf(5) FORMAT SPECIFIERS as of release 7.9; the configuration page of the
//! specification, section 7. Two rules go further than both: characters that a shell takes apart
//! but no accepted address has ([`Target::Shell`]), and `..` in a path ([`Target::Path`]).

use std::path::{Component, Path};

use crate::model::{Mailbox, ReversePath};

/// Longest text between `%{` and `}`, in bytes.
const MAX_TOKEN: usize = 127;
/// Longest value and longest result, in bytes.
const MAX_RESULT: usize = 1023;
/// Largest number in a slice, either sign.
const MAX_INDEX: i32 = 1024;
/// Replaced by `:` in every value, also with `raw`, and in the environment of commands.
const UNSAFE: &[u8] = b"!#$&'*?`{|}~";
/// Also replaced in what a shell reads: no address that was accepted has one of these.
const SHELL_SYNTAX: &[u8] = b"\"\\;<>() \t\r\n";

/// What specifiers stand for in one delivery.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// `sender`, `sender.user`, `sender.domain`, `mbox.from`
    pub sender: &'a ReversePath,
    /// `rcpt`, `rcpt.user`, `rcpt.domain`: the address given in RCPT.
    pub recipient: &'a Mailbox,
    /// `dest`, `dest.user`, `dest.domain`: the address after expansion.
    pub destination: &'a Mailbox,
    /// `user.username`: the recipient's name in the userbase.
    pub username: &'a str,
    /// `user.directory` and a leading `~/`: the recipient's home in the userbase.
    pub directory: &'a str,
    /// Where `strip` begins to cut (`smtp sub-addr-delim`).
    pub delimiter: char,
}

/// Who reads the result.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target {
    /// The file system: a `..` that the template does not have itself is an error.
    Path,
    /// A shell: values lose its syntax characters too.
    Shell,
}

/// Why a template has no value. A delivery with such a template fails for good.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FormatError {
    /// An unknown name or modifier, a slice outside its value, or a result above 1023 bytes.
    #[error("mda command line could not be expanded")]
    Expansion,
    /// The line is longer than any that can be run.
    #[error("mda command line too long")]
    TooLong,
}

/// Replaces the specifiers of `template`.
///
/// A template with an unterminated `%{`, or with 128 bytes or more up to its `}`, is returned as
/// it is, like the reference does.
///
/// # Errors
/// [`FormatError::Expansion`]; also for `%{mda}`, which has a meaning only in [`wrap`].
pub fn expand(template: &str, values: &Values<'_>, target: Target) -> Result<String, FormatError> {
    let expanded = substitute(template, values, None, target)?;
    if target == Target::Path && climbs(&expanded) && !climbs(template) {
        return Err(FormatError::Expansion);
    }
    Ok(expanded)
}

/// Replaces the specifiers of a wrapper; `%{mda}` is `command`, which is expanded already.
///
/// # Errors
/// [`FormatError::Expansion`].
pub fn wrap(wrapper: &str, values: &Values<'_>, command: &str) -> Result<String, FormatError> {
    substitute(wrapper, values, Some(command), Target::Shell)
}

/// An address, or part of one, as the environment of a command may have it.
#[must_use]
pub fn for_environment(value: &str) -> String {
    replace(value, |byte| UNSAFE.contains(&byte))
}

fn substitute(
    template: &str,
    values: &Values<'_>,
    command: Option<&str>,
    target: Target,
) -> Result<String, FormatError> {
    let mut result = String::new();
    let mut rest = template;
    if let Some(below) = template.strip_prefix("~/") {
        result.push_str(values.directory);
        result.push('/');
        rest = below;
    }
    while let Some((literal, after)) = rest.split_once('%') {
        result.push_str(literal);
        if let Some(after) = after.strip_prefix('%') {
            result.push('%');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let Some((token, after)) = after.split_once('}').filter(|(t, _)| t.len() <= MAX_TOKEN)
            else {
                return Ok(template.to_owned());
            };
            let value = Token::parse(token)?.value(values, command, target)?;
            result.push_str(&value);
            rest = after;
        } else {
            result.push('%');
            rest = after;
        }
    }
    result.push_str(rest);
    if result.len() > MAX_RESULT {
        return Err(FormatError::Expansion);
    }
    Ok(result)
}

fn climbs(path: &str) -> bool {
    Path::new(path).components().any(|component| component == Component::ParentDir)
}

fn replace(value: &str, unwanted: impl Fn(u8) -> bool) -> String {
    value.chars().map(|c| if u8::try_from(c).is_ok_and(&unwanted) { ':' } else { c }).collect()
}

/// The text between `%{` and `}`, taken apart.
struct Token<'a> {
    name: &'a str,
    slice: Option<&'a str>,
    modifiers: Option<&'a str>,
}

impl<'a> Token<'a> {
    fn parse(text: &'a str) -> Result<Self, FormatError> {
        if let Some((name, after)) = text.split_once('[') {
            let (slice, after) = after.split_once(']').ok_or(FormatError::Expansion)?;
            let modifiers = match after {
                "" => None,
                _ => Some(after.strip_prefix(':').ok_or(FormatError::Expansion)?),
            };
            return Ok(Self { name, slice: Some(slice), modifiers });
        }
        Ok(match text.split_once(':') {
            Some((name, modifiers)) => Self { name, slice: None, modifiers: Some(modifiers) },
            None => Self { name: text, slice: None, modifiers: None },
        })
    }

    fn value(
        &self,
        values: &Values<'_>,
        command: Option<&str>,
        target: Target,
    ) -> Result<String, FormatError> {
        let name = self.name.to_ascii_lowercase();
        let (value, trusted) = match name.as_str() {
            "user.directory" => (values.directory, true),
            "mda" => (command.ok_or(FormatError::Expansion)?, true),
            _ => (address_value(&name, values)?, false),
        };
        let mut value = value.to_owned();
        let mut raw = false;
        for modifier in self.modifiers.into_iter().flat_map(|list| list.split('|')) {
            match modifier.to_ascii_lowercase().as_str() {
                "lowercase" => value.make_ascii_lowercase(),
                "uppercase" => value.make_ascii_uppercase(),
                "strip" => value = strip(&value, values.delimiter),
                "raw" => raw = true,
                _ => return Err(FormatError::Expansion),
            }
        }
        if let Some(slice) = self.slice {
            value = cut(&value, slice).ok_or(FormatError::Expansion)?;
        }
        if value.len() > MAX_RESULT {
            return Err(FormatError::Expansion);
        }
        if trusted {
            return Ok(value);
        }
        Ok(replace(&value, |byte| {
            UNSAFE.contains(&byte)
                || (byte == b'%' && !raw)
                || (target == Target::Shell && SHELL_SYNTAX.contains(&byte))
        }))
    }
}

fn address_value<'a>(name: &str, values: &Values<'a>) -> Result<&'a str, FormatError> {
    let sender = values.sender.0.as_ref();
    Ok(match name {
        "sender" => values.sender.as_str(),
        "sender.user" => sender.map_or("", Mailbox::local),
        "sender.domain" => sender.map_or("", Mailbox::domain),
        "mbox.from" => sender.map_or("MAILER-DAEMON", Mailbox::as_str),
        "rcpt" => values.recipient.as_str(),
        "rcpt.user" => values.recipient.local(),
        "rcpt.domain" => values.recipient.domain(),
        "dest" => values.destination.as_str(),
        "dest.user" => values.destination.local(),
        "dest.domain" => values.destination.domain(),
        "user.username" => values.username,
        _ => return Err(FormatError::Expansion),
    })
}

/// Cuts from the first delimiter to the `@` after it, or to the end.
fn strip(value: &str, delimiter: char) -> String {
    let Some((kept, tail)) = value.split_once(delimiter) else { return value.to_owned() };
    match tail.find('@') {
        Some(at) => format!("{kept}{}", tail.get(at..).unwrap_or_default()),
        None => kept.to_owned(),
    }
}

/// The part of `value` that `slice` (`n` or `a:b`, both inclusive) names; `None` if it is outside.
///
/// A negative start counts from the end, a negative end drops that many characters.
fn cut(value: &str, slice: &str) -> Option<String> {
    let length = i32::try_from(value.chars().count()).ok()?;
    if length == 0 {
        return Some(String::new());
    }
    let (start, end) = match slice.split_once(':') {
        None => {
            let only = index(slice)?;
            if only < 0 {
                return None;
            }
            (only, only)
        }
        Some((start, end)) => {
            let start = if start.is_empty() { 0 } else { index(start)? };
            let end = if end.is_empty() { length - 1 } else { index(end)? };
            (start, end)
        }
    };
    let start = if start < 0 { length + start } else { start };
    let end = if end < 0 { length + end - 1 } else { end.min(length - 1) };
    if start < 0 || start >= length || end < start {
        return None;
    }
    let (start, count) =
        (usize::try_from(start).ok()?, usize::try_from(end - start).ok()?.checked_add(1)?);
    Some(value.chars().skip(start).take(count).collect())
}

fn index(text: &str) -> Option<i32> {
    text.parse().ok().filter(|number: &i32| number.abs() <= MAX_INDEX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_case;

    const FAILED: Result<&str, FormatError> = Err(FormatError::Expansion);

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap()
    }

    fn expanded(recipient: &str, template: &str) -> Result<String, FormatError> {
        let address = mailbox(recipient);
        let values = Values {
            sender: &ReversePath::from(mailbox("bo!b@d")),
            recipient: &address,
            destination: &mailbox("dest@example.net"),
            username: "user",
            directory: "/home/user~",
            delimiter: '+',
        };
        expand(template, &values, Target::Path)
    }

    #[test]
    fn specifiers_and_modifiers() {
        let cases = [
            (244, "%{rcpt}", Ok("User+T:g@Example.org")),
            (244, "%{rcpt:raw}", Ok("User+T:g@Example.org")),
            (244, "%{rcpt:lowercase|strip}", Ok("user@example.org")),
            (246, "%{rcpt.domain[0]:lowercase}", Ok("e")),
            (246, "%{rcpt.user[0:3]:uppercase}", Ok("USER")),
            (0, "%{rcpt.user[-3:]:strip}", Ok("ser")),
            (247, "%{RCPT.USER:LOWERCASE}", Ok("user+t:g")),
            (0, "%{sender}", Ok("bo:b@d")),
            (0, "%{sender:raw}", Ok("bo:b@d")),
            (0, "%{sender.user}/%{sender.domain}", Ok("bo:b/d")),
            (0, "%{dest} %{dest.user} %{dest.domain}", Ok("dest@example.net dest example.net")),
            (0, "%{user.username}", Ok("user")),
            (0, "%{user.directory}/x", Ok("/home/user~/x")),
            (0, "%{USER.Directory:uppercase}/x", Ok("/HOME/USER~/x")),
            (0, "%{user.directory[0:4]}", Ok("/home")),
            (0, "%{mbox.from}", Ok("bo:b@d")),
            (0, "%{rcpt:raw|lowercase|raw}", Ok("user+t:g@example.org")),
            (0, "%{rcpt:strip|strip|uppercase}", Ok("USER@EXAMPLE.ORG")),
            (0, "%{rcpt.domain:strip}", Ok("Example.org")),
            (248, "%%{rcpt}", Ok("%{rcpt}")),
            (248, "100%", Ok("100%")),
            (248, "%d", Ok("%d")),
            (249, "%{rcpt", Ok("%{rcpt")),
            (249, "%{rcpt.user} %{rcpt", Ok("%{rcpt.user} %{rcpt")),
            (251, "~/Maildir", Ok("/home/user~/Maildir")),
            (251, "/x~/y", Ok("/x~/y")),
            (252, "%{mda}", FAILED),
            (252, "%{nope}", FAILED),
            (0, "%{subaddress}", FAILED),
            (0, "%{user.uid}", FAILED),
            (0, "%{}", FAILED),
            (0, "%{ rcpt}", FAILED),
            (0, "%{rcpt:nope}", FAILED),
            (0, "%{rcpt:}", FAILED),
            (0, "%{rcpt:raw|}", FAILED),
            (0, "%{rcpt:raw[0]}", FAILED),
            (0, "%{rcpt[0]x}", FAILED),
            (0, "%{rcpt[0}", FAILED),
        ];
        for (number, template, expected) in cases {
            let result = expanded("User+T?g@Example.org", template);
            assert_eq!(result.as_deref().map_err(|e| *e), expected, "case {number}: {template}");
            spec_case::ran("config", number);
        }
        assert_eq!(expanded("alice@d", "%{rcpt.user[0:4]:uppercase}").as_deref(), Ok("ALICE"));
    }

    #[test]
    fn the_cases_of_the_queue_page() {
        let cases = [
            (134, "alice+x@d", "%{rcpt.user:strip} %{sender} %{sender:raw}", "alice bo:b@d bo:b@d"),
            (134, "bo%b@d", "%{rcpt} %{rcpt:raw}", "bo:b@d bo%b@d"),
            (135, "alice@d", "%{rcpt[0:4]} %{rcpt[0:4]:uppercase}", "alice ALICE"),
            // the example of release 7.9: modifiers first, then the slice
            (0, "tech+abc@d", "%{rcpt.user[-3:]:strip}", "ech"),
        ];
        for (number, recipient, template, expected) in cases {
            assert_eq!(expanded(recipient, template).as_deref(), Ok(expected), "{template}");
            spec_case::ran("queue", number);
        }
    }

    #[test]
    fn each_of_the_replaced_characters_and_no_other_is_replaced() {
        for character in (0x21..0x7f).map(char::from).filter(|c| !matches!(c, '<' | '>' | '@')) {
            let text = format!("x{character}y@d");
            let values = |template| expanded(&text, template).unwrap();
            let replaced = "!#$&'*?`{|}~".contains(character);
            let raw = if replaced { "x:y@d" } else { &text };
            let plain = if character == '%' { "x:y@d" } else { raw };
            assert_eq!(values("%{rcpt:raw}"), raw, "{character}");
            // Without a delimiter in it, `strip` changes nothing.
            assert_eq!(values("%{rcpt}"), plain, "{character}");
        }
    }

    #[test]
    fn slices() {
        // the table of section 7.2
        let cases = [
            (0, "0", Ok("E")),
            (0, "10", Ok("g")),
            (0, "8:", Ok("org")),
            (245, "-3:", Ok("org")),
            (0, "0:6", Ok("Example")),
            (245, "0:-4", Ok("Example")),
            (0, ":3", Ok("Exam")),
            (0, ":", Ok("Example.org")),
            (0, "0:100", Ok("Example.org")),
            (0, "0:1024", Ok("Example.org")),
            (0, "-2:-1", Ok("r")),
            (245, "-1", FAILED),
            (0, "11", FAILED),
            (0, "11:", FAILED),
            (0, "5:2", FAILED),
            (0, "", FAILED),
            (0, "a", FAILED),
            (0, "0:1:2", FAILED),
            (0, " 0", FAILED),
            (0, "-100:", FAILED),
            (0, "0:-11", FAILED),
            (0, "0:1025", FAILED),
            (0, "0:2000", FAILED),
            (0, "0:99999999999", FAILED),
        ];
        for (number, slice, expected) in cases {
            let result = expanded("a@Example.org", &format!("%{{rcpt.domain[{slice}]}}"));
            assert_eq!(result.as_deref().map_err(|e| *e), expected, "[{slice}]");
            spec_case::ran("config", number);
        }
    }

    #[test]
    fn the_null_sender_is_empty_or_mailer_daemon() {
        let address = mailbox("a@b");
        let values = Values {
            sender: &ReversePath::NULL,
            recipient: &address,
            destination: &address,
            username: "a",
            directory: "/",
            delimiter: '+',
        };
        let template = "%{sender}|%{sender.user[5:9]}|%{mbox.from}";
        assert_eq!(expand(template, &values, Target::Path).as_deref(), Ok("||MAILER-DAEMON"));
        spec_case::ran("config", 250);
    }

    #[test]
    fn a_token_of_128_bytes_stays_and_a_long_result_fails() {
        let token = format!("%{{{}}}", "x".repeat(128));
        assert_eq!(expanded("a@b", &token).as_deref(), Ok(token.as_str()));
        assert_eq!(expanded("a@b", &"x".repeat(1023)).map(|line| line.len()), Ok(1023));
        assert_eq!(expanded("a@b", &"x".repeat(1024)), Err(FormatError::Expansion));
    }

    #[test]
    fn a_wrapper_gets_the_expanded_command_untouched() {
        let address = mailbox("a@b");
        let values = Values {
            sender: &ReversePath::NULL,
            recipient: &address,
            destination: &address,
            username: "a",
            directory: "/home/a",
            delimiter: '+',
        };
        let line = wrap("nice %{mda} -u %{user.username}", &values, "cat > '%{rcpt}' | x");
        assert_eq!(line.as_deref(), Ok("nice cat > '%{rcpt}' | x -u a"));
    }

    #[test]
    fn values_cannot_climb_out_of_a_path_or_into_a_shell() {
        assert_eq!(expanded("x/../../y@b", "/mail/%{rcpt.user}"), Err(FormatError::Expansion));
        assert_eq!(expanded("..@b", "/mail/%{rcpt.user}/new"), Err(FormatError::Expansion));
        assert_eq!(expanded("a..b@b", "/mail/../%{rcpt.user}").as_deref(), Ok("/mail/../a..b"));
        let address = mailbox("a\";b(c)\\@b");
        let values = Values {
            sender: &ReversePath::NULL,
            recipient: &address,
            destination: &address,
            username: "a",
            directory: "/home/a",
            delimiter: '+',
        };
        let line = expand("run %{rcpt:raw}", &values, Target::Shell);
        assert!(matches!(line.as_deref(), Ok("run a::b:c::@b")), "{line:?}");
    }

    #[test]
    fn the_environment_loses_the_twelve_of_raw() {
        assert_eq!(for_environment("a!#$&'*?`{|}~%;b"), "a::::::::::::%;b");
    }
}
