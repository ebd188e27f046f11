//! One SMTP or LMTP dialogue, from the banner to QUIT, without I/O.
//!
//! Whoever drives it does one [`Step`] after the other. Commands go out one at a time, so that what
//! the server says about each can be shown. A refused recipient ends nothing: the others get the
//! message.
//!
//! Sources: the queue page of the specification, 7.6; RFC 5321, 2033, 3207, 4954 and 4616.

mod login;
mod step;

use std::collections::VecDeque;

use zeroize::Zeroizing;

use self::login::Login;
pub use self::step::{Command, Failure, Stage, Status, Step, Transaction, Wishes};
use super::server::{Encryption, Protocol};
use crate::proto::server_reply::{Reply, ReplyReader};

/// What the server offers, of what is used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Extensions {
    login_method: bool,
    plain_method: bool,
    smtputf8: bool,
    starttls: bool,
    /// There is AUTH, with whatever methods.
    auth: bool,
}

/// What is awaited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Banner,
    /// That the message is out.
    Body,
    Closed,
    Data,
    /// The end of the message was sent.
    End,
    /// The end of the handshake.
    Handshake,
    Hello(Hello),
    Login(Login),
    Mail,
    Quit,
    /// The reply to RCPT for this recipient.
    Recipient(usize),
    StartTls,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hello {
    Ehlo,
    Helo,
    Lhlo,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// RCPT was answered with 2xx.
    Accepted,
    /// The user was told.
    Told,
    Waiting,
}

/// A dialogue.
#[derive(Debug)]
pub struct Dialogue {
    wishes: Wishes,
    state: State,
    reader: ReplyReader,
    steps: VecDeque<Step>,
    offered: Extensions,
    is_encrypted: bool,
    /// By recipient.
    fates: Vec<Fate>,
    is_complete: bool,
    message_is_out: bool,
}

impl Dialogue {
    /// A dialogue on a connection that was just made.
    #[must_use]
    pub fn new(wishes: Wishes) -> Self {
        let count = wishes.transaction.as_ref().map_or(0, |one| one.recipients.len());
        Self {
            is_encrypted: wishes.encryption == Encryption::Immediate,
            wishes,
            state: State::Banner,
            reader: ReplyReader::default(),
            steps: VecDeque::new(),
            offered: Extensions::default(),
            fates: vec![Fate::Waiting; count],
            is_complete: false,
            message_is_out: false,
        }
    }

    /// The next thing to do.
    pub fn step(&mut self) -> Step {
        let idle = if self.state == State::Closed { Step::Close } else { Step::Read };
        self.steps.pop_front().unwrap_or(idle)
    }

    /// Whether everything that was wanted was done, or refused to each recipient.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Whether the server may have taken the message without saying so.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        self.message_is_out && !self.is_complete
    }

    /// Takes bytes of the server, in pieces of any size.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
        loop {
            match self.reader.next_reply() {
                Ok(None) => return,
                Ok(Some(reply)) => self.reply(&reply),
                Err(error) => return self.fail(Failure::Protocol(error.to_string())),
            }
            if matches!(self.state, State::Quit | State::Closed) {
                return;
            }
            // Nothing may follow a reply to one command; above all not the one to STARTTLS, where
            // it would pass for something that was said inside TLS (RFC 3207, section 6).
            if self.state != State::End && self.reader.has_more() {
                return self.fail(Failure::Protocol("Remote host sent too much data".to_owned()));
            }
        }
    }

    /// The handshake is done.
    pub fn encrypted(&mut self) {
        self.is_encrypted = true;
        // What was offered before could have been anybody's offer.
        self.offered = Extensions::default();
        self.greet();
    }

    /// The message and its final dot were sent.
    pub fn body_sent(&mut self) {
        self.message_is_out = true;
        self.state = State::End;
    }

    /// The connection broke, or could not be encrypted. After QUIT, that is the expected end.
    pub fn broken(&mut self, failure: Failure) {
        if self.state == State::Quit {
            self.state = State::Closed;
        } else {
            self.fail(failure);
        }
    }

    fn fail(&mut self, failure: Failure) {
        if self.state != State::Closed {
            self.steps.push_back(Step::Fail(failure));
            self.leave();
        }
    }

    /// Ends it without a good-bye: what was to be done is not done any more.
    fn leave(&mut self) {
        self.steps.retain(|step| matches!(step, Step::Fail(_) | Step::Tell(_)));
        self.state = State::Closed;
    }

    /// Says why nothing can be done with this server, and takes leave.
    fn give_up(&mut self, failure: Failure) {
        self.steps.push_back(Step::Fail(failure));
        self.quit();
    }

    fn refused(&mut self, reply: &Reply) {
        self.give_up(Failure::Rejected(reply.text.clone()));
    }

    fn reply(&mut self, reply: &Reply) {
        // The server is about to close, whatever was asked (RFC 5321, section 3.8).
        if reply.code == 421 {
            return self.dismissed(reply);
        }
        let is_positive = reply.is_positive();
        match self.state {
            State::Banner if is_positive => self.greet(),
            State::Hello(hello) if is_positive => {
                if hello != Hello::Helo {
                    self.offered = Extensions::offered(reply);
                }
                self.greeted();
            }
            // An old server may know HELO; what is only there with EHLO would be missing.
            State::Hello(Hello::Ehlo) if !self.needs_extensions() => {
                self.hello("HELO", Hello::Helo);
            }
            State::StartTls if is_positive => {
                self.state = State::Handshake;
                self.steps.push_back(Step::StartTls);
            }
            State::StartTls if self.wishes.encryption == Encryption::Offered => self.log_in(),
            State::Banner | State::Hello(_) | State::StartTls => self.refused(reply),
            State::Login(login) => self.login_reply(login, reply),
            State::Mail if is_positive => self.next_recipient(0),
            State::Mail => self.tell_rest(Stage::Mail, reply),
            State::Recipient(index) => self.recipient_reply(index, reply),
            State::Data if reply.code < 400 => {
                self.state = State::Body;
                self.steps.push_back(Step::Body);
            }
            State::Data => self.tell_rest(Stage::Data, reply),
            State::End if self.wishes.protocol == Protocol::Smtp => {
                self.tell_rest(Stage::End, reply);
            }
            State::End => self.end_reply(reply),
            // It does not want the rest, and there is no way to stop halfway.
            State::Body => {
                self.tell_rest(Stage::End, reply);
                self.leave();
            }
            State::Quit => self.state = State::Closed,
            State::Closed | State::Handshake => {}
        }
    }

    fn dismissed(&mut self, reply: &Reply) {
        match self.state {
            State::Mail => self.tell_rest(Stage::Mail, reply),
            State::Recipient(_) => self.tell_rest(Stage::Recipient, reply),
            State::Data => self.tell_rest(Stage::Data, reply),
            State::Body | State::End => self.tell_rest(Stage::End, reply),
            State::Quit | State::Closed => {}
            _ => self.refused(reply),
        }
        self.leave();
    }

    fn greet(&mut self) {
        match self.wishes.protocol {
            Protocol::Lmtp => self.hello("LHLO", Hello::Lhlo),
            Protocol::Smtp => self.hello("EHLO", Hello::Ehlo),
        }
    }

    fn hello(&mut self, verb: &str, hello: Hello) {
        let line = format!("{verb} {}", self.wishes.helo);
        self.say(&line, State::Hello(hello));
    }

    fn needs_extensions(&self) -> bool {
        let secure = self.is_encrypted || self.wishes.encryption != Encryption::Required;
        !secure || self.wishes.credentials.is_some()
    }

    fn greeted(&mut self) {
        let wanted = !self.is_encrypted && self.wishes.encryption != Encryption::Never;
        if wanted && self.offered.starttls {
            self.say("STARTTLS", State::StartTls);
        } else if wanted && self.wishes.encryption == Encryption::Required {
            self.give_up(Failure::Missing("TLS not supported by remote host"));
        } else {
            self.log_in();
        }
    }

    /// Ready for the transaction.
    fn ready(&mut self) {
        let Some(Transaction { sender, recipients }) = &self.wishes.transaction else {
            return self.finish();
        };
        let is_ascii = sender.is_ascii() && recipients.iter().all(|one| one.is_ascii());
        if !is_ascii && !self.offered.smtputf8 {
            return self.give_up(Failure::Missing("SMTPUTF8 not supported by remote host"));
        }
        let parameter = if is_ascii { "" } else { " SMTPUTF8" };
        let line = format!("MAIL FROM:<{sender}>{parameter}");
        self.say(&line, State::Mail);
    }

    fn recipient(&self, index: usize) -> Option<&str> {
        let recipients = &self.wishes.transaction.as_ref()?.recipients;
        recipients.get(index).map(String::as_str)
    }

    /// Names the recipient with this index; after the last, begins the message if anybody gets it.
    fn next_recipient(&mut self, index: usize) {
        if let Some(recipient) = self.recipient(index) {
            let line = format!("RCPT TO:<{recipient}>");
            self.say(&line, State::Recipient(index));
        } else if self.fates.contains(&Fate::Accepted) {
            self.say("DATA", State::Data);
        } else {
            self.finish();
        }
    }

    fn recipient_reply(&mut self, index: usize, reply: &Reply) {
        if !reply.is_positive() {
            self.tell(index, Stage::Recipient, reply);
        } else if let Some(fate) = self.fates.get_mut(index) {
            *fate = Fate::Accepted;
        }
        self.next_recipient(index + 1);
    }

    /// The reply of LMTP for the first recipient that has none yet.
    fn end_reply(&mut self, reply: &Reply) {
        if let Some(index) = self.fates.iter().position(|fate| *fate == Fate::Accepted) {
            self.tell(index, Stage::End, reply);
        }
        if !self.fates.contains(&Fate::Accepted) {
            self.finish();
        }
    }

    fn tell(&mut self, index: usize, stage: Stage, reply: &Reply) {
        let Some(recipient) = self.recipient(index).map(str::to_owned) else { return };
        let status = Status { recipient, stage, reply: reply.text.clone() };
        self.steps.push_back(Step::Tell(status));
        if let Some(fate) = self.fates.get_mut(index) {
            *fate = Fate::Told;
        }
    }

    /// The reply for every recipient without one, and the end.
    fn tell_rest(&mut self, stage: Stage, reply: &Reply) {
        for index in 0..self.fates.len() {
            if self.fates.get(index) != Some(&Fate::Told) {
                self.tell(index, stage, reply);
            }
        }
        self.finish();
    }

    fn finish(&mut self) {
        self.is_complete = true;
        self.quit();
    }

    fn quit(&mut self) {
        self.say("QUIT", State::Quit);
    }

    fn say(&mut self, line: &str, next: State) {
        let line = Zeroizing::new(format!("{line}\r\n"));
        self.steps.push_back(Step::Say(Command { line, secret: false }));
        self.state = next;
    }
}

impl Extensions {
    /// The keywords in the reply to EHLO or LHLO.
    fn offered(reply: &Reply) -> Self {
        let mut offered = Self::default();
        for line in &reply.following {
            let mut words = line.split_ascii_whitespace().map(str::to_ascii_uppercase);
            match words.next().as_deref() {
                Some("AUTH") => {
                    offered.auth = true;
                    for method in words {
                        offered.login_method |= method == "LOGIN";
                        offered.plain_method |= method == "PLAIN";
                    }
                }
                Some("SMTPUTF8") => offered.smtputf8 = true,
                Some("STARTTLS") => offered.starttls = true,
                _ => {}
            }
        }
        offered
    }
}

#[cfg(test)]
mod tests;
