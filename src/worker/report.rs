//! What came of a local delivery, in the words of exit statuses.
//!
//! Every method ends like a program: with a status of sysexits(3) or a signal, and what it said
//! last. Methods that run inside the worker say the same as their `mail.*` program would, so logs
//! and delivery reports do not depend on which of the two did the work.
//!
//! Sources: sysexits(3), vis(3); the queue page of the specification, section 5.5.

use std::io;

use crate::log::system_text;
use crate::model::outcome::{EnhancedStatus, Failure, Outcome};

pub use crate::model::outcome::Report;

/// Status of wrong usage.
pub const USAGE: u8 = 64;
/// Status of a user that does not exist.
pub const NO_USER: u8 = 67;
/// Status of a service that refused for good.
pub const UNAVAILABLE: u8 = 69;
/// Status of trouble with the operating system: temporary.
pub const OS_ERROR: u8 = 71;
/// Status of a temporary failure.
pub const TEMPORARY: u8 = 75;
/// Status of plain failure, as mail.maildir and others use it for wrong usage.
pub const FAILURE: u8 = 1;

/// Longest quoted text of a failure, in bytes.
const MAX_TEXT: usize = 250;

/// Why a delivery did not succeed, as its program would have put it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text}")]
pub struct Failed {
    /// Exit status, one of sysexits(3).
    pub status: u8,
    /// The line that the program would have written, its name in front.
    pub text: String,
}

impl Failed {
    /// A failure of the program `program`.
    #[must_use]
    pub fn new(status: u8, program: &str, what: impl std::fmt::Display) -> Self {
        Self { status, text: format!("{program}: {what}") }
    }
}

impl Failed {
    /// A failure of the program `program` that the system caused while it did `what`.
    #[must_use]
    pub fn system(
        status: u8,
        program: &str,
        what: impl std::fmt::Display,
        error: &io::Error,
    ) -> Self {
        Self::new(status, program, format_args!("{what}: {}", system_text(error)))
    }
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// It exited.
    Exit(u8),
    /// It exited with success before it had read the whole message.
    Premature,
    /// A signal ended it.
    Signal(i32),
    /// It was still running after its time.
    Timeout,
}

impl Report {
    /// Delivered and durable.
    #[must_use]
    pub fn delivered() -> Self {
        Self { outcome: Outcome::Delivered { dsn_relayed: false }, exit: 0 }
    }

    /// A failure without a program behind it.
    #[must_use]
    pub fn temporary(text: impl Into<String>) -> Self {
        Self { outcome: temporary(text.into()), exit: 0 }
    }

    /// A refusal without a program behind it.
    #[must_use]
    pub fn permanent(text: impl Into<String>) -> Self {
        Self { outcome: permanent(text.into()), exit: 0 }
    }

    /// What a program's end and output mean.
    ///
    /// `output` is the end of what it wrote to standard output and standard error. A shell's
    /// status for a command that died by a signal (129 to 165) means what the signal means.
    #[must_use]
    pub fn of_program(end: End, output: &[u8]) -> Self {
        if end == End::Exit(0) {
            return Self::delivered();
        }
        let plain = match end {
            End::Exit(status @ 129..=165) => format!("terminated; signal {}", status - 128),
            End::Exit(_) => "exited abnormally".to_owned(),
            End::Premature => "mda exited prematurely".to_owned(),
            End::Signal(signal) => format!("terminated; signal {signal}"),
            End::Timeout => "terminated; timeout".to_owned(),
        };
        let text = last_line(output).map_or(plain, quoted);
        match end {
            End::Exit(status @ (OS_ERROR | TEMPORARY)) => {
                Self { outcome: temporary(text), exit: status }
            }
            End::Exit(129..=165) | End::Premature | End::Signal(_) | End::Timeout => {
                Self { outcome: temporary(text), exit: 0 }
            }
            End::Exit(status) => Self { outcome: permanent(text), exit: status },
        }
    }
}

impl From<Failed> for Report {
    fn from(failed: Failed) -> Self {
        Self::of_program(End::Exit(failed.status.max(1)), failed.text.as_bytes())
    }
}

impl<T> From<Result<T, Failed>> for Report {
    fn from(result: Result<T, Failed>) -> Self {
        result.map_or_else(Self::from, |_| Self::delivered())
    }
}

fn temporary(text: String) -> Outcome {
    Outcome::Temporary(Failure { text, status: EnhancedStatus::new(4, 3, 0) })
}

fn permanent(text: String) -> Outcome {
    Outcome::Permanent(Failure { text, status: EnhancedStatus::new(5, 3, 0) })
}

/// The last line that is not empty.
fn last_line(output: &[u8]) -> Option<&[u8]> {
    output.split(|byte| *byte == b'\n').rev().find(|line| !line.is_empty())
}

/// `line` in double quotes, visible, at most 250 bytes: it goes into logs and reports as it is.
fn quoted(line: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in line {
        let before = text.len();
        push_visible(&mut text, *byte);
        if text.len() > MAX_TEXT {
            text.truncate(before);
            break;
        }
    }
    text.push('"');
    text
}

/// Appends `byte` in the C-like notation of vis(3).
fn push_visible(text: &mut String, byte: u8) {
    match byte {
        b'\\' => text.push_str("\\\\"),
        b'\t' => text.push_str("\\t"),
        b'\r' => text.push_str("\\r"),
        0x07 => text.push_str("\\a"),
        0x08 => text.push_str("\\b"),
        0x0b => text.push_str("\\v"),
        0x0c => text.push_str("\\f"),
        b' '..=b'~' => text.push(char::from(byte)),
        _ => {
            let low = byte & 0x7f;
            let (meta, control) = (byte >= 0x80, low < 0x20 || low == 0x7f);
            text.push('\\');
            if meta {
                text.push('M');
            }
            text.push(if control { '^' } else { '-' });
            text.push(char::from(if control { low ^ 0x40 } else { low }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(report: &Report) -> (&'static str, &str) {
        match &report.outcome {
            Outcome::Delivered { .. } => ("ok", ""),
            Outcome::Loop => ("loop", ""),
            Outcome::Permanent(failure) => ("permanent", &failure.text),
            Outcome::Temporary(failure) => ("temporary", &failure.text),
        }
    }

    #[test]
    fn an_end_decides_the_outcome() {
        // queue cases 136-139
        let cases = [
            (End::Exit(0), "ok", ""),
            (End::Exit(1), "permanent", "exited abnormally"),
            (End::Exit(64), "permanent", "exited abnormally"),
            (End::Exit(69), "permanent", "exited abnormally"),
            (End::Exit(71), "temporary", "exited abnormally"),
            (End::Exit(75), "temporary", "exited abnormally"),
            (End::Exit(78), "permanent", "exited abnormally"),
            (End::Exit(128), "permanent", "exited abnormally"),
            (End::Exit(137), "temporary", "terminated; signal 9"),
            (End::Exit(166), "permanent", "exited abnormally"),
            (End::Signal(9), "temporary", "terminated; signal 9"),
            (End::Timeout, "temporary", "terminated; timeout"),
            (End::Premature, "temporary", "mda exited prematurely"),
        ];
        for (end, class, text) in cases {
            assert_eq!(text_of(&Report::of_program(end, b"")), (class, text), "{end:?}");
        }
    }

    #[test]
    fn the_last_line_is_quoted_and_made_visible() {
        // queue case 140
        let cases: [(&[u8], &str); 6] = [
            (b"first\nboom\n", "\"boom\""),
            (b"boom\n\n", "\"boom\""),
            (b"a\tb\\c", "\"a\\tb\\\\c\""),
            (b"\x1b[0m\x7f", "\"\\^[[0m\\^?\""),
            (b"\xc3\xa9\x80", "\"\\M-C\\M-)\\M^@\""),
            (b"", "exited abnormally"),
        ];
        for (output, expected) in cases {
            let report = Report::of_program(End::Exit(1), output);
            assert_eq!(text_of(&report), ("permanent", expected));
        }
        let long = Report::of_program(End::Exit(1), &[b'\\'; 4096]);
        assert_eq!(text_of(&long).1.len(), 250, "{long:?}");
    }

    #[test]
    fn the_log_tells_the_status_in_words() {
        let report = Report::of_program(End::Exit(75), b"temporary trouble\n");
        assert_eq!(report.stat(), "Error (temporary failure: \"temporary trouble\")");
        assert_eq!(Report::of_program(End::Exit(1), b"").stat(), "Error (exited abnormally)");
        assert_eq!(Report::delivered().stat(), "Delivered");
    }
}
