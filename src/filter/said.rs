//! Lines that a filter program says once it is ready.
//!
//! What a line means for a session is the business of [`super::Engine`]; here it is taken apart. The
//! texts of errors are those that administrators know.
//!
//! Source: sections 5.4 to 5.6 of the SMTP page.

use super::Direction;
use super::registration::lossy;

/// Longest line of a program, in bytes, without line end: the longest line of a message, and room
/// for what stands before it.
pub const MAX_LINE: usize = 65_535 + 256;

/// A line of a program that is ready.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Said<'a> {
    /// `filter-dataline`: a line of a message.
    Line {
        /// The session.
        session: u64,
        /// The place in its chain.
        token: u64,
        /// Still dot-stuffed.
        line: &'a [u8],
    },
    /// `register`: later than usual; what follows the bar.
    Register(&'a [u8]),
    /// `report`: something for all programs of a session.
    Report {
        /// The direction of the session.
        direction: Direction,
        /// The session.
        session: u64,
        /// What is told.
        message: &'a [u8],
    },
    /// `filter-result`: the answer to a question.
    Result {
        /// The session.
        session: u64,
        /// The place in its chain.
        token: u64,
        /// What is to be done.
        directive: Directive<'a>,
    },
}

/// What a program wants done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Directive<'a> {
    /// `disconnect`, with the reply.
    Disconnect(&'a [u8]),
    /// `junk`
    Junk,
    /// `proceed`
    Proceed,
    /// `reject`, with the reply.
    Reject(&'a [u8]),
    /// `report`, with a text.
    Report(&'a [u8]),
    /// `rewrite`, with the new argument.
    Rewrite(&'a [u8]),
}

/// A line that is none of the protocol. It holds what the program said, as it came.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SaidError {
    /// Nothing is known that begins so.
    #[error("Invalid filter message type: {0}")]
    Kind(String),
    /// It ends before the token.
    #[error("Missing token: {0}")]
    MissingToken(String),
    /// What stands for the session is no number.
    #[error("Invalid reqid: {0}")]
    Session(String),
    /// What stands for the token is no number, or nothing follows it.
    #[error("Invalid token: {0}")]
    Token(String),
    /// What is to be done is not known.
    #[error("Invalid directive: {0}")]
    Directive(String),
    /// What is to be done takes a text, and there is none.
    #[error("Missing parameter: {0}")]
    Parameter(String),
    /// A report about neither `smtp-in` nor `smtp-out`.
    #[error("unexpected direction: {0}")]
    Direction(String),
}

/// Takes a line apart, without its end.
///
/// # Errors
/// [`SaidError`]: the program does not speak the protocol.
pub fn parse(line: &[u8]) -> Result<Said<'_>, SaidError> {
    if let Some(rest) = line.strip_prefix(b"filter-result|") {
        let (session, token, rest) = address(rest, line)?;
        return Ok(Said::Result { session, token, directive: directive(rest, line)? });
    }
    if let Some(rest) = line.strip_prefix(b"filter-dataline|") {
        let (session, token, line) = address(rest, line)?;
        return Ok(Said::Line { session, token, line });
    }
    if let Some(rest) = line.strip_prefix(b"report|") {
        return report(rest, line);
    }
    match line.strip_prefix(b"register|") {
        Some(rest) => Ok(Said::Register(rest)),
        None => Err(SaidError::Kind(lossy(line))),
    }
}

/// Session, token, and what follows them.
fn address<'a>(rest: &'a [u8], line: &[u8]) -> Result<(u64, u64, &'a [u8]), SaidError> {
    let Some((session, rest)) = split(rest) else {
        return Err(SaidError::MissingToken(lossy(line)));
    };
    let session = number(session).ok_or_else(|| SaidError::Session(lossy(line)))?;
    let token = split(rest).and_then(|(token, rest)| Some((number(token)?, rest)));
    let (token, rest) = token.ok_or_else(|| SaidError::Token(lossy(line)))?;
    Ok((session, token, rest))
}

fn directive<'a>(rest: &'a [u8], line: &[u8]) -> Result<Directive<'a>, SaidError> {
    match (split(rest), rest) {
        (None, b"proceed") => Ok(Directive::Proceed),
        (None, b"junk") => Ok(Directive::Junk),
        (None, _) => Err(SaidError::Parameter(lossy(line))),
        (Some((b"disconnect", text)), _) => Ok(Directive::Disconnect(text)),
        (Some((b"reject", text)), _) => Ok(Directive::Reject(text)),
        (Some((b"report", text)), _) => Ok(Directive::Report(text)),
        (Some((b"rewrite", text)), _) => Ok(Directive::Rewrite(text)),
        (Some(_), _) => Err(SaidError::Directive(lossy(line))),
    }
}

/// `TIME|DIRECTION|SESSION|MESSAGE`; the version of the protocol may stand before it.
fn report<'a>(rest: &'a [u8], line: &[u8]) -> Result<Said<'a>, SaidError> {
    let missing = || SaidError::Direction(String::new());
    let (_, mut rest) = split(rest).ok_or_else(missing)?;
    let known = |word: &[u8]| match word {
        b"smtp-in" => Some(Direction::In),
        b"smtp-out" => Some(Direction::Out),
        _ => None,
    };
    let mut next = split(rest).ok_or_else(missing)?;
    if known(next.0).is_none() && split(next.1).is_some_and(|(word, _)| known(word).is_some()) {
        rest = next.1;
        next = split(rest).ok_or_else(missing)?;
    }
    let direction = known(next.0).ok_or_else(|| SaidError::Direction(lossy(next.0)))?;
    let (session, message) = split(next.1).ok_or_else(|| SaidError::Session(lossy(line)))?;
    let session = number(session).ok_or_else(|| SaidError::Session(lossy(line)))?;
    Ok(Said::Report { direction, session, message })
}

fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b'|', text)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Up to 16 hexadecimal digits.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let mut number = 0;
    for digit in digits {
        number = number << 4 | u64::from(char::from(*digit).to_digit(16)?);
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_case::ran;

    #[test]
    fn lines_are_taken_apart() {
        let result = |directive| Ok(Said::Result { session: 0xa1, token: 0xb2, directive });
        let line = |line: &'static str| {
            Ok(Said::Line { session: 0xa1, token: 0xb2, line: line.as_bytes() })
        };
        let report = |direction, message: &'static str| {
            Ok(Said::Report { direction, session: 0xa1, message: message.as_bytes() })
        };
        let cases = [
            ("filter-result|a1|b2|proceed", result(Directive::Proceed)),
            ("filter-result|00000000000000A1|00000000000000B2|junk", result(Directive::Junk)),
            ("filter-result|a1|b2|reject|550 a|b", result(Directive::Reject(b"550 a|b"))),
            ("filter-result|a1|b2|disconnect|421 x", result(Directive::Disconnect(b"421 x"))),
            ("filter-result|a1|b2|rewrite|", result(Directive::Rewrite(b""))),
            ("filter-result|a1|b2|report|x", result(Directive::Report(b"x"))),
            ("filter-dataline|a1|b2|", line("")),
            ("filter-dataline|a1|b2|b|c", line("b|c")),
            ("register|report|smtp-in|*", Ok(Said::Register(b"report|smtp-in|*"))),
            ("report|1.2|smtp-in|a1|hello|x", report(Direction::In, "hello|x")),
            ("report|0.7|1.2|smtp-out|a1|hello", report(Direction::Out, "hello")),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_line_of_the_protocol_is_said_in_known_words() {
        let cases = [
            (95, "hello world", "Invalid filter message type: hello world"),
            (0, "", "Invalid filter message type: "),
            (0, "filter-result", "Invalid filter message type: filter-result"),
            (0, "filter-result|a1", "Missing token: filter-result|a1"),
            (98, "filter-result|zz|b2|proceed", "Invalid reqid: filter-result|zz|b2|proceed"),
            (0, "filter-result||b2|proceed", "Invalid reqid: filter-result||b2|proceed"),
            (
                0,
                "filter-result|10000000000000000|b2|proceed",
                "Invalid reqid: filter-result|10000000000000000|b2|proceed",
            ),
            (0, "filter-result|a1|x|proceed", "Invalid token: filter-result|a1|x|proceed"),
            (0, "filter-result|a1|b2", "Invalid token: filter-result|a1|b2"),
            (96, "filter-result|a1|b2|foo|bar", "Invalid directive: filter-result|a1|b2|foo|bar"),
            (
                0,
                "filter-result|a1|b2|proceed|x",
                "Invalid directive: filter-result|a1|b2|proceed|x",
            ),
            (97, "filter-result|a1|b2|reject", "Missing parameter: filter-result|a1|b2|reject"),
            (0, "report|1.2", "unexpected direction: "),
            (0, "report|1.2|smtp|a1|x", "unexpected direction: smtp"),
            (0, "report|1.2|smtp-in|x", "Invalid reqid: report|1.2|smtp-in|x"),
            (0, "report|1.2|smtp-in|x|y", "Invalid reqid: report|1.2|smtp-in|x|y"),
        ];
        for (number, line, expected) in cases {
            let error = parse(line.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), expected, "case F{number}");
            ran("filter", number);
        }
    }
}
