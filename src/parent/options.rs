//! The command line of smtpd(8).

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use lexopt::prelude::{Long, Short, Value, ValueExt as _};
use platform::Role;
use platform::syslog::SysLog;

use crate::config::parse_define;
use crate::log::Sink;

/// The usage line of smtpd(8).
pub const USAGE: &str = "\
usage: smtpd [-dFhnv] [-D macro=value] [-f file] [-P system] [-T trace]
       smtpd [-B backend] [-V] [--resolver address] [--state directory]";

/// What `-T` can show.
const TRACES: [&str; 20] = [
    "all",
    "bounce",
    "bounces",
    "expand",
    "filters",
    "imsg",
    "io",
    "lookup",
    "mproc",
    "mta",
    "profile-imsg",
    "profile-queue",
    "profstat",
    "queue",
    "rules",
    "scheduler",
    "smtp",
    "stat",
    "stats",
    "table",
];
/// Other names of some of them.
const OTHER_TRACES: [&str; 2] = ["tables", "transfer"];
/// Backends that `-B` may name: those that are there anyway.
const BACKENDS: [&str; 3] = ["queue=fs", "scheduler=ramqueue", "stat=ram"];

/// What was asked for on the command line.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `-n`: check the configuration and leave.
    pub check: bool,
    /// `-D NAME=VALUE`: macros.
    pub defines: Vec<(String, String)>,
    /// `-d`: stay in the foreground, log to standard error.
    pub foreground: bool,
    /// `-F`: stay in the foreground, log to syslog.
    pub to_syslog: bool,
    /// `--explain WORD …`: tell what would become of a message; the words say which.
    pub explain: Option<Vec<String>>,
    /// `-f FILE`: the configuration.
    pub config_file: Option<PathBuf>,
    /// `-h`: say the version and how to use this, and leave.
    pub version: bool,
    /// `--json`: explain for programs.
    pub json: bool,
    /// `-V`: say the version and what is built in, and leave.
    pub built_in: bool,
    /// What is odd about the command line, for whoever gave it.
    pub warnings: Vec<String>,
    /// `-P mda|mta|smtp`: begin paused.
    pub paused: Vec<Pausable>,
    /// `--state DIR`: everything under one directory.
    pub state: Option<PathBuf>,
    /// `-v`: log debug messages; with `-n`, print the configuration as understood.
    pub verbose: bool,
    /// `-x ROLE`: be this role. The parent's way to start the others.
    pub role: Option<Role>,
    /// `--resolver ADDR:PORT`: ask this name server instead of the system's.
    pub resolvers: Vec<SocketAddr>,
    /// `--channel-credits N`: requests under way between two roles, for tests of back-pressure.
    pub credits: Option<u32>,
}

/// What can be paused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pausable {
    /// Local deliveries.
    Mda,
    /// Relaying.
    Mta,
    /// Accepting.
    Smtp,
}

/// The command line is wrong.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// An option that is not one, or has no value.
    #[error(transparent)]
    Option(#[from] lexopt::Error),
    /// An option without an effect so far.
    #[error("-{option} {value}: not supported yet")]
    Unsupported {
        /// The option.
        option: char,
        /// What was given.
        value: String,
    },
    /// A value that does not fit its option.
    #[error("{option}: {value:?} is not {expected}")]
    Value {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is needed.
        expected: &'static str,
    },
    /// A word that belongs to no option.
    #[error("{0:?} belongs to no option")]
    Word(String),
    /// `--explain` or `--json` without what they need.
    #[error("{option} needs {missing}")]
    Alone {
        /// The option.
        option: &'static str,
        /// What is needed with it.
        missing: &'static str,
    },
}

impl Options {
    /// Where the log lines of this process go.
    #[must_use]
    pub fn sink(&self) -> Sink {
        if self.foreground && !self.to_syslog {
            return Sink::Terminal;
        }
        // Without a system log there is still the terminal.
        SysLog::open(c"smtpd").map_or(Sink::Terminal, Sink::System)
    }

    /// Reads the command line, without the program's name.
    ///
    /// # Errors
    /// Says which option is wrong.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut options = Self::default();
        let mut words = Vec::new();
        let mut explain = false;
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            match argument {
                Short('B') => options.backend(parser.value()?.string()?)?,
                Short('d') => options.foreground = true,
                Short('D') => options.define(&parser.value()?.string()?),
                Short('F') => {
                    options.foreground = true;
                    options.to_syslog = true;
                }
                Short('f') => options.config_file = Some(parser.value()?.into()),
                Short('h') => options.version = true,
                Short('n') => options.check = true,
                Short('P') => options.paused.extend(pausable(&parser.value()?.string()?)),
                Short('T') => options.trace(&parser.value()?.string()?),
                Short('V') => options.built_in = true,
                Short('v') => options.verbose = true,
                Short('x') => options.role = Some(role(&parser.value()?.string()?)?),
                Long("channel-credits") => options.credits = Some(parser.value()?.parse()?),
                Long("explain") => explain = true,
                Long("json") => options.json = true,
                Long("resolver") => options.resolvers.push(parser.value()?.parse()?),
                Long("state") => options.state = Some(parser.value()?.into()),
                Value(word) => words.push(word.string()?),
                other => return Err(other.unexpected().into()),
            }
        }
        if explain && !options.check {
            return Err(UsageError::Alone { option: "--explain", missing: "-n" });
        }
        if options.json && !explain {
            return Err(UsageError::Alone { option: "--json", missing: "--explain" });
        }
        if explain {
            options.explain = Some(words);
        } else if let Some(word) = words.pop() {
            return Err(UsageError::Word(word));
        }
        Ok(options)
    }

    /// `-D NAME=VALUE`.
    fn define(&mut self, text: &str) {
        match parse_define(text) {
            Some(define) => self.defines.push(define),
            None => self.warnings.push(format!("could not parse macro definition {text}")),
        }
    }

    /// `-T NAME`. Traces are not shown yet.
    fn trace(&mut self, name: &str) {
        let known = TRACES.contains(&name) || OTHER_TRACES.contains(&name);
        self.warnings.push(match known {
            true => format!("-T {name}: not supported yet"),
            false => format!("unknown trace flag \"{name}\""),
        });
    }

    /// `-B SYSTEM=NAME`.
    fn backend(&mut self, text: String) -> Result<(), UsageError> {
        let system = text.split_once('=').map(|(system, _)| system);
        match system {
            _ if BACKENDS.contains(&text.as_str()) => Ok(()),
            Some("queue" | "scheduler" | "stat") => {
                Err(UsageError::Unsupported { option: 'B', value: text })
            }
            _ => {
                self.warnings.push(format!("invalid backend specifier {text}"));
                Ok(())
            }
        }
    }
}

/// What `-P` names; other words are ignored.
fn pausable(text: &str) -> Option<Pausable> {
    match text {
        "mda" => Some(Pausable::Mda),
        "mta" => Some(Pausable::Mta),
        "smtp" => Some(Pausable::Smtp),
        _ => None,
    }
}

fn role(text: &str) -> Result<Role, UsageError> {
    Role::from_name(text).ok_or_else(|| UsageError::Value {
        option: "-x",
        value: text.to_owned(),
        expected: "a role",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, UsageError> {
        Options::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn options_may_be_joined() {
        let options = parse(&["-dvf", "x.conf", "-Da=b=c", "-P", "mta", "-Bqueue=fs"]).unwrap();
        assert!(options.foreground && options.verbose && !options.check);
        assert_eq!(options.config_file, Some("x.conf".into()));
        assert_eq!(options.defines, [("a=b".to_owned(), "c".to_owned())]);
        assert_eq!(options.paused, [Pausable::Mta]);
        assert_eq!(options.warnings, [""; 0]);
    }

    #[test]
    fn a_wrong_command_line_is_refused() {
        let cases: [&[&str]; 9] = [
            &["-B", "queue=null"],
            &["-D"],
            &["-x", "root"],
            &["-Q"],
            &["-f"],
            &["x"],
            &["-n", "x"],
            &["-n", "--json"],
            &["--explain", "rcpt=a@b"],
        ];
        for words in cases {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn words_are_taken_by_explain_alone() {
        let options = parse(&["-n", "--explain", "from=a@b", "rcpt=c@d", "--json"]).unwrap();
        assert_eq!(options.explain.unwrap(), ["from=a@b", "rcpt=c@d"]);
        assert!(options.json && options.check);
        assert_eq!(parse(&["-n"]).unwrap().explain, None);
    }

    #[test]
    fn what_is_odd_is_said_and_what_is_unknown_to_p_is_not() {
        let words = ["-D", "a", "-T", "bogus", "-T", "rules", "-B", "foo=x", "-B", "x", "-P", "y"];
        let options = parse(&words).unwrap();
        let expected = [
            "could not parse macro definition a",
            "unknown trace flag \"bogus\"",
            "-T rules: not supported yet",
            "invalid backend specifier foo=x",
            "invalid backend specifier x",
        ];
        assert_eq!(options.warnings, expected);
        assert_eq!((options.defines.len(), options.paused.len()), (0, 0));
    }
}
