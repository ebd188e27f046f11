//! The whole way of a message's content: lines, header block, size, faults.
//!
//! Once a message is at fault the rest of it is still read to its end, since the client expects
//! the reply there, but nothing more is kept.

use std::sync::Arc;

use super::content::{Content, Framing, Stop};
use super::headers::{Additions, HeaderBlock};

/// Room for a line that is kept from one line of the header block to the next, in bytes.
const LINE: usize = 1024;

/// How one message is received.
#[derive(Clone, Debug)]
pub struct Options {
    /// Domain for header addresses that have none.
    pub domain: Arc<str>,
    /// Date and Message-ID, on listeners that add them.
    pub additions: Option<Additions>,
    /// Address that takes the place of those in From.
    pub masquerade: Option<Arc<str>>,
    /// What marks its end.
    pub framing: Framing,
    /// Largest size, in bytes as received with one byte a line end.
    pub max_size: u64,
    /// Received headers that count before the first one of the message.
    pub received: usize,
}

/// Why a message cannot be accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// It has too many Received headers.
    Loop,
    /// Its header block holds something that is not a header.
    Malformed,
    /// It is larger than [`Options::max_size`].
    TooBig,
}

/// How far a slice brought the message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Bytes of the slice that belong to the message.
    pub consumed: usize,
    /// What was reached with them.
    pub reached: Reached,
}

/// What was reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reached {
    /// The end of the slice: more is needed.
    Input,
    /// The end of the message.
    End {
        /// Whether it was CR LF `.` CR LF. Never false under the strict rule.
        standard: bool,
    },
    /// A line above [`crate::model::limits::MESSAGE_LINE`]: the session must end.
    LineTooLong,
}

/// The receiving end of one message.
#[derive(Debug)]
pub struct Pipeline {
    content: Content,
    /// Present until the header block ends.
    headers: Option<HeaderBlock>,
    /// The line of the header block that is being received.
    line: Vec<u8>,
    ascii_headers: bool,
    max_size: u64,
    fault: Option<Fault>,
}

impl Pipeline {
    /// A pipeline at the start of a message.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            content: Content::new(options.framing),
            headers: Some(HeaderBlock::new(
                options.domain,
                options.additions,
                options.masquerade,
                options.received,
            )),
            line: Vec::new(),
            ascii_headers: true,
            max_size: options.max_size,
            fault: None,
        }
    }

    /// Why the message cannot be accepted, as far as is known.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether everything in the header block so far was ASCII.
    #[must_use]
    pub fn has_ascii_headers(&self) -> bool {
        self.ascii_headers
    }

    /// Bytes of the header block that are held until a line or an address header is complete; they
    /// are not in `output` yet.
    #[must_use]
    pub fn held(&self) -> usize {
        self.line.len() + self.headers.as_ref().map_or(0, HeaderBlock::held)
    }

    /// Drops what is held, for a message that will be refused whatever else is in it.
    pub fn drop_held(&mut self) {
        self.headers = None;
        self.line = Vec::new();
    }

    /// Ends a message that no dot ends, as in chunks or out of filters, and appends what is left of
    /// it to `output`.
    pub fn finish(&mut self, output: &mut Vec<u8>) {
        if self.headers.is_some() {
            if self.content.finish(&mut self.line) {
                self.end_header_line(output);
            }
        } else if self.content.finish(output) && self.fault.is_none() {
            output.push(b'\n');
        }
        if self.content.size() > self.max_size {
            self.fail(Fault::TooBig);
        }
        if let Some(mut headers) = self.headers.take() {
            headers.finish(output);
        }
    }

    /// Takes the next bytes, and appends what is stored of them to `output`.
    ///
    /// Bytes behind the end of the message are left alone. After the end, or a line that is too
    /// long, it must not be called again.
    pub fn feed(&mut self, input: &[u8], output: &mut Vec<u8>) -> Progress {
        let mut consumed = 0;
        loop {
            let rest = input.get(consumed..).unwrap_or_default();
            let (count, stop) = if self.headers.is_some() {
                self.content.read(rest, &mut self.line, true)
            } else {
                self.read_body(rest, output)
            };
            consumed += count;
            if stop == Stop::Line {
                self.end_header_line(output);
            }
            if self.content.size() > self.max_size {
                self.fail(Fault::TooBig);
            }
            let reached = match stop {
                Stop::Line => continue,
                Stop::Input => Reached::Input,
                Stop::Message { standard } => {
                    if let Some(mut headers) = self.headers.take() {
                        headers.finish(output);
                    }
                    Reached::End { standard }
                }
                Stop::TooLong => Reached::LineTooLong,
            };
            return Progress { consumed, reached };
        }
    }

    /// Takes whole lines that come from filters; their end is told by [`Self::finish`], not by a
    /// dot. Returns false for what no line of a message may be: the filters are broken, and no
    /// more may be taken from them.
    #[must_use]
    pub fn feed_lines(&mut self, lines: &[u8], output: &mut Vec<u8>) -> bool {
        self.feed(lines, output).reached == Reached::Input
    }

    fn read_body(&mut self, rest: &[u8], output: &mut Vec<u8>) -> (usize, Stop) {
        let start = output.len();
        output.reserve(rest.len());
        let read = self.content.read(rest, output, false);
        if self.fault.is_some() {
            output.truncate(start);
        }
        read
    }

    fn end_header_line(&mut self, output: &mut Vec<u8>) {
        let Some(headers) = &mut self.headers else { return };
        self.ascii_headers &= self.line.is_ascii();
        match headers.line(&self.line, output) {
            Ok(true) => {
                self.line.clear();
                self.line.shrink_to(LINE);
            }
            Ok(false) => {
                self.headers = None;
                self.line = Vec::new();
            }
            Err(fault) => self.fail(fault),
        }
    }

    /// Notes the first fault, and stops looking at headers.
    fn fail(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
        self.drop_held();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pipeline(framing: Framing) -> Pipeline {
        let domain = Arc::from("mx.example.org");
        Pipeline::new(Options {
            domain,
            additions: None,
            masquerade: None,
            framing,
            max_size: 10_000,
            received: 0,
        })
    }

    fn dots(lenient: bool) -> Framing {
        if lenient { Framing::Lenient } else { Framing::Strict }
    }

    /// Feeds `input` in slices of `size` bytes; returns what is stored, and where the end is.
    fn receive(lenient: bool, input: &[u8], size: usize) -> (Vec<u8>, Option<usize>) {
        let mut pipeline = pipeline(dots(lenient));
        let mut output = Vec::new();
        let mut start = 0;
        for slice in input.chunks(size) {
            let progress = pipeline.feed(slice, &mut output);
            match progress.reached {
                Reached::Input => assert_eq!(progress.consumed, slice.len()),
                Reached::End { .. } => return (output, Some(start + progress.consumed)),
                Reached::LineTooLong => panic!("no line is that long"),
            }
            start += slice.len();
        }
        (output, None)
    }

    /// Feeds `input` as chunks of `size` bytes; returns what is stored.
    fn receive_counted(input: &[u8], size: usize) -> Vec<u8> {
        let mut pipeline = pipeline(Framing::Counted);
        let mut output = Vec::new();
        for chunk in input.chunks(size) {
            let progress = pipeline.feed(chunk, &mut output);
            assert_eq!(progress, Progress { consumed: chunk.len(), reached: Reached::Input });
        }
        pipeline.finish(&mut output);
        output
    }

    /// The same by the letter of the rules, with the whole message at hand. There are no headers.
    fn by_the_rules(lenient: bool, input: &[u8]) -> (Vec<u8>, Option<usize>) {
        let mut output = Vec::new();
        let mut behind_crlf = true;
        let mut position = 0;
        for raw in input.split_inclusive(|&byte| byte == b'\n') {
            position += raw.len();
            let Some(line) = raw.strip_suffix(b"\n") else { break };
            let text = line.strip_suffix(b"\r").unwrap_or(line);
            let crlf = text.len() < line.len();
            if text == b"." && (lenient || (behind_crlf && crlf)) {
                return (output, Some(position));
            }
            let text = text.strip_prefix(b".").unwrap_or(text);
            output.extend(text.iter().map(|&byte| if byte == b'\r' { b' ' } else { byte }));
            output.push(b'\n');
            behind_crlf = crlf;
        }
        (output, None)
    }

    proptest! {
        #[test]
        fn content_is_read_by_the_rules_in_slices_of_any_size(
            pieces in prop::collection::vec(
                prop::sample::select(vec!["\r\n", "\n", "\r", ".", "\r\n.\r\n", "\0", "x", "To: a"]),
                0..40,
            ),
            size in 1_usize..20,
            lenient: bool,
        ) {
            let input = ("\r\n".to_owned() + &pieces.concat()).into_bytes();
            let (expected, end) = by_the_rules(lenient, &input);
            let (stored, reached) = receive(lenient, &input, size);
            prop_assert_eq!(reached, end);
            if end.is_some() {
                prop_assert_eq!(stored, expected);
            } else {
                // A line without end may be stored as far as it is known.
                prop_assert!(stored.starts_with(&expected));
            }
        }

        #[test]
        fn headers_are_the_same_in_slices_of_any_size(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "To: a, b\r\n", "Cc: \"x", "\r\n", " c,\r\n", "Bcc: q\r\n", "X: y\r\n", "\r", "x",
                ]),
                0..20,
            ),
            size in 1_usize..20,
        ) {
            let input = (pieces.concat() + "\r\n.\r\n").into_bytes();
            let whole = receive(false, &input, input.len());
            prop_assert_eq!(receive(false, &input, size), whole);
        }
    }

    // smtp rules L5 and L6, for chunks
    #[test]
    fn chunks_have_lines_and_no_dots() {
        let cases: [(&str, &str); 12] = [
            ("", ""),
            ("\r\na\r\nb\r\n", "\na\nb\n"),
            ("\r\n.\r\n..x\r\n.y\r\n", "\n.\n..x\n.y\n"),
            ("\r\na\nb\n.\nc", "\na\nb\n.\nc\n"),
            ("\r\na\r.\r\nb\r", "\na .\nb \n"),
            ("\r\na\r\r\n", "\na \n"),
            ("\r\na\0b", "\na\0b\n"),
            ("To: a", "To: a@mx.example.org\n"),
            ("X: y\r", "X: y \n"),
            ("X: y\r\n\r", "X: y\n \n"),
            ("X: y\r\n", "X: y\n"),
            (".: y\r\n\r\n.", ".: y\n\n.\n"),
        ];
        for (input, stored) in cases {
            for size in 1..=input.len().max(1) {
                let received = receive_counted(input.as_bytes(), size);
                assert_eq!(received, stored.as_bytes(), "{input:?} in chunks of {size}");
            }
        }
    }

    #[test]
    fn a_last_line_without_end_counts_like_any_other() {
        let mut faults = Vec::new();
        for count in [9_998, 9_999] {
            let mut pipeline = pipeline(Framing::Counted);
            let mut output = Vec::new();
            pipeline.feed(&[b"\r\n", "x".repeat(count).as_bytes()].concat(), &mut output);
            pipeline.finish(&mut output);
            faults.push(pipeline.fault());
        }
        assert_eq!(faults, [None, Some(Fault::TooBig)]);
    }

    #[test]
    fn it_is_known_whether_the_header_block_is_ascii() {
        let cases = [("X: y\r\n\r\n\u{e9}\r\n", true), ("X: \u{e9}\r\n\r\n", false)];
        for (input, ascii) in cases {
            let mut pipeline = pipeline(Framing::Strict);
            pipeline.feed(input.as_bytes(), &mut Vec::new());
            assert_eq!(pipeline.has_ascii_headers(), ascii, "{input:?}");
        }
    }

    #[test]
    fn only_the_present_line_and_address_header_are_held() {
        let mut pipeline = pipeline(Framing::Strict);
        let mut output = Vec::new();
        let cases = [
            ("X: y\r\n", 0),
            ("X: ", 3),
            ("y\r\n", 0),
            ("To: a,\r\n", 7),
            (" b", 9),
            ("\r\n", 10),
            ("X", 11),
            (": y\r\n", 0),
            ("To: a,\r\n b", 9),
        ];
        for (sent, held) in cases {
            pipeline.feed(sent.as_bytes(), &mut output);
            assert_eq!(pipeline.held(), held, "after {sent:?}");
        }
        pipeline.drop_held();
        assert_eq!(pipeline.held(), 0);
        let end = pipeline.feed(b"\r\nno header\r\n.\r\n", &mut output).reached;
        assert_eq!((end, pipeline.held()), (Reached::End { standard: true }, 0));
        assert_eq!(pipeline.fault(), None, "nobody looks at headers any more");
    }

    #[test]
    fn the_first_fault_counts_and_nothing_is_kept_behind_it() {
        let long = "x".repeat(20_000);
        let cases = [
            (format!("\r\n{long}\r\n"), Some(Fault::TooBig)),
            (format!("X: {long}\r\n"), Some(Fault::TooBig)),
            (format!("no header\r\n{long}\r\n"), Some(Fault::Malformed)),
            ("Received: x\r\n".repeat(100) + "no header\r\n", Some(Fault::Loop)),
            ("Received: x\r\n".repeat(99), None),
        ];
        for (input, fault) in cases {
            let mut pipeline = pipeline(Framing::Strict);
            let mut output = Vec::new();
            pipeline.feed(input.as_bytes(), &mut output);
            assert_eq!(pipeline.fault(), fault);
            output.clear();
            let progress = pipeline.feed(b"\r\nmore\r\n.\r\nQUIT", &mut output);
            assert_eq!(progress.reached, Reached::End { standard: true });
            assert_eq!((progress.consumed, output.is_empty()), (11, fault.is_some()));
        }
    }
}
