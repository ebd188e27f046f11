//! Command lines: verb and argument.
//!
//! What an argument means is not judged here. Sources: RFC 5321 section 4.1.1; the SMTP page of
//! the specification, 1.5.

/// A command that the server knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verb {
    /// `AUTH` (RFC 4954)
    Auth,
    /// `BDAT` (RFC 3030)
    Bdat,
    /// `DATA`
    Data,
    /// `EHLO`
    Ehlo,
    /// `HELO`
    Helo,
    /// `HELP`
    Help,
    /// `MAIL FROM:`
    Mail,
    /// `NOOP`
    Noop,
    /// `QUIT`
    Quit,
    /// `RCPT TO:`
    Rcpt,
    /// `RSET`
    Rset,
    /// `STARTTLS` (RFC 3207)
    StartTls,
    /// `VRFY`
    Vrfy,
}

/// A command line, taken apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Command<'a> {
    /// What to do.
    pub verb: Verb,
    /// What follows the separator, leading white space skipped. `None` when the line has no
    /// separator: a blank after the verb makes an empty argument, not a missing one.
    pub argument: Option<&'a [u8]>,
}

/// Verbs that end at the first space, or with the line.
const VERBS: [(&[u8], Verb); 11] = [
    (b"AUTH", Verb::Auth),
    (b"BDAT", Verb::Bdat),
    (b"DATA", Verb::Data),
    (b"EHLO", Verb::Ehlo),
    (b"HELO", Verb::Helo),
    (b"HELP", Verb::Help),
    (b"NOOP", Verb::Noop),
    (b"QUIT", Verb::Quit),
    (b"RSET", Verb::Rset),
    (b"STARTTLS", Verb::StartTls),
    (b"VRFY", Verb::Vrfy),
];

/// Verbs that end at a colon.
const PATH_VERBS: [(&[u8], Verb); 2] = [(b"MAIL FROM:", Verb::Mail), (b"RCPT TO:", Verb::Rcpt)];

/// The verbs as HELP lists them.
pub const KNOWN: &str = "HELO EHLO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT";

/// Takes a command line apart; `None` for a command that is not known. A line with a NUL byte is
/// none that is known.
///
/// `line` comes without its line end. Verbs are compared without regard to case.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Command<'_>> {
    if line.contains(&0) {
        return None;
    }
    for (text, verb) in PATH_VERBS {
        if let Some((head, rest)) = line.split_at_checked(text.len())
            && head.eq_ignore_ascii_case(text)
        {
            return Some(Command { verb, argument: Some(skip_white_space(rest)) });
        }
    }
    let mut halves = line.splitn(2, |&byte| byte == b' ');
    let name = halves.next().unwrap_or_default();
    let argument = halves.next().map(skip_white_space);
    let (_, verb) = VERBS.into_iter().find(|(text, _)| name.eq_ignore_ascii_case(text))?;
    Some(Command { verb, argument })
}

fn skip_white_space(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|b| !matches!(b, b' ' | b'\t'..=b'\r')).unwrap_or(text.len());
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: the verb rules of smtp cases 7, 13, 23, 25, 66 and 154.
    #[test]
    fn a_line_is_taken_apart_at_its_separator() {
        type Parts = Option<(Verb, Option<&'static str>)>;
        let cases: [(&[u8], Parts); 22] = [
            (b"NOOP", Some((Verb::Noop, None))),
            (b"noop xyz", Some((Verb::Noop, Some("xyz")))),
            (b"QUIT ", Some((Verb::Quit, Some("")))),
            (b"EHLO  \t a.b ", Some((Verb::Ehlo, Some("a.b ")))),
            (b"EHLO\ta.b", None),
            (b" NOOP", None),
            (b"", None),
            (b".", None),
            (b"MAIL FROM:<a@b>", Some((Verb::Mail, Some("<a@b>")))),
            (b"mail from: <a@b> SIZE=1", Some((Verb::Mail, Some("<a@b> SIZE=1")))),
            (b"MAIL FROM:", Some((Verb::Mail, Some("")))),
            (b"MAIL FROM", None),
            (b"MAIL FROM <a@b>", None),
            (b"MAIL  FROM:<a@b>", None),
            (b"MAIL FROM :<a@b>", None),
            (b"Rcpt To:\t<c@d>", Some((Verb::Rcpt, Some("<c@d>")))),
            (b"RCPT", None),
            (b"STARTTLS", Some((Verb::StartTls, None))),
            (b"EXPN a", None),
            (b"WIZ", None),
            (b"EHLO x\0y", None),
            (b"\xff\xfe", None),
        ];
        for (line, expected) in cases {
            let found = parse(line)
                .map(|c| (c.verb, c.argument.map(|a| std::str::from_utf8(a).unwrap_or("?"))));
            assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(line));
        }
    }
}
