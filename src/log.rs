//! Log lines: to the terminal while in the foreground, else to syslog.
//!
//! Call sites use the macros of `tracing`; the text of a line is an interface that log parsers know
//! (smtpd(8), section LOGGING). Control characters in it are escaped here once more, so that no line
//! can be forged whatever a call site forgot.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use platform::syslog::{Priority, SysLog};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Where lines go.
#[derive(Debug)]
pub enum Sink {
    /// Standard error.
    Terminal,
    /// The system's log, facility mail. Opened before the process is confined.
    System(SysLog),
}

static VERBOSE: AtomicBool = AtomicBool::new(false);

/// Sends the lines of this process to `sink` from now on. Only the first call counts.
pub fn start(sink: Sink, verbose: bool) {
    set_verbose(verbose);
    // A second start in one process, as tests have it, keeps the first.
    let _second = tracing::subscriber::set_global_default(Lines { sink });
}

/// Whether debug messages are logged.
pub fn set_verbose(verbose: bool) {
    VERBOSE.store(verbose, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

/// An error of the system in its own words, without the number that Rust adds.
#[must_use]
pub fn system_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

struct Lines {
    sink: Sink,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries may speak up only when something is wrong.
        let own = metadata.target().starts_with("pillarbox") || metadata.target() == "smtpd";
        let most = match (own, VERBOSE.load(Ordering::Relaxed)) {
            (true, true) => Level::DEBUG,
            (true, false) => Level::INFO,
            (false, _) => Level::ERROR,
        };
        *metadata.level() <= most
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::with_capacity(256));
        event.record(&mut line);
        let level = *event.metadata().level();
        match &self.sink {
            Sink::Terminal => {
                line.0.push('\n');
                // Nobody is left to be told that standard error is gone.
                let _gone = std::io::stderr().lock().write_all(line.0.as_bytes());
            }
            Sink::System(system) => {
                let priority = if level == Level::ERROR {
                    Priority::Error
                } else if level == Level::WARN {
                    Priority::Warning
                } else if level == Level::INFO {
                    Priority::Info
                } else {
                    Priority::Debug
                };
                // A line holds no NUL byte once it was escaped.
                let _infallible = system.write(priority, &line.0);
            }
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The text of one event: its message.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String cannot fail.
            let _infallible = write!(Escaping(&mut self.0), "{value:?}");
        }
    }
}

struct Escaping<'line>(&'line mut String);

impl std::fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for character in text.chars() {
            if character.is_control() {
                write!(self.0, "{}", character.escape_default())?;
            } else {
                self.0.push(character);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_be_forged() {
        let mut text = String::new();
        write!(Escaping(&mut text), "a\nb\tc\u{1b}é").unwrap();
        assert_eq!(text, "a\\nb\\tc\\u{1b}é");
    }

    #[test]
    fn errors_of_the_system_have_no_numbers() {
        let refused = io::Error::from_raw_os_error(111);
        assert!(!system_text(&refused).contains("os error"));
        assert_eq!(system_text(&io::Error::other("own words")), "own words");
    }
}
