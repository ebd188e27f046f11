//! The command line of `sendmail`.
//!
//! Options may follow operands. What the historical programs had and we have no use for is
//! accepted with its value and ignored. Nothing that becomes part of an SMTP command or a header
//! may hold a line end.
//!
//! Sources: the queue page of the specification, 7.1, with delta-7.9; cases 179 to 183 and 191.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

/// What a command line of `sendmail` asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Invocation {
    /// Send the message on standard input.
    Deliver(Options),
    /// `-bp`: list the queue.
    ListQueue,
    /// `-bi`: be `newaliases`.
    Newaliases,
    /// `-q`: there is no queue to run by hand.
    RunQueue,
    /// `-bs`: an SMTP session on standard input and output.
    SpeakSmtp,
}

/// How to send a message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// Envelope sender; empty for the null sender, `None` without `-f` and `-r`.
    pub sender: Option<String>,
    /// Full name for a From header that is made.
    pub full_name: Option<String>,
    /// Value of NOTIFY for every recipient.
    pub notify: Option<String>,
    /// Value of RET.
    pub ret: Option<String>,
    /// Value of ENVID.
    pub envid: Option<String>,
    /// The message was kept while the server was down: the caller is who the user id says, whatever
    /// the login name is, and it is not kept again.
    pub by_uid: bool,
    /// Recipients also from To, Cc and Bcc.
    pub header_recipients: bool,
    /// Print the dialogue.
    pub verbose: bool,
    /// Recipients, not yet split at commas.
    pub operands: Vec<String>,
}

/// Why a command line cannot be followed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OptionsError {
    /// An option that is unknown or lacks its value.
    #[error("usage: sendmail [-tv] [-f from] [-F name] to ...")]
    Usage,
    /// `-f '<a'`
    #[error("leading < but no trailing >")]
    Unbalanced,
    /// A line end, or bytes that are not UTF-8, where a command or header is made of it.
    #[error("illegal character in {0}")]
    IllegalCharacter(&'static str),
}

/// A command line, read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommandLine {
    /// What it asks for.
    pub invocation: Invocation,
    /// `--state`: directory of the server to talk to.
    pub state: Option<PathBuf>,
}

/// Reads `arguments`, the words after the program's name.
///
/// # Errors
/// The command line cannot be followed; the exit status is 1.
pub fn parse(arguments: &[OsString]) -> Result<CommandLine, OptionsError> {
    let mut state = None;
    let begins_with = |text: &str| {
        let begins = |word: &OsString| word.as_encoded_bytes().starts_with(text.as_bytes());
        arguments.iter().any(begins)
    };
    if begins_with("-bi") {
        return Ok(CommandLine { invocation: Invocation::Newaliases, state });
    }
    let mut options = Options::default();
    let mut mode = None;
    let mut parser = Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|_| OptionsError::Usage)? {
        match argument {
            Arg::Short('f' | 'r') => {
                let text = text(&mut parser, "sender")?;
                options.sender = Some(without_brackets(&text)?.to_owned());
            }
            Arg::Short('F') => options.full_name = Some(text(&mut parser, "full name")?),
            Arg::Short('N') => options.notify = Some(text(&mut parser, "NOTIFY")?),
            Arg::Short('R') => options.ret = Some(text(&mut parser, "RET")?),
            Arg::Short('V') => options.envid = Some(text(&mut parser, "ENVID")?),
            Arg::Short('S') => options.by_uid = true,
            Arg::Short('t') => options.header_recipients = true,
            Arg::Short('v') => options.verbose = true,
            Arg::Short('b') => match value(&mut parser)?.as_encoded_bytes() {
                b"p" => mode = Some(Invocation::ListQueue),
                b"s" => mode = Some(Invocation::SpeakSmtp),
                _ => {}
            },
            Arg::Short('q') => return Ok(CommandLine { invocation: Invocation::RunQueue, state }),
            Arg::Short('A' | 'B' | 'e' | 'L' | 'o' | 'p') => {
                value(&mut parser)?;
            }
            Arg::Short('E') => {
                parser.optional_value();
            }
            Arg::Short('i' | 'm' | 'x') => {}
            Arg::Long("state") => state = Some(PathBuf::from(value(&mut parser)?)),
            Arg::Value(operand) => options.operands.push(checked(operand, "recipient")?),
            Arg::Short(_) | Arg::Long(_) => return Err(OptionsError::Usage),
        }
    }
    let invocation = mode.unwrap_or(Invocation::Deliver(options));
    Ok(CommandLine { invocation, state })
}

fn value(parser: &mut Parser) -> Result<OsString, OptionsError> {
    parser.value().map_err(|_| OptionsError::Usage)
}

fn text(parser: &mut Parser, what: &'static str) -> Result<String, OptionsError> {
    checked(value(parser)?, what)
}

fn checked(word: OsString, what: &'static str) -> Result<String, OptionsError> {
    let text = word.string().map_err(|_| OptionsError::IllegalCharacter(what))?;
    if text.contains(['\r', '\n', '\0']) {
        return Err(OptionsError::IllegalCharacter(what));
    }
    Ok(text)
}

/// `<a>` is `a`.
fn without_brackets(text: &str) -> Result<&str, OptionsError> {
    match text.strip_prefix('<') {
        Some(rest) => rest.strip_suffix('>').ok_or(OptionsError::Unbalanced),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Invocation, OptionsError> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        parse(&words).map(|line| line.invocation)
    }

    fn options(words: &[&str]) -> Options {
        match read(words) {
            Ok(Invocation::Deliver(options)) => options,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    // queue cases 182 and 183.
    #[test]
    fn historical_options_are_taken_with_their_values() {
        let given = options(&[
            "-oi",
            "-oem",
            "-i",
            "-m",
            "-odi",
            "-L",
            "tag",
            "-B8BITMIME",
            "-Ac",
            "-E",
            "-x",
            "-bm",
            "-p",
            "x",
            "alice@d",
            "-f",
            "foo@d",
        ]);
        let expected = Options {
            sender: Some("foo@d".into()),
            operands: vec!["alice@d".into()],
            ..Options::default()
        };
        assert_eq!(given, expected);
    }

    #[test]
    fn options_mean_what_the_manual_says() {
        let given = options(&[
            "-tvS",
            "-f",
            "<a@b>",
            "-F",
            "A B",
            "-N",
            "success,failure",
            "-R",
            "HDRS",
            "-Veid",
            "--",
            "-x@d",
        ]);
        let expected = Options {
            sender: Some("a@b".into()),
            full_name: Some("A B".into()),
            notify: Some("success,failure".into()),
            ret: Some("HDRS".into()),
            envid: Some("eid".into()),
            by_uid: true,
            header_recipients: true,
            verbose: true,
            operands: vec!["-x@d".into()],
        };
        assert_eq!(given, expected);
        assert_eq!(options(&["-f", "<>"]).sender.as_deref(), Some(""));
        assert_eq!(options(&["-r", ""]).sender.as_deref(), Some(""));
        assert_eq!(options(&[]).sender, None);
    }

    // queue cases 179, 180 (in the form of delta-7.9), 181 and 191.
    #[test]
    fn modes_and_errors_are_told_apart() {
        let cases: [(&[&str], _); 13] = [
            (&["-q"], Ok(Invocation::RunQueue)),
            (&["-q30m"], Ok(Invocation::RunQueue)),
            (&["-bp"], Ok(Invocation::ListQueue)),
            (&["-bs"], Ok(Invocation::SpeakSmtp)),
            (&["-bi"], Ok(Invocation::Newaliases)),
            (&["-J", "-bi"], Ok(Invocation::Newaliases)),
            (&["-J", "x"], Err(OptionsError::Usage)),
            (&["-n", "x"], Err(OptionsError::Usage)),
            (&["--help"], Err(OptionsError::Usage)),
            (&["-f"], Err(OptionsError::Usage)),
            (&["-f", "<a"], Err(OptionsError::Unbalanced)),
            (&["-f", "a\r\nb"], Err(OptionsError::IllegalCharacter("sender"))),
            (&["a@b\nRCPT TO:<c@d>"], Err(OptionsError::IllegalCharacter("recipient"))),
        ];
        for (words, expected) in cases {
            assert_eq!(read(words), expected, "{words:?}");
        }
    }

    #[test]
    fn the_state_directory_can_be_named() {
        let words = ["--state", "/tmp/s", "a@b"].map(OsString::from);
        assert_eq!(parse(&words).unwrap().state, Some(PathBuf::from("/tmp/s")));
    }
}
