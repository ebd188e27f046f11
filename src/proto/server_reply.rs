//! Replies of other servers, read line by line.
//!
//! A reply of several lines becomes one text, which is what is stored, logged and reported: the
//! first line whole, then what follows code and enhanced code in each other line (queue page of
//! the specification, 3.11). Control characters become blanks, so that a server cannot forge log
//! lines or headers of a report.
//!
//! Sources: RFC 5321 section 4.2; RFC 3463 for the form of enhanced codes.
//! Limits: 2,047 bytes a line, 256 lines a reply, [`STATUS_TEXT`] bytes of text.

use memchr::memchr;

use crate::model::limits::STATUS_TEXT;

/// Longest line of a reply, in bytes, without its line end.
const LINE: usize = 2047;
const LINES: usize = 256;

/// A whole reply.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reply {
    /// 200 to 599: of the first line.
    pub code: u16,
    /// All lines as one text.
    pub text: String,
    /// What follows the code in each line after the first: the keywords of EHLO.
    pub following: Vec<String>,
}

impl Reply {
    /// 2xx
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.code < 300
    }

    /// 5xx
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }
}

/// What the server sent is not a reply. The text is what is logged and stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReplyError {
    /// The code is not 200 to 599.
    #[error("Bad response: reply code out of range")]
    Code,
    /// More bytes than a line may have, and no line end; or more lines than a reply may have.
    #[error("Input too long")]
    Input,
    /// More bytes than a line may have.
    #[error("Bad response: line too long")]
    Long,
    /// Fewer than three bytes.
    #[error("Bad response: line too short")]
    Short,
}

/// Collects bytes and gives whole replies.
#[derive(Debug, Default)]
pub struct ReplyReader {
    input: Vec<u8>,
    /// Bytes of `input` that were used.
    used: usize,
    /// Lines so far of a reply that goes on.
    partial: Option<Reply>,
}

impl ReplyReader {
    /// Adds what was received.
    pub fn push(&mut self, bytes: &[u8]) {
        self.input.drain(..self.used);
        self.used = 0;
        self.input.extend_from_slice(bytes);
    }

    /// Whether something was received beyond the replies given so far.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.used < self.input.len() || self.partial.is_some()
    }

    /// The next whole reply, if there is one.
    ///
    /// # Errors
    /// The session is over: what comes next cannot be understood.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        loop {
            let rest = self.input.get(self.used..).unwrap_or_default();
            let Some(end) = memchr(b'\n', rest) else {
                return if rest.len() > LINE { Err(ReplyError::Input) } else { Ok(None) };
            };
            let line = rest.get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > LINE {
                return Err(ReplyError::Long);
            }
            let code = code(line)?;
            let goes_on = line.get(3) == Some(&b'-');
            let text = printable(line);
            self.used += end + 1;
            let Some(reply) = &mut self.partial else {
                let reply = Reply { code, text, following: Vec::new() };
                if !goes_on {
                    return Ok(Some(reply));
                }
                self.partial = Some(reply);
                continue;
            };
            if reply.following.len() >= LINES {
                return Err(ReplyError::Input);
            }
            let after_code = text.get(4..).unwrap_or_default();
            reply.text.push_str(without_enhanced_code(after_code));
            reply.following.push(after_code.to_owned());
            if goes_on {
                // Enough to know that it is too long; the rest need not be kept.
                truncate(&mut reply.text, STATUS_TEXT + 1);
                continue;
            }
            if reply.text.len() > STATUS_TEXT {
                reply.text = text;
            }
            return Ok(self.partial.take());
        }
    }
}

fn code(line: &[u8]) -> Result<u16, ReplyError> {
    let digits = line.get(..3).ok_or(ReplyError::Short)?;
    digits
        .iter()
        .try_fold(0, |code, digit| {
            digit.is_ascii_digit().then(|| code * 10 + u16::from(digit - b'0'))
        })
        .filter(|code| (200..600).contains(code))
        .ok_or(ReplyError::Code)
}

/// The line as text of at most [`STATUS_TEXT`] bytes. The first four bytes stay at their places.
fn printable(line: &[u8]) -> String {
    let mut text: String = String::from_utf8_lossy(line)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    truncate(&mut text, STATUS_TEXT);
    text
}

fn truncate(text: &mut String, most: usize) {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

/// The text behind `C.S.D`, blank included; all of it when there is no such code.
fn without_enhanced_code(text: &str) -> &str {
    let end = text.bytes().position(|b| !(b.is_ascii_digit() || b == b'.')).unwrap_or(text.len());
    let (head, rest) = text.split_at(end);
    let mut parts = head.split('.');
    let mut number = |most: usize| parts.next().is_some_and(|n| (1..=most).contains(&n.len()));
    let is_code = number(1) && number(3) && number(3) && parts.next().is_none();
    if is_code && matches!(head.as_bytes().first(), Some(b'2' | b'4' | b'5')) { rest } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Result<Vec<(u16, String)>, ReplyError> {
        let mut reader = ReplyReader::default();
        reader.push(input);
        let mut replies = Vec::new();
        while let Some(reply) = reader.next_reply()? {
            replies.push((reply.code, reply.text));
        }
        Ok(replies)
    }

    // queue case 61
    #[test]
    fn the_lines_of_a_reply_become_one_text() {
        let cases = [
            ("250 ok\r\n", vec![(250, "250 ok")]),
            ("250 ok\n250\r\n", vec![(250, "250 ok"), (250, "250")]),
            ("250_ok\r\n", vec![(250, "250_ok")]),
            (
                "550-5.7.1 first part\r\n550-5.7.1 second part\r\n550 5.7.1 third\r\n",
                vec![(550, "550-5.7.1 first part second part third")],
            ),
            ("550-first\r\n550-second\r\n550 third\r\n", vec![(550, "550-firstsecondthird")]),
            ("550-a\r\n550 1.2 b\r\n", vec![(550, "550-a1.2 b")]),
            ("550-a\r\n550 3.1.1 b\r\n", vec![(550, "550-a3.1.1 b")]),
            ("550-a\r\n550 5.1.1234 b\r\n", vec![(550, "550-a5.1.1234 b")]),
            ("550-a\r\n450 b\r\n", vec![(550, "550-ab")]),
            ("550-a\r\n550\r\n", vec![(550, "550-a")]),
            ("550 a\tb\rc\0d\r\n", vec![(550, "550 a b c d")]),
            ("250-unfinished\r\n", vec![]),
            ("250 unfinished", vec![]),
        ];
        for (input, expected) in cases {
            let expected: Vec<_> = expected.into_iter().map(|(c, t)| (c, t.to_owned())).collect();
            assert_eq!(read(input.as_bytes()), Ok(expected), "{input:?}");
        }
    }

    // queue case 109
    #[test]
    fn what_is_not_a_reply_is_an_error() {
        let long =
            |count: usize, end: &str| [&b"250 "[..], &vec![b'x'; count], end.as_bytes()].concat();
        let cases = [
            (b"25\r\n".to_vec(), ReplyError::Short),
            (b"\r\n".to_vec(), ReplyError::Short),
            (b"199 x\r\n".to_vec(), ReplyError::Code),
            (b"600 x\r\n".to_vec(), ReplyError::Code),
            (b"+25 x\r\n".to_vec(), ReplyError::Code),
            (b"\xff\xfe\xfd x\r\n".to_vec(), ReplyError::Code),
            (long(3_000, "\r\n"), ReplyError::Long),
            (long(2_044, "\r\n"), ReplyError::Long),
            (long(3_000, ""), ReplyError::Input),
            (b"250-x\r\n".repeat(1_000), ReplyError::Input),
        ];
        for (input, expected) in cases {
            assert_eq!(read(&input), Err(expected), "{:?}", &input[..input.len().min(9)]);
        }
        assert!(read(&long(2_043, "\r\n")).is_ok());
    }

    #[test]
    fn a_text_that_grows_too_long_is_its_last_line() {
        let mut input = format!("550-{}\r\n", "x".repeat(1_500)).repeat(3);
        input.push_str("550 the end\r\n");
        assert_eq!(read(input.as_bytes()), Ok(vec![(550, "550 the end".into())]));
        let foreign = [&b"550 "[..], &[0xff; 2_000], b"\r\n"].concat();
        assert!(read(&foreign).unwrap()[0].1.len() <= STATUS_TEXT);
    }

    #[test]
    fn replies_may_come_in_any_pieces() {
        let input = b"250-a\r\n250 b\r\n354 go\r\n";
        for cut in 0..input.len() {
            let mut reader = ReplyReader::default();
            let mut codes = Vec::new();
            for piece in [&input[..cut], &input[cut..]] {
                reader.push(piece);
                while let Some(reply) = reader.next_reply().unwrap() {
                    codes.push(reply.code);
                }
            }
            assert_eq!(codes, [250, 354], "cut at {cut}");
            assert!(!reader.has_more());
        }
    }
}
