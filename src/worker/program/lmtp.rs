//! mail.lmtp(8): hands standard input to an LMTP server.

use std::ffi::OsString;
use std::io::BufRead;

use lexopt::Arg;

use super::{refuse_root, text_of, usage};
use crate::worker::command::LIMIT;
use crate::worker::lmtp::{Client, Transaction};
use crate::worker::report::{Failed, TEMPORARY};

const PROGRAM: &str = "mail.lmtp";
/// Server, and LHLO argument, if none is given.
const LOCALHOST: &str = "localhost";

/// What the environment says: `SENDER`, `RECIPIENT` and `USER`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Environment {
    /// Sender of the message; empty for the null sender.
    pub sender: Option<String>,
    /// Recipient for `-r`.
    pub recipient: Option<String>,
    /// Recipient for `-u`.
    pub user: Option<String>,
}

/// What the program was asked to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    destination: String,
    name: String,
    transaction: Transaction,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn own() -> Self {
        let variable = |name| std::env::var(name).ok();
        Self {
            sender: variable("SENDER"),
            recipient: variable("RECIPIENT"),
            user: variable("USER"),
        }
    }
}

/// Reads the words of the command line.
///
/// # Errors
/// A flag is unknown, or nothing says who the sender or the recipients are.
pub fn parse(
    words: impl IntoIterator<Item = OsString>,
    environment: Environment,
) -> Result<Request, Failed> {
    let wrong = |error: lexopt::Error| usage(PROGRAM, error);
    let missing = |what: &str| Failed::new(TEMPORARY, PROGRAM, what);
    let mut parser = lexopt::Parser::from_args(words);
    let (mut destination, mut name) = (LOCALHOST.to_owned(), LOCALHOST.to_owned());
    let (mut from, mut named, mut operands) = (environment.sender, None, Vec::new());
    while let Some(argument) = parser.next().map_err(wrong)? {
        match argument {
            Arg::Short('d') => destination = text_of(PROGRAM, parser.value().map_err(wrong)?)?,
            Arg::Short('f') => from = Some(text_of(PROGRAM, parser.value().map_err(wrong)?)?),
            Arg::Short('l') => name = text_of(PROGRAM, parser.value().map_err(wrong)?)?,
            Arg::Short('r') => {
                let recipient = environment.recipient.clone();
                named = Some(recipient.ok_or_else(|| missing("RECIPIENT is not set"))?);
            }
            Arg::Short('u') => {
                let user = environment.user.clone();
                named = Some(user.ok_or_else(|| missing("USER is not set"))?);
            }
            Arg::Value(value) => operands.push(text_of(PROGRAM, value)?),
            Arg::Long(_) | Arg::Short(_) => return Err(wrong(argument.unexpected())),
        }
    }
    let from = from.ok_or_else(|| missing("a sender is needed: -f or SENDER"))?;
    // The last operand is named first, as scripts of the reference expect.
    let recipients = named.map_or_else(|| operands.into_iter().rev().collect(), |one| vec![one]);
    if recipients.is_empty() {
        return Err(missing("a recipient is needed"));
    }
    let clean = |text: &String| !text.contains(['\r', '\n', '\0', '<', '>']);
    if !recipients.iter().chain([&from, &name]).all(clean) {
        return Err(usage(PROGRAM, "an address or name has characters that none can have"));
    }
    Ok(Request { destination, name, transaction: Transaction { from, recipients } })
}

/// Delivers `message`.
///
/// # Errors
/// The process is root, or the delivery failed.
pub fn run(request: &Request, message: &mut dyn BufRead) -> Result<(), Failed> {
    refuse_root(PROGRAM, TEMPORARY)?;
    let Request { destination, name, transaction } = request;
    Client::new(name).deliver(destination, transaction, "", message, LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str], environment: Environment) -> Result<Request, u8> {
        parse(words.iter().map(OsString::from), environment).map_err(|failed| failed.status)
    }

    fn environment() -> Environment {
        Environment {
            sender: Some("s@x".to_owned()),
            recipient: Some("r@y".to_owned()),
            user: Some("u".to_owned()),
        }
    }

    #[test]
    fn words_and_environment_name_the_parties() {
        let cases = [
            (&["-u"][..], ("localhost", "localhost", "s@x", vec!["u"])),
            (&["-d", "h:1", "-r"], ("h:1", "localhost", "s@x", vec!["r@y"])),
            (&["-f", "f@x", "-l", "me", "a", "b"], ("localhost", "me", "f@x", vec!["b", "a"])),
            (&["-f", "", "a"], ("localhost", "localhost", "", vec!["a"])),
        ];
        for (words, (destination, name, from, recipients)) in cases {
            let request = parsed(words, environment()).unwrap();
            let Request { transaction, .. } = &request;
            assert_eq!(request.destination, destination);
            assert_eq!((request.name.as_str(), transaction.from.as_str()), (name, from));
            assert_eq!(transaction.recipients, recipients);
        }
    }

    #[test]
    fn what_is_missing_is_temporary_and_what_is_wrong_is_not() {
        // queue case 153
        let none = Environment::default;
        assert_eq!(parsed(&["-d", "h", "b"], none()), Err(TEMPORARY));
        assert_eq!(parsed(&["-f", "a", "-u"], none()), Err(TEMPORARY));
        assert_eq!(parsed(&["-f", "a"], environment()), Err(TEMPORARY));
        assert_eq!(parsed(&["-x"], environment()), Err(1));
        assert_eq!(parsed(&["-f", "a>\r\nQUIT", "b"], none()), Err(1));
    }
}
