//! One SMTP or LMTP dialogue with another server, without I/O.
//!
//! The driver of a session writes what [`Session::output`] holds, feeds in what it reads, and
//! carries out the [`Action`]s. Commands that may be grouped (RFC 2920) are: sender, up to 64
//! recipients and DATA leave in one write when the server offers PIPELINING.
//!
//! Timeouts, addresses and log lines belong to the driver ([`super::Mta`]). STARTTLS and AUTH have
//! their place between greeting and [`Action::Ready`].
//!
//! Sources: the queue page of the specification, 3.11 and 3.14; RFC 5321, 2033, 2920, 1870, 3461.

mod transaction;

use std::collections::VecDeque;
use std::sync::Arc;

use self::transaction::Transaction;
use super::task::Task;
use crate::proto::server_reply::{Reply, ReplyReader};

/// Messages in a row without an acceptance after which a session ends.
const REJECTED_MESSAGES: usize = 10;

/// The dialogue that a server speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// RFC 2033: one reply a recipient after the message.
    Lmtp,
    /// RFC 5321.
    Smtp,
}

/// What is fixed for the length of a session.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The dialogue.
    pub protocol: Protocol,
    /// Argument of EHLO, HELO and LHLO: no blanks or control characters.
    pub helo: String,
    /// Accepted messages (LMTP: recipients) after which the session ends.
    pub mail_max: usize,
    /// Rejected recipients in a row after which the session ends; 0 for no limit.
    pub max_failures: usize,
}

/// What the driver has to do next, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write what is left of the output, then close the connection. Nothing follows.
    Close,
    /// The session failed: a line for the log. [`Action::Close`] follows.
    Error(String),
    /// A line for the log: the server took none of the last ten messages.
    HostRejectsAll,
    /// Call [`Session::begin`], or [`Session::quit`] when there is nothing to send.
    Ready,
    /// Write the output, then the message and its final dot, then call [`Session::body_sent`].
    SendBody,
    /// What became of one envelope of the task.
    Settled {
        /// Its place in [`Task::envelopes`].
        index: usize,
        /// What became of it.
        verdict: Verdict,
    },
}

/// What became of one envelope.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// The class.
    pub class: Class,
    /// The server's reply, or our own reason.
    pub text: String,
}

/// Success or failure of one envelope.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// The server took it over.
    Ok {
        /// It was told what the client wants to be told about.
        dsn_relayed: bool,
    },
    /// Never again: the server does not offer SMTPUTF8, which the envelope needs.
    NotAscii,
    /// Never again.
    PermFail,
    /// Later.
    TempFail {
        /// It was not tried: to be tried as soon as the host accepts any recipient.
        not_tried: bool,
    },
}

impl Verdict {
    /// A temporary failure with a reason of our own or of the connection.
    #[must_use]
    pub fn temporary(text: &str) -> Self {
        Self { class: Class::TempFail { not_tried: false }, text: text.to_owned() }
    }

    /// What a reply that is not the expected one means.
    fn of(reply: &Reply) -> Self {
        let class = if reply.is_permanent() {
            Class::PermFail
        } else {
            Class::TempFail { not_tried: false }
        };
        Self { class, text: reply.text.clone() }
    }
}

/// What the server offers, of what we use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Extensions {
    dsn: bool,
    pipelining: bool,
    smtputf8: bool,
    /// Largest message in bytes; 0 for no limit.
    size: u64,
}

#[derive(Debug)]
enum State {
    Banner,
    Closed,
    Ehlo,
    Helo,
    Lhlo,
    Quit,
    Ready,
    Reset,
    Transaction(Transaction),
}

/// A dialogue, from the banner to QUIT.
#[derive(Debug)]
pub struct Session {
    options: SessionOptions,
    state: State,
    reader: ReplyReader,
    output: Vec<u8>,
    actions: VecDeque<Action>,
    extensions: Extensions,
    /// Accepted messages; for LMTP, recipients.
    accepted: usize,
    /// Messages since the last acceptance.
    rejected: usize,
    /// Recipients rejected since one was accepted.
    failures: usize,
}

impl Session {
    /// A session whose connection was just made.
    #[must_use]
    pub fn new(options: SessionOptions) -> Self {
        Self {
            options,
            state: State::Banner,
            reader: ReplyReader::default(),
            output: Vec::new(),
            actions: VecDeque::new(),
            extensions: Extensions::default(),
            accepted: 0,
            rejected: 0,
            failures: 0,
        }
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Bytes to be written; the driver empties it.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Messages that the server accepted so far; for LMTP, recipients.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted
    }

    /// Whether the connection is to be closed: nothing can be begun any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether only the answer to QUIT is awaited.
    #[must_use]
    pub fn said_quit(&self) -> bool {
        matches!(self.state, State::Quit)
    }

    /// Takes what was read from the connection.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
        // Commands that an answer brings about are not written yet, so nothing can answer them.
        let mut due = self.replies_due();
        loop {
            match self.reader.next_reply() {
                Ok(None) => return,
                Ok(Some(reply)) => self.reply(&reply),
                Err(error) => return self.fail(&error.to_string()),
            }
            if matches!(self.state, State::Quit | State::Closed) {
                return;
            }
            due = due.saturating_sub(1);
            if due == 0 && self.reader.has_more() {
                return self.fail("Remote host sent too much data");
            }
        }
    }

    /// Sends a task. Only after [`Action::Ready`], once, and not after [`Action::Close`].
    pub fn begin(&mut self, task: Arc<Task>) {
        let size = self.extensions.size;
        let refused = if size != 0 && task.body.size() > size {
            Some((Class::PermFail, "message too large for peer"))
        } else if task.smtputf8 && !self.extensions.smtputf8 {
            Some((Class::NotAscii, "SMTPUTF8 required but not supported by remote host"))
        } else {
            None
        };
        if let Some((class, text)) = refused {
            let verdict = Verdict { class, text: text.to_owned() };
            for index in 0..task.envelopes.len() {
                self.settled(index, verdict.clone());
            }
            self.actions.push_back(Action::Ready);
            return;
        }
        let mut transaction = Transaction::new(task, self.options.protocol, self.extensions);
        transaction.announce(&mut self.output);
        self.state = State::Transaction(transaction);
    }

    /// Ends the session politely. Only after [`Action::Ready`].
    pub fn quit(&mut self) {
        self.output.extend_from_slice(b"QUIT\r\n");
        self.state = State::Quit;
    }

    /// The message and its final dot were written.
    pub fn body_sent(&mut self) {
        if let State::Transaction(transaction) = &mut self.state {
            transaction.body_sent();
        }
    }

    /// The connection ended, for whatever reason: `Connection closed unexpectedly`,
    /// `Connection timeout`, `IO Error: …`, or that the message cannot be read.
    pub fn fail(&mut self, reason: &str) {
        if matches!(self.state, State::Closed) {
            return;
        }
        let after_quit = matches!(self.state, State::Quit);
        self.settle_rest(&Verdict::temporary(reason));
        if !after_quit {
            self.actions.push_back(Action::Error(reason.to_owned()));
        }
        self.close();
    }

    fn close(&mut self) {
        self.state = State::Closed;
        // What was to be done next can no longer be done.
        self.actions.retain(|action| !matches!(action, Action::Ready | Action::SendBody));
        self.actions.push_back(Action::Close);
    }

    /// Replies that the server owes us.
    fn replies_due(&self) -> usize {
        match &self.state {
            State::Banner
            | State::Ehlo
            | State::Helo
            | State::Lhlo
            | State::Quit
            | State::Reset => 1,
            State::Closed | State::Ready => 0,
            State::Transaction(transaction) => transaction.replies_due(),
        }
    }

    fn reply(&mut self, reply: &Reply) {
        match &mut self.state {
            State::Banner if reply.is_positive() => self.greet(),
            State::Banner => self.fail(&format!("BANNER rejected: {}", reply.text)),
            State::Ehlo if reply.is_positive() => {
                self.extensions = Extensions::offered(reply);
                self.ready();
            }
            State::Ehlo => self.say_hello("HELO", State::Helo),
            State::Helo | State::Lhlo if reply.is_positive() => {
                if matches!(self.state, State::Lhlo) {
                    let Extensions { pipelining, smtputf8, .. } = Extensions::offered(reply);
                    self.extensions = Extensions { pipelining, smtputf8, ..Extensions::default() };
                }
                self.ready();
            }
            State::Helo => self.fail(&format!("HELO rejected: {}", reply.text)),
            State::Lhlo => self.fail(&format!("LHLO rejected: {}", reply.text)),
            // 421: the server is about to close, whatever we say (RFC 5321, section 3.8).
            State::Ready if reply.code == 421 => self.fail(&reply.text.clone()),
            State::Ready => self.fail("Remote host sent too much data"),
            State::Reset if reply.code == 421 => self.fail(&reply.text.clone()),
            State::Reset => self.ready(),
            State::Quit => self.close(),
            State::Closed => {}
            State::Transaction(_) => self.transaction_reply(reply),
        }
    }

    fn greet(&mut self) {
        match self.options.protocol {
            Protocol::Lmtp => self.say_hello("LHLO", State::Lhlo),
            Protocol::Smtp => self.say_hello("EHLO", State::Ehlo),
        }
    }

    fn say_hello(&mut self, verb: &str, next: State) {
        let Self { output, options, .. } = self;
        for part in [verb, " ", &options.helo, "\r\n"] {
            output.extend_from_slice(part.as_bytes());
        }
        self.state = next;
    }

    /// Ready for the next task, unless the session has done enough.
    fn ready(&mut self) {
        if self.rejected >= REJECTED_MESSAGES {
            self.actions.push_back(Action::HostRejectsAll);
            self.quit();
        } else if self.accepted >= self.options.mail_max {
            self.quit();
        } else {
            self.state = State::Ready;
            self.actions.push_back(Action::Ready);
        }
    }

    fn settled(&mut self, index: usize, verdict: Verdict) {
        self.actions.push_back(Action::Settled { index, verdict });
    }

    /// Settles every envelope of the current task that is not settled yet.
    fn settle_rest(&mut self, verdict: &Verdict) {
        if let State::Transaction(transaction) = &mut self.state {
            for index in transaction.settle_rest() {
                self.actions.push_back(Action::Settled { index, verdict: verdict.clone() });
            }
        }
    }
}

impl Extensions {
    /// The keywords in the reply to EHLO or LHLO (RFC 5321, section 4.1.1.1).
    fn offered(reply: &Reply) -> Self {
        let mut offered = Self::default();
        for line in &reply.following {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default();
            if keyword.eq_ignore_ascii_case("DSN") {
                offered.dsn = true;
            } else if keyword.eq_ignore_ascii_case("PIPELINING") {
                offered.pipelining = true;
            } else if keyword.eq_ignore_ascii_case("SMTPUTF8") {
                offered.smtputf8 = true;
            } else if keyword.eq_ignore_ascii_case("SIZE") {
                offered.size = words.next().and_then(|size| size.parse().ok()).unwrap_or(0);
            }
        }
        offered
    }
}

#[cfg(test)]
mod tests;
