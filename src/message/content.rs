//! Lines of message content: line ends, dots, the end of the message.
//!
//! The strict rule: only CR LF `.` CR LF ends a message, and the start counts as behind a CR LF.
//! The lenient rule, for the control socket alone, takes a bare LF in either place too. A CR that
//! is not directly before an LF becomes a blank; NUL is a byte like any other.
//!
//! Content in chunks (BDAT) is told its length, so dots mean nothing in it, and its end is not
//! looked for. Its line ends are read the same: a bare LF ends a line, a bare CR becomes a blank.
//! What is stored is the same as if it had come by DATA, and is sent on with dots added, so no byte
//! of it can end a message anywhere else.
//!
//! Sources: RFC 5321 sections 2.3.8 and 4.5.2; RFC 3030 section 2; the SMTP page of the
//! specification, 1.12.

use memchr::memchr2;

use crate::model::limits::MESSAGE_LINE;

/// What marks the end of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// Its length, which the caller counts: chunks.
    Counted,
    /// A line with a dot alone, between line ends of any kind: the control socket.
    Lenient,
    /// A line with a dot alone, between CR LF and CR LF.
    Strict,
}

/// Where in a line the reader is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// At its first byte.
    Start,
    /// Behind a dot that is its first byte, and not stored.
    Dot,
    /// Behind such a dot and a CR.
    DotReturn,
    /// Anywhere else.
    Inside,
    /// Behind a CR, anywhere else.
    Return,
}

/// Why the reader stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stop {
    /// At the end of the input.
    Input,
    /// Behind a line, where the caller wants to see each.
    Line,
    /// Behind the end of the message; `standard` if it was CR LF `.` CR LF.
    Message {
        /// Whether every server would have seen the end there.
        standard: bool,
    },
    /// In a line that is too long.
    TooLong,
}

/// The reader.
#[derive(Debug)]
pub(super) struct Content {
    place: Place,
    /// Whether the line before ended in CR LF.
    behind_crlf: bool,
    framing: Framing,
    /// Whether lines keep the dots that they are stuffed with.
    stuffed: bool,
    /// Bytes of the present line, its CR included.
    length: usize,
    size: u64,
}

impl Content {
    pub(super) fn new(framing: Framing) -> Self {
        Self { place: Place::Start, behind_crlf: true, framing, stuffed: false, length: 0, size: 0 }
    }

    /// A reader that leaves lines as they are sent: with the dots that they were stuffed with.
    pub(super) fn keeping_dots(framing: Framing) -> Self {
        Self { stuffed: true, ..Self::new(framing) }
    }

    /// Ends a message whose length was counted: a last line without end gets one. Returns whether
    /// it did; the line's content, but for a CR at its end, is in `output` already.
    pub(super) fn finish(&mut self, output: &mut Vec<u8>) -> bool {
        if matches!(self.place, Place::Start) {
            return false;
        }
        if matches!(self.place, Place::Return) {
            output.push(b' ');
        }
        self.end_line(LineEnd::Lf);
        true
    }

    /// Bytes of all complete lines before dots were removed, one for each line end.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Reads from `input`, appends content to `output`, and returns how many bytes were read.
    ///
    /// With `each_line` it stops behind each line, and leaves out the LF.
    pub(super) fn read(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
        each_line: bool,
    ) -> (usize, Stop) {
        let mut rest = input;
        let stop = loop {
            let Some((&first, behind_first)) = rest.split_first() else { break Stop::Input };
            // Whether the line ends here, and how.
            let end = match (self.place, first) {
                (Place::Start, b'.') if self.framing != Framing::Counted => {
                    self.place = Place::Dot;
                    self.length = 1;
                    rest = behind_first;
                    None
                }
                (Place::Dot, b'\r') => {
                    self.place = Place::DotReturn;
                    self.length += 1;
                    rest = behind_first;
                    None
                }
                (Place::Dot, b'\n') => {
                    rest = behind_first;
                    if self.framing == Framing::Lenient {
                        break Stop::Message { standard: false };
                    }
                    Some(LineEnd::Lf)
                }
                (Place::DotReturn, b'\n') => {
                    rest = behind_first;
                    if self.behind_crlf || self.framing == Framing::Lenient {
                        break Stop::Message { standard: self.behind_crlf };
                    }
                    Some(LineEnd::CrLf)
                }
                (Place::Return, b'\n') => {
                    rest = behind_first;
                    Some(LineEnd::CrLf)
                }
                (Place::DotReturn | Place::Return, _) => {
                    self.keep_dot(output);
                    output.push(b' ');
                    self.place = Place::Inside;
                    None
                }
                (Place::Start | Place::Dot | Place::Inside, _) => {
                    self.keep_dot(output);
                    let (behind, end) = self.read_inside(rest, output);
                    rest = behind;
                    end
                }
            };
            if self.length > MESSAGE_LINE {
                break Stop::TooLong;
            }
            let Some(end) = end else { continue };
            self.end_line(end);
            if each_line {
                break Stop::Line;
            }
            output.push(b'\n');
        };
        (input.len() - rest.len(), stop)
    }

    /// Appends the dot of a line that turns out to have more, where dots stay.
    fn keep_dot(&self, output: &mut Vec<u8>) {
        if self.stuffed && matches!(self.place, Place::Dot | Place::DotReturn) {
            output.push(b'.');
        }
    }

    /// Copies up to the next CR or LF. This is where the time of large messages goes: one scan
    /// and one copy a line.
    fn read_inside<'a>(
        &mut self,
        rest: &'a [u8],
        output: &mut Vec<u8>,
    ) -> (&'a [u8], Option<LineEnd>) {
        self.place = Place::Inside;
        let found = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let (text, tail) = rest.split_at_checked(found).unwrap_or((rest, b""));
        output.extend_from_slice(text);
        self.length += text.len();
        match tail {
            [] => (tail, None),
            [b'\r', b'\n', behind @ ..] => {
                self.length += 1;
                (behind, Some(LineEnd::CrLf))
            }
            [b'\r', behind @ ..] => {
                self.length += 1;
                self.place = Place::Return;
                (behind, None)
            }
            [_, behind @ ..] => (behind, Some(LineEnd::Lf)),
        }
    }

    fn end_line(&mut self, end: LineEnd) {
        // A CR before the LF does not count, the line end counts for one.
        let return_length = usize::from(end == LineEnd::CrLf);
        self.size += (self.length + 1).saturating_sub(return_length) as u64;
        self.length = 0;
        self.behind_crlf = end == LineEnd::CrLf;
        self.place = Place::Start;
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LineEnd {
    CrLf,
    Lf,
}
