//! The LMTP client, without sockets: bytes of the server in, bytes for the server out.
//!
//! One [`Session`] lives as long as its connection and carries one transaction after the other.
//! MAIL, RCPT and DATA go out together where the server offers PIPELINING; the reply of every
//! recipient is awaited. The caller moves the bytes and watches the clock.
//!
//! Sources: RFC 2033; RFC 5321 sections 4.1.1 and 4.5.2; RFC 2920; RFC 6531 section 3.4; the queue
//! page of the specification, section 5.9.

use std::collections::VecDeque;

use super::PROGRAM;
use crate::worker::report::{Failed, TEMPORARY, UNAVAILABLE};

/// Longest line of a reply, in bytes; RFC 5321 asks for 512.
const MAX_LINE: usize = 4096;

/// What is to be delivered, apart from the message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transaction {
    /// Address in MAIL FROM; empty for the null sender.
    pub from: String,
    /// Addresses or names in RCPT TO, at least one.
    pub recipients: Vec<String>,
}

/// What the caller has to do next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Send the message, as [`Stuffer`] writes it, and then call [`Session::body_sent`].
    Body,
    /// The transaction is over; the session can take another unless it is [`Session::is_dead`].
    Done(Result<(), Failed>),
    /// Read, and give what came to [`Session::receive`].
    Read,
    /// Send these bytes.
    Send(Vec<u8>),
}

/// A conversation with one server.
#[derive(Debug)]
pub struct Session {
    name: String,
    input: Vec<u8>,
    expected: VecDeque<Expected>,
    transaction: Option<Transaction>,
    output: Vec<u8>,
    state: State,
    failure: Option<Failed>,
    pipelining: bool,
    utf8: bool,
    /// Whether anything of the present transaction was answered.
    answered: bool,
}

/// A reply that is awaited, named by what it answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Expected {
    Banner,
    Data,
    Delivery,
    Hello,
    Mail,
    Recipient,
    Reset,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Nothing more can be said.
    Dead,
    /// The server waits for the message.
    Body,
    /// Replies are awaited, or nothing was said yet.
    Dialogue,
    /// No transaction; after a refused one a reset is due.
    Ready { reset: bool },
}

impl Session {
    /// A session on a fresh connection, greeting with `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            input: Vec::new(),
            expected: VecDeque::from([Expected::Banner]),
            transaction: None,
            output: Vec::new(),
            state: State::Dialogue,
            failure: None,
            pipelining: false,
            utf8: false,
            answered: false,
        }
    }

    /// Begins a transaction. Only for a new session, or after [`Step::Done`].
    pub fn begin(&mut self, transaction: Transaction) {
        self.failure = None;
        self.answered = false;
        self.transaction = Some(transaction);
        if let State::Ready { reset } = self.state {
            self.state = State::Dialogue;
            if reset {
                self.say("RSET", Expected::Reset);
            } else {
                self.envelope();
            }
        }
    }

    /// Whether the connection is of no more use.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state == State::Dead
    }

    /// Whether the server has answered anything since [`Session::begin`]: if not, a connection
    /// that breaks was closed while it was idle.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.answered
    }

    /// What to do next.
    pub fn step(&mut self) -> Step {
        if !self.output.is_empty() {
            return Step::Send(std::mem::take(&mut self.output));
        }
        match self.state {
            State::Body => Step::Body,
            State::Dead | State::Ready { .. } => {
                self.transaction = None;
                Step::Done(self.failure.take().map_or(Ok(()), Err))
            }
            State::Dialogue => Step::Read,
        }
    }

    /// The message was sent, its last line `.` included.
    pub fn body_sent(&mut self) {
        let recipients = self.transaction.as_ref().map_or(0, |t| t.recipients.len());
        self.expected.extend(std::iter::repeat_n(Expected::Delivery, recipients));
        self.state = State::Dialogue;
    }

    /// The connection broke; `what` names what could not be done.
    pub fn broken(&mut self, what: &str) {
        self.fail(Failed::new(TEMPORARY, PROGRAM, what));
        self.die();
    }

    /// Takes bytes of the server, in pieces of any size.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let mut input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            self.line(&String::from_utf8_lossy(line));
            rest = after.get(1..).unwrap_or_default();
        }
        if rest.len() > MAX_LINE {
            self.malformed();
            rest = &[];
        }
        let left = rest.len();
        input.drain(..input.len() - left);
        self.input = input;
    }

    fn line(&mut self, line: &str) {
        let digits = line.len() >= 3 && line.bytes().take(3).all(|byte| byte.is_ascii_digit());
        let last = match line.as_bytes().get(3) {
            None | Some(b' ') => true,
            Some(b'-') => false,
            Some(_) => return self.malformed(),
        };
        if !digits || line.len() > MAX_LINE {
            return self.malformed();
        }
        let Some(expected) = self.expected.front().copied() else { return self.malformed() };
        if expected == Expected::Hello {
            self.offer(line.get(4..).unwrap_or_default());
        }
        if last {
            self.expected.pop_front();
            self.reply(expected, line);
        }
    }

    fn offer(&mut self, extension: &str) {
        self.pipelining |= extension.eq_ignore_ascii_case("PIPELINING");
        self.utf8 |= extension.eq_ignore_ascii_case("SMTPUTF8");
    }

    fn reply(&mut self, expected: Expected, line: &str) {
        self.answered = true;
        let wanted = match expected {
            Expected::Data => '3',
            _ => '2',
        };
        let refused = !line.starts_with(wanted);
        if refused {
            let status = if line.starts_with('4') { TEMPORARY } else { UNAVAILABLE };
            self.fail(Failed::new(status, PROGRAM, format_args!("LMTP server error: {line}")));
        }
        match expected {
            Expected::Banner | Expected::Hello | Expected::Reset if refused => self.die(),
            Expected::Banner => {
                let name = self.name.clone();
                self.say(&format!("LHLO {name}"), Expected::Hello);
            }
            Expected::Hello | Expected::Reset => self.envelope(),
            Expected::Mail | Expected::Recipient if !self.expected.is_empty() => {}
            Expected::Mail | Expected::Recipient if self.failure.is_some() => self.refused(),
            Expected::Mail => self.recipients(),
            Expected::Recipient => self.say("DATA", Expected::Data),
            // The server wants a message for an envelope that is not whole: no way back.
            Expected::Data if !refused && self.failure.is_some() => self.die(),
            Expected::Data if refused => self.refused(),
            Expected::Data => self.state = State::Body,
            Expected::Delivery if self.expected.is_empty() => {
                self.state = State::Ready { reset: false };
            }
            Expected::Delivery => {}
        }
        if line.starts_with("421") {
            self.die();
        }
    }

    fn envelope(&mut self) {
        let Some(transaction) = &self.transaction else {
            self.state = State::Ready { reset: false };
            return;
        };
        let ascii = transaction.from.is_ascii()
            && transaction.recipients.iter().all(|recipient| recipient.is_ascii());
        if !ascii && !self.utf8 {
            let text = "5.6.7 LMTP server takes no addresses in UTF-8";
            self.fail(Failed::new(UNAVAILABLE, PROGRAM, format_args!("{text}")));
            self.state = State::Ready { reset: false };
            return;
        }
        let parameter = if self.utf8 && !ascii { " SMTPUTF8" } else { "" };
        let mail = format!("MAIL FROM:<{}>{parameter}", transaction.from);
        let alone = transaction.recipients.len() == 1;
        self.say(&mail, Expected::Mail);
        if self.pipelining {
            self.recipients();
            // With several, DATA would go through for those that were not refused.
            if alone {
                self.say("DATA", Expected::Data);
            }
        }
    }

    fn recipients(&mut self) {
        let Some(transaction) = self.transaction.clone() else { return };
        for recipient in &transaction.recipients {
            self.say(&format!("RCPT TO:<{recipient}>"), Expected::Recipient);
        }
    }

    fn say(&mut self, command: &str, expected: Expected) {
        self.output.extend_from_slice(command.as_bytes());
        self.output.extend_from_slice(b"\r\n");
        self.expected.push_back(expected);
    }

    fn fail(&mut self, failed: Failed) {
        self.failure.get_or_insert(failed);
    }

    fn refused(&mut self) {
        self.state = State::Ready { reset: true };
    }

    fn malformed(&mut self) {
        self.broken("malformed reply of the server");
    }

    fn die(&mut self) {
        self.expected.clear();
        self.output.clear();
        self.state = State::Dead;
    }
}

/// Writes a message as SMTP wants it: CRLF line ends, leading dots doubled, a line `.` at the end.
#[derive(Debug)]
pub struct Stuffer {
    previous: u8,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self { previous: b'\n' }
    }
}

impl Stuffer {
    /// Appends the next piece of a message to `output`.
    pub fn feed(&mut self, bytes: &[u8], output: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.previous == b'\n' && piece.first() == Some(&b'.') {
                output.push(b'.');
            }
            match piece.split_last() {
                Some((b'\n', text)) => {
                    output.extend_from_slice(text);
                    if text.last().copied().unwrap_or(self.previous) != b'\r' {
                        output.push(b'\r');
                    }
                    output.push(b'\n');
                }
                _ => output.extend_from_slice(piece),
            }
            self.previous = piece.last().copied().unwrap_or(self.previous);
        }
    }

    /// Appends the end of the message.
    pub fn finish(self, output: &mut Vec<u8>) {
        if self.previous != b'\n' {
            output.extend_from_slice(b"\r\n");
        }
        output.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(recipients: &[&str]) -> Transaction {
        Transaction {
            from: "a@b".to_owned(),
            recipients: recipients.iter().map(|r| (*r).to_owned()).collect(),
        }
    }

    /// Plays a server whose replies are given in order, one for each time the client reads.
    fn play(session: &mut Session, replies: &[&str]) -> (String, Result<(), Failed>) {
        let mut said = String::new();
        let mut replies = replies.iter();
        loop {
            match session.step() {
                Step::Body => {
                    said.push_str("BODY\r\n");
                    session.body_sent();
                }
                Step::Done(result) => return (said, result),
                Step::Read => match replies.next() {
                    Some(reply) => session.receive(reply.as_bytes()),
                    None => session.broken("end of the script"),
                },
                Step::Send(bytes) => said.push_str(std::str::from_utf8(&bytes).unwrap()),
            }
        }
    }

    const PLAIN: [&str; 3] = ["220 hi\r\n", "250-h\r\n250 HELP\r\n", "250 ok\r\n"];

    #[test]
    fn a_plain_dialogue_delivers_and_the_session_takes_another() {
        let mut session = Session::new("localhost");
        session.begin(transaction(&["alice"]));
        let script = [&PLAIN[..], &["250 ok\r\n", "354 go\r\n", "250 done\r\n"]].concat();
        let (said, result) = play(&mut session, &script);
        assert_eq!(
            said,
            "LHLO localhost\r\nMAIL FROM:<a@b>\r\nRCPT TO:<alice>\r\nDATA\r\nBODY\r\n"
        );
        assert_eq!(result, Ok(()));
        session.begin(transaction(&["bob"]));
        assert!(!session.has_answered());
        let (said, result) =
            play(&mut session, &["250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 done\r\n"]);
        assert_eq!(said, "MAIL FROM:<a@b>\r\nRCPT TO:<bob>\r\nDATA\r\nBODY\r\n");
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn with_pipelining_the_envelope_is_one_write_and_joined_replies_are_taken_apart() {
        let mut session = Session::new("h");
        session.begin(transaction(&["alice"]));
        let (said, result) = play(
            &mut session,
            &[
                "220 hi\r\n250-h\r\n",
                "250-PIPELINING\r\n250 SMTPUTF8\r\n",
                "250 a\r\n250 b\r\n354",
                " c\r\n",
                "250 d\r\n",
            ],
        );
        assert_eq!(said, "LHLO h\r\nMAIL FROM:<a@b>\r\nRCPT TO:<alice>\r\nDATA\r\nBODY\r\n");
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn a_refusal_is_told_in_the_server_s_words_and_reset() {
        // queue case 154
        for (reply, status) in [("550 no such user", UNAVAILABLE), ("452 full", TEMPORARY)] {
            let mut session = Session::new("h");
            session.begin(transaction(&["alice"]));
            let refusal = format!("{reply}\r\n");
            let (said, result) = play(&mut session, &[&PLAIN[..], &[&refusal]].concat());
            assert!(said.ends_with("RCPT TO:<alice>\r\n"), "{said}");
            let text = format!("mail.lmtp: LMTP server error: {reply}");
            assert_eq!(result, Err(Failed { status, text }));
            session.begin(transaction(&["bob"]));
            let (said, _) = play(&mut session, &["250 ok\r\n"]);
            assert_eq!(said, "RSET\r\nMAIL FROM:<a@b>\r\n");
        }
    }

    #[test]
    fn a_message_is_never_sent_for_a_refused_envelope() {
        let mut session = Session::new("h");
        session.begin(transaction(&["alice"]));
        let (said, result) = play(
            &mut session,
            &["220 hi\r\n", "250-h\r\n250 PIPELINING\r\n", "250 a\r\n550 no\r\n354 go\r\n"],
        );
        assert!(!said.contains("BODY"), "{said}");
        assert_eq!(result.unwrap_err().status, UNAVAILABLE);
        assert!(session.is_dead());
    }

    #[test]
    fn every_recipient_has_a_reply_of_its_own() {
        let mut session = Session::new("h");
        session.begin(transaction(&["a", "b"]));
        let script =
            [&PLAIN[..], &["250 a\r\n250 b\r\n", "354 go\r\n", "250 1\r\n", "452 2\r\n"]].concat();
        let (_, result) = play(&mut session, &script);
        assert_eq!(result.unwrap_err().text, "mail.lmtp: LMTP server error: 452 2");
        assert!(!session.is_dead());
    }

    #[test]
    fn what_is_no_reply_is_temporary_and_ends_the_session() {
        let long = format!("220 {}", "x".repeat(MAX_LINE));
        for bad in ["hello\r\n", "22\r\n", "220_x\r\n", "\r\n", long.as_str()] {
            let mut session = Session::new("h");
            session.begin(transaction(&["a"]));
            let (_, result) = play(&mut session, &[bad]);
            assert_eq!(result.unwrap_err().status, TEMPORARY, "{bad:?}");
            assert!(session.is_dead());
        }
    }

    #[test]
    fn an_address_beyond_ascii_says_so_where_the_server_understands() {
        let mut session = Session::new("h");
        session.begin(transaction(&["ü@x"]));
        let (said, _) = play(&mut session, &["220 hi\r\n", "250 SMTPUTF8\r\n"]);
        assert!(said.ends_with("MAIL FROM:<a@b> SMTPUTF8\r\n"), "{said}");

        let mut session = Session::new("h");
        session.begin(transaction(&["ü@x"]));
        let (said, result) = play(&mut session, &["220 hi\r\n", "250 8BITMIME\r\n"]);
        assert_eq!(said, "LHLO h\r\n");
        let failed = result.unwrap_err();
        assert_eq!(failed.status, UNAVAILABLE);
        assert!(failed.text.contains("5.6.7"), "{failed:?}");
        session.begin(transaction(&["u@x"]));
        let (said, _) = play(&mut session, &["250 a\r\n"]);
        assert!(said.starts_with("MAIL FROM:<a@b>\r\n"), "{said}");
    }

    #[test]
    fn a_body_gets_network_line_ends_and_doubled_dots_for_every_cut() {
        let text = b".a\n..\nb\r\n\n.\nend";
        for cut in 0..=text.len() {
            let (mut stuffer, mut output) = (Stuffer::default(), Vec::new());
            stuffer.feed(&text[..cut], &mut output);
            stuffer.feed(&text[cut..], &mut output);
            stuffer.finish(&mut output);
            assert_eq!(output, b"..a\r\n...\r\nb\r\n\r\n..\r\nend\r\n.\r\n", "cut at {cut}");
        }
        let mut output = Vec::new();
        Stuffer::default().finish(&mut output);
        assert_eq!(output, b".\r\n");
    }
}
