//! The whole way of a message's content: lines, header block, size, faults.
//!
//! Once a message is at fault the rest of it is still read to its end, since the client expects
//! the reply there, but nothing more is kept.

use std::sync::Arc;

use super::content::{Content, Stop};
use super::headers::{Additions, HeaderBlock};

/// How one message is received.
#[derive(Clone, Debug)]
pub struct Options {
    /// Domain for header addresses that have none.
    pub domain: Arc<str>,
    /// Date and Message-ID, on listeners that add them.
    pub additions: Option<Additions>,
    /// Whether bare LF may be part of the end of the message: on the control socket alone.
    pub lenient: bool,
    /// Largest size, in bytes as received with one byte a line end.
    pub max_size: u64,
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
    max_size: u64,
    fault: Option<Fault>,
}

impl Pipeline {
    /// A pipeline at the start of a message.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            content: Content::new(options.lenient),
            headers: Some(HeaderBlock::new(options.domain, options.additions)),
            line: Vec::new(),
            max_size: options.max_size,
            fault: None,
        }
    }

    /// Why the message cannot be accepted, as far as is known.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault
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
        match headers.line(&self.line, output) {
            Ok(true) => self.line.clear(),
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
        self.headers = None;
        self.line = Vec::new();
    }
}
