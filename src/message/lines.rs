//! The lines of a message as a client sends them, on their way to filters.
//!
//! They keep their dots, and end in LF alone. A lone dot that does not end the message would end it
//! for a filter: it goes on as the empty line that it stands for. Sources: the SMTP page of the
//! specification, 1.12 and 5.5.

use super::content::{Content, Framing, Stop};
use super::pipeline::{Progress, Reached};

/// Reads what follows DATA up to the end of the message.
#[derive(Debug)]
pub struct Lines(Content);

impl Lines {
    /// A reader at the start of a message that a dot ends.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self(Content::keeping_dots(framing))
    }

    /// Bytes of all complete lines, one for each line end.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.size()
    }

    /// Takes the next bytes, and appends the lines to `output`, the last one as far as it is known.
    /// The end of the message is not appended.
    ///
    /// Bytes behind the end of the message are left alone. After the end, or a line that is too
    /// long, it must not be called again.
    pub fn feed(&mut self, input: &[u8], output: &mut Vec<u8>) -> Progress {
        output.reserve(input.len() + 1);
        let (consumed, stop) = self.0.read(input, output, false);
        let reached = match stop {
            Stop::Input | Stop::Line => Reached::Input,
            Stop::Message { standard } => Reached::End { standard },
            Stop::TooLong => Reached::LineTooLong,
        };
        Progress { consumed, reached }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_dots_and_no_line_is_a_lone_dot() {
        type Case<'a> = (bool, &'a [u8], &'a [u8], Option<bool>);
        let cases: [Case<'_>; 9] = [
            (false, b"a\r\n..b\r\n.c\r\n.\r\nx", b"a\n..b\n.c\n", Some(true)),
            (false, b"\n.\n.\r\n\r\n.\r\n", b"\n\n\n\n", Some(true)),
            (false, b"..\r\n...\n.\r\n", b"..\n...\n\n", None),
            (false, b".\rx\r\n. \r\n", b". x\n. \n", None),
            (false, b".\r\r\n", b". \n", None),
            (false, b"a\0b\r\n.\0\r\n", b"a\0b\n.\0\n", None),
            (true, b"a\n.\nb", b"a\n", Some(false)),
            (true, b".\r\n", b"", Some(true)),
            (false, b"ab", b"ab", None),
        ];
        for (lenient, input, expected, end) in cases {
            for size in [1, 2, 3, 100] {
                let framing = if lenient { Framing::Lenient } else { Framing::Strict };
                let mut lines = Lines::new(framing);
                let mut output = Vec::new();
                let mut ended = None;
                for piece in input.chunks(size) {
                    if let Reached::End { standard } = lines.feed(piece, &mut output).reached {
                        ended = Some(standard);
                        break;
                    }
                }
                let text = String::from_utf8_lossy(input);
                assert_eq!((output.as_slice(), ended), (expected, end), "{text:?} by {size}");
            }
        }
    }

    #[test]
    fn a_line_has_a_longest_length() {
        let mut output = Vec::new();
        let longest = [b"x".repeat(65_534), b"\n".to_vec()].concat();
        assert_eq!(Lines::new(Framing::Strict).feed(&longest, &mut output).reached, Reached::Input);
        let longer = [b"x".repeat(65_535), b"\n".to_vec()].concat();
        assert_eq!(
            Lines::new(Framing::Strict).feed(&longer, &mut output).reached,
            Reached::LineTooLong
        );
    }
}
