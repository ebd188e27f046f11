//! Carries out a command of `smtpctl`: asks the server and prints what it answers.
//!
//! Sources: the queue page of the specification, 6.3 and 6.4; cases 162 to 173.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use super::envelope_text;
use super::exchange::{Exchange, ServerError};
use super::format;
use super::words::Command;
use crate::ipc::message::client::{Change, Reply, Request};

/// Bytes of a listing that are written at once.
const OUTPUT: usize = 64 * 1024;

/// How a listing is printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// JSON, an object a line.
    Json,
    /// The lines that scripts know.
    Text,
}

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// More is queued than was printed.
    #[error("the server is still reading its spool: this listing is incomplete")]
    Incomplete,
    /// There is no JSON form of what it prints.
    #[error("--json is for show queue, show envelope, show stats and show status")]
    NoJson,
    /// What was asked for is not there. The words are those of the reference.
    #[error("fopen: No such file or directory")]
    NotFound,
    /// The output.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// Only a server lists the queue.
    #[error("smtpd doesn't seem to be running: start it, and it lists what its spool holds")]
    QueueNeedsServer,
    /// The server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A command that this version knows and cannot carry out.
    #[error("{0}: not supported yet")]
    Unsupported(&'static str),
}

/// Carries out `command`, printing to `output`. Answers whether it was done.
///
/// `now` is in seconds since 1970. `connect` is called once, after what can be refused without the
/// server.
///
/// # Errors
/// Says why there is no result; the exit status is 1.
pub fn run<E: Exchange>(
    command: &Command,
    form: Form,
    now: i64,
    output: &mut impl Write,
    connect: impl FnOnce() -> Result<E, ServerError>,
) -> Result<bool, CommandError> {
    let has_json = matches!(
        command,
        Command::ShowEnvelope(_)
            | Command::ShowQueue(_)
            | Command::ShowStatistics
            | Command::ShowStatus
    );
    if let Command::Unsupported(words) = command {
        return Err(CommandError::Unsupported(words));
    }
    if form == Form::Json && !has_json {
        return Err(CommandError::NoJson);
    }
    let exchange = connect().map_err(|error| match (error, command) {
        (ServerError::Down, Command::ShowQueue(_)) => CommandError::QueueNeedsServer,
        (error, _) => error.into(),
    })?;
    let mut client = Client { exchange, form, now, output };
    client.run(command)
}

struct Client<'a, E, W> {
    exchange: E,
    form: Form,
    now: i64,
    output: &'a mut W,
}

impl<E: Exchange, W: Write> Client<'_, E, W> {
    fn run(&mut self, command: &Command) -> Result<bool, CommandError> {
        match *command {
            Command::Change(change, selection) => {
                self.exchange.ask(Request::Change { change, selection })?;
                self.count(change)
            }
            Command::Log(verbosity) => self.order(Request::SetVerbosity(verbosity)),
            Command::Pause(service) => self.order(Request::Pause(service)),
            Command::Reload => self.order(Request::Reload),
            Command::Resume(service) => self.order(Request::Resume(service)),
            Command::ShowEnvelope(id) => {
                self.exchange.ask(Request::ShowEnvelope(id))?;
                self.envelope()
            }
            Command::ShowMessage(id) => {
                self.exchange.ask(Request::ShowMessage(id))?;
                self.message()
            }
            Command::ShowQueue(message) => {
                self.exchange.ask(Request::List { message })?;
                self.queue()
            }
            Command::ShowStatistics => {
                self.exchange.ask(Request::ShowStatistics)?;
                self.statistics()
            }
            Command::ShowStatus => {
                self.exchange.ask(Request::ShowStatus)?;
                self.status()
            }
            Command::Stop => self.order(Request::Stop),
            // No server is asked for it: who calls this has done it.
            Command::Encrypt(_) => Err(CommandError::Unsupported("encrypt")),
            Command::Unsupported(words) => Err(CommandError::Unsupported(words)),
            Command::UpdateTable(ref name) => {
                self.order(Request::UpdateTable { name: name.clone() })
            }
        }
    }

    fn order(&mut self, request: Request) -> Result<bool, CommandError> {
        self.exchange.ask(request)?;
        let done = match self.exchange.reply()?.0 {
            Reply::Done => true,
            Reply::Failed => false,
            other => return Err(unexpected(&other)),
        };
        let word = if done { "succeeded" } else { "failed" };
        writeln!(self.output, "command {word}")?;
        Ok(done)
    }

    fn count(&mut self, change: Change) -> Result<bool, CommandError> {
        let verb = match change {
            Change::Pause => "paused",
            Change::Remove => "removed",
            Change::Resume => "resumed",
            Change::Schedule => "scheduled",
        };
        match self.exchange.reply()?.0 {
            Reply::Count(number) => self.print(&format::count(number, verb)),
            other => Err(unexpected(&other)),
        }
    }

    fn envelope(&mut self) -> Result<bool, CommandError> {
        match self.exchange.reply()?.0 {
            Reply::Envelope { envelope, place } => {
                let why = place.and_then(|place| place.reason);
                let why = why.map(|why| format::reason(why, &envelope.route.action));
                self.print(&match self.form {
                    Form::Json => envelope_text::json(&envelope, why.as_deref()),
                    Form::Text => envelope_text::text(&envelope, why.as_deref()),
                })
            }
            other => Err(unexpected(&other)),
        }
    }

    fn message(&mut self) -> Result<bool, CommandError> {
        loop {
            match self.exchange.reply()? {
                (Reply::Bytes(bytes), _) => self.output.write_all(&bytes)?,
                (Reply::Done, _) => {
                    self.output.flush()?;
                    return Ok(true);
                }
                (Reply::File { size }, Some(file)) => {
                    io::copy(&mut File::from(file).take(size), self.output)?;
                    self.output.flush()?;
                    return Ok(true);
                }
                (other, _) => return Err(unexpected(&other)),
            }
        }
    }

    fn queue(&mut self) -> Result<bool, CommandError> {
        let mut output = BufWriter::with_capacity(OUTPUT, &mut *self.output);
        let mut lines = String::new();
        loop {
            match self.exchange.reply()?.0 {
                Reply::Listing(piece) => {
                    lines.clear();
                    for listed in &piece {
                        match self.form {
                            Form::Json => format::queue_json(&mut lines, listed, self.now),
                            Form::Text => format::queue_line(&mut lines, listed, self.now),
                        }
                    }
                    output.write_all(lines.as_bytes())?;
                }
                Reply::Done => {
                    output.flush()?;
                    return Ok(true);
                }
                Reply::Incomplete => {
                    output.flush()?;
                    return Err(CommandError::Incomplete);
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    fn statistics(&mut self) -> Result<bool, CommandError> {
        let mut all = Vec::new();
        loop {
            match self.exchange.reply()?.0 {
                Reply::Statistics(mut piece) => all.append(&mut piece),
                Reply::Done => break,
                other => return Err(unexpected(&other)),
            }
        }
        self.print(&match self.form {
            Form::Json => format::statistics_json(all),
            Form::Text => format::statistics(all),
        })
    }

    fn status(&mut self) -> Result<bool, CommandError> {
        match self.exchange.reply()?.0 {
            Reply::Status(status) => self.print(&match self.form {
                Form::Json => format::status_json(&status),
                Form::Text => format::status(&status),
            }),
            other => Err(unexpected(&other)),
        }
    }

    fn print(&mut self, text: &str) -> Result<bool, CommandError> {
        self.output.write_all(text.as_bytes())?;
        self.output.flush()?;
        Ok(true)
    }
}

/// What a reply means that none of a request's own is.
fn unexpected(reply: &Reply) -> CommandError {
    match reply {
        Reply::Denied => ServerError::Denied.into(),
        Reply::NotFound => CommandError::NotFound,
        Reply::Unavailable => ServerError::Unavailable.into(),
        _ => ServerError::Unexpected.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::ipc::message::client::{Selection, Service, Statistic, Status, Verbosity};

    /// A server that expects one request and has its replies ready.
    struct Script {
        expected: Request,
        replies: VecDeque<(Reply, Option<OwnedFd>)>,
    }

    impl Exchange for Script {
        fn ask(&mut self, request: Request) -> Result<(), ServerError> {
            assert_eq!(request, self.expected);
            Ok(())
        }

        fn reply(&mut self) -> Result<(Reply, Option<OwnedFd>), ServerError> {
            self.replies.pop_front().ok_or(ServerError::Lost("no more".into()))
        }
    }

    fn run_with(
        command: &Command,
        form: Form,
        expected: Request,
        replies: Vec<Reply>,
    ) -> (Result<bool, String>, String) {
        let replies = replies.into_iter().map(|reply| (reply, None)).collect();
        let mut output = Vec::new();
        let result = run(command, form, 100, &mut output, || Ok(Script { expected, replies }));
        let text = String::from_utf8(output).unwrap();
        (result.map_err(|error| error.to_string()), text)
    }

    // queue cases 162, 163, 165, 166, 170 and 172.
    #[test]
    fn commands_print_what_the_server_answers() {
        let id = "0123456789abcdef".parse().unwrap();
        let selection = Selection::Envelope(id);
        let schedule = Request::Change { change: Change::Schedule, selection };
        let statistics = vec![Statistic { name: "uptime".into(), value: 6 }];
        let pause = Command::Pause(Service::Mda);
        let cases = [
            (
                Command::Change(Change::Schedule, selection),
                schedule,
                vec![Reply::Count(0)],
                Ok(true),
                "0 envelope scheduled\n",
            ),
            (
                pause.clone(),
                Request::Pause(Service::Mda),
                vec![Reply::Done],
                Ok(true),
                "command succeeded\n",
            ),
            (
                pause,
                Request::Pause(Service::Mda),
                vec![Reply::Failed],
                Ok(false),
                "command failed\n",
            ),
            (
                Command::UpdateTable("nope".to_owned()),
                Request::UpdateTable { name: "nope".to_owned() },
                vec![Reply::Failed],
                Ok(false),
                "command failed\n",
            ),
            (
                Command::ShowStatus,
                Request::ShowStatus,
                vec![Reply::Status(Status::default())],
                Ok(true),
                "MDA running\nMTA running\nSMTP running\n",
            ),
            (
                Command::ShowStatistics,
                Request::ShowStatistics,
                vec![Reply::Statistics(statistics), Reply::Done],
                Ok(true),
                "uptime=6\nuptime.human=6s\n",
            ),
            (
                Command::ShowMessage(id.message()),
                Request::ShowMessage(id.message()),
                vec![Reply::Bytes(b"a\n".to_vec()), Reply::Bytes(b"b\n".to_vec()), Reply::Done],
                Ok(true),
                "a\nb\n",
            ),
            (
                Command::ShowEnvelope(id),
                Request::ShowEnvelope(id),
                vec![Reply::NotFound],
                Err("fopen: No such file or directory"),
                "",
            ),
            (
                Command::ShowQueue(None),
                Request::List { message: None },
                vec![Reply::Denied],
                Err("need root privileges"),
                "",
            ),
            (
                Command::Stop,
                Request::Stop,
                vec![Reply::Count(1)],
                Err("smtpd gave an answer that does not fit"),
                "",
            ),
        ];
        for (command, request, replies, result, text) in cases {
            let expected = (result.map_err(str::to_owned), text.to_owned());
            assert_eq!(run_with(&command, Form::Text, request, replies), expected, "{command:?}");
        }
    }

    #[test]
    fn a_message_in_a_file_is_read_from_it() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"Subject: x\n\ntext\nbehind").unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let id = "0123456789abcdef".parse::<crate::model::EnvelopeId>().unwrap().message();
        let replies = VecDeque::from([(Reply::File { size: 17 }, Some(OwnedFd::from(file)))]);
        let mut output = Vec::new();
        let done = run(&Command::ShowMessage(id), Form::Text, 0, &mut output, || {
            Ok(Script { expected: Request::ShowMessage(id), replies })
        });
        assert!(done.unwrap());
        assert_eq!(output, b"Subject: x\n\ntext\n");
    }

    #[test]
    fn what_cannot_be_done_is_refused_before_the_server_is_asked() {
        let refused = |command: &Command, form| {
            let connect = || -> Result<Script, ServerError> { panic!("the server was asked") };
            run(command, form, 0, &mut Vec::new(), connect).unwrap_err().to_string()
        };
        let routes = Command::Unsupported("show routes");
        assert_eq!(refused(&routes, Form::Text), "show routes: not supported yet");
        assert!(refused(&Command::Stop, Form::Json).starts_with("--json is for"));
    }

    #[test]
    fn a_listing_says_what_it_lacks() {
        let list = Command::ShowQueue(None);
        let request = Request::List { message: None };
        let (result, text) = run_with(&list, Form::Text, request, vec![Reply::Incomplete]);
        let said = "the server is still reading its spool: this listing is incomplete";
        assert_eq!((result, text.as_str()), (Err(said.to_owned()), ""));

        let down = |command: &Command| {
            let connect = || -> Result<Script, ServerError> { Err(ServerError::Down) };
            run(command, Form::Text, 0, &mut Vec::new(), connect).unwrap_err().to_string()
        };
        let said = "smtpd doesn't seem to be running: start it, and it lists what its spool holds";
        assert_eq!(down(&list), said);
        assert_eq!(down(&Command::ShowStatus), "smtpd doesn't seem to be running");
    }

    #[test]
    fn the_verbosity_is_an_order() {
        let command = Command::Log(Verbosity::Brief);
        let request = Request::SetVerbosity(Verbosity::Brief);
        let (result, text) = run_with(&command, Form::Text, request, vec![Reply::Done]);
        assert_eq!((result, text.as_str()), (Ok(true), "command succeeded\n"));
    }
}
