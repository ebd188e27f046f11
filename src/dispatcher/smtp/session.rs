//! The protocol of one session: bytes and answers in, replies and actions out.
//!
//! The shell calls [`Session::poll`] and does what it returns, over and over; each action says
//! what it is for. Commands run strictly in order, also when they arrive together; replies gather
//! in the output until the shell is told to write (RFC 2920). The session never blocks, fails or
//! panics, whatever it is fed, and holds no buffer between two commands.
//!
//! What commands do is in `commands`, what answers lead to in `answers`.
//! Sources: RFC 5321; the SMTP page of the specification, 1.2 to 1.6 and 1.12.

mod content;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use memchr::memchr;

use super::action::{Action, Answer, Ending, FilteredLines, RequestId};
use super::event::LogEvent;
use super::filters::Filters;
use super::input::InputBuffer;
use super::settings::{Peer, SessionId, Settings, UNKNOWN_HOSTNAME};
use super::state::{Greeting, Outcome, State};
use super::transaction::Transaction;
use crate::filter::engine::Flow;
use crate::filter::{Decision, Event};
use crate::model::envelope::Source;
use crate::model::limits;
use crate::model::tls::Secured;
use crate::proto::address::is_host_name;
use crate::proto::command::{self, Command, Verb};
use crate::proto::reply;
use crate::proto::sasl::is_mechanism_name;

/// Output above which the shell must write before more input is handled, in bytes.
const OUTPUT_LIMIT: usize = 16 * 1024;
/// Log events kept back until the client's name is known.
const EVENT_LIMIT: usize = 64;

/// An SMTP session, seen from the server.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    pub(super) settings: Arc<Settings>,
    pub(super) peer: Peer,
    pub(super) state: State,
    pub(super) greeting: Option<Greeting>,
    /// How the connection is encrypted, if it is.
    pub(super) secured: Option<Box<Secured>>,
    /// Who has logged in.
    pub(super) login: Option<Box<str>>,
    pub(super) transaction: Option<Box<Transaction>>,
    /// Messages committed.
    pub(super) messages: u32,
    requests: u32,
    /// The answer to what the state waits for.
    pub(super) arrived: Option<Answer>,
    /// The command whose answer is awaited, for the log.
    pub(super) waiting_command: Vec<u8>,
    pub(super) events: VecDeque<LogEvent>,
    /// Whether the first event was logged: the client's name is known.
    announced: bool,
    /// Whether the shell has pieces of a body that will not be committed.
    pub(super) discards: bool,
    /// Whether the output holds a reply that may not wait for an answer.
    pub(super) urgent: bool,
    /// The filters of the listener, once they know of the session.
    pub(super) filters: Option<Box<Filters>>,
    /// How the connection ended while a commit was under way.
    pub(super) ended: Option<Ending>,
}

impl Session {
    /// A session that was just accepted.
    #[must_use]
    pub fn new(id: SessionId, settings: Arc<Settings>, mut peer: Peer) -> Self {
        peer.hostname = peer.hostname.map(|name| checked_hostname(peer.source, name));
        let filtered = settings.filter.is_some();
        Self {
            id,
            settings,
            peer,
            state: if filtered { State::Opening { request: None } } else { State::Banner },
            greeting: None,
            secured: None,
            login: None,
            transaction: None,
            messages: 0,
            requests: 0,
            arrived: None,
            waiting_command: Vec::new(),
            events: VecDeque::new(),
            announced: false,
            discards: false,
            urgent: false,
            filters: None,
            ended: None,
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Where the client connected from.
    #[must_use]
    pub fn source(&self) -> Source {
        self.peer.source
    }

    /// Whether it is over but for what further polls have to say.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether a commit is under way. The shell does not give up the connection's task before it
    /// is answered: the message may be durable already.
    #[must_use]
    pub fn is_committing(&self) -> bool {
        matches!(self.state, State::Committing { .. })
    }

    /// Goes on as far as possible, and says what the shell has to do.
    ///
    /// The first poll comes right after the connection was accepted, further ones when an action
    /// was done, when there is more input, and after every [`Session::answer`] and
    /// [`Session::end`]. While an answer is awaited there is no need to read.
    ///
    /// Input is taken from `input`; replies are appended to `output`, which the shell writes when
    /// an action says so, and clears. `now` is the wall clock.
    pub fn poll(
        &mut self,
        now: Timestamp,
        input: &mut InputBuffer,
        output: &mut Vec<u8>,
    ) -> Action {
        loop {
            if let Some(action) = self.next_notice() {
                return action;
            }
            if matches!(self.state, State::Closed) {
                return Action::Close;
            }
            if output.len() > OUTPUT_LIMIT {
                self.urgent = false;
                return Action::Flush;
            }
            if self.events.len() > EVENT_LIMIT {
                return self.wait();
            }
            if let Some(action) = self.step(now, input, output) {
                return action;
            }
        }
    }

    /// Gives the answer to a request. The next poll goes on from there.
    pub fn answer(&mut self, answer: Answer) {
        let fits = match (&answer, &self.state) {
            (Answer::Hostname(_), _) => self.peer.hostname.is_none(),
            (Answer::Secured(_), State::Handshaking) => self.arrived.is_none(),
            (Answer::MessageId(id, _), State::Leasing { request, .. })
            | (Answer::Authenticated(id, _), State::Authenticating { request, .. })
            | (Answer::Recipient(id, _), State::Expanding { request, .. })
            | (Answer::Sender(id, _), State::CheckingSender { request, .. })
            | (Answer::Verifier(id, _), State::Verifying { request, .. })
            | (Answer::Commit(id, _), State::Committing { request, .. })
            | (Answer::Filtered(id, _), State::Filtering { request, .. })
            | (Answer::Filters(id, _), State::Opening { request: Some(request) }) => id == request,
            (Answer::FilteredLines(id, _), State::FilteredBody(body)) => body.request == Some(*id),
            _ => false,
        };
        match answer {
            Answer::Hostname(name) if fits => {
                let name = name.map_or_else(|| UNKNOWN_HOSTNAME.into(), String::into_boxed_str);
                self.peer.hostname = Some(checked_hostname(self.peer.source, name));
            }
            answer if fits => self.arrived = Some(answer),
            _ => {}
        }
    }

    /// The filters have not answered in time: their session ends with 421, as soon as the client
    /// may read that.
    pub fn filters_late(&mut self) {
        let answer = match &self.state {
            State::Filtering { request, .. } => {
                let line = reply::INTERNAL_ERROR.to_owned();
                Answer::Filtered(*request, Decision::Disconnect(line))
            }
            State::FilteredBody(body) => {
                let Some(request) = body.request else { return };
                let flow = Flow::Broken;
                Answer::FilteredLines(request, FilteredLines { taken: 0, output: Vec::new(), flow })
            }
            State::Opening { request: Some(request) } => Answer::Filters(*request, None),
            _ => return,
        };
        self.report(|| Event::Timeout);
        self.arrived = Some(answer);
    }

    /// The connection is gone, or was silent for too long. Further polls log that and return
    /// [`Action::Close`]; a commit under way is waited for.
    pub fn end(&mut self, ending: Ending) {
        if ending == Ending::Timeout {
            self.report(|| Event::Timeout);
        }
        if self.is_committing() {
            self.ended.get_or_insert(ending);
        } else {
            self.close(Some(ending));
        }
    }

    /// The server leaves: the client is told so, wherever in the dialogue it is waited for, and
    /// further polls end the session (RFC 5321, section 3.8). Only after [`Action::Receive`].
    pub fn shut_down(&mut self, output: &mut Vec<u8>) {
        if self.has_ended() {
            return;
        }
        self.write(reply::SHUTTING_DOWN, output);
        self.close(None);
    }

    /// What is to be logged or dropped, in order.
    fn next_notice(&mut self) -> Option<Action> {
        if std::mem::take(&mut self.discards) {
            return Some(Action::DiscardBody);
        }
        if let Some(report) = self.next_report() {
            return Some(Action::Report(report));
        }
        let host = self.peer.hostname.as_deref()?;
        if !self.announced {
            self.announced = true;
            let (address, host) = (self.peer.address(), host.to_owned());
            return Some(Action::Log(LogEvent::Connected { address, host }));
        }
        self.events.pop_front().map(Action::Log)
    }

    /// One step of the present state; `None` if there is more to do.
    fn step(
        &mut self,
        now: Timestamp,
        input: &mut InputBuffer,
        output: &mut Vec<u8>,
    ) -> Option<Action> {
        match &mut self.state {
            State::Banner => self.greet_client(output),
            State::Body(_) => self.body_step(input, output),
            State::FilteredBody(_) => self.filtered_body_step(input, output),
            State::Chunk(_) => self.chunk_step(input, output),
            State::Closed => Some(Action::Close),
            State::Command | State::Exchanging(_) => self.command_step(now, input, output),
            State::Overlong { dropped } => {
                let (count, ends) = match memchr(b'\n', input.as_slice()) {
                    Some(end) => (end, true),
                    None => (input.as_slice().len(), false),
                };
                *dropped = dropped.saturating_add(count);
                let line_too_long = *dropped > limits::MESSAGE_LINE;
                input.consume(count);
                match (line_too_long, ends) {
                    (true, _) => self.bad_input(reply::LINE_TOO_LONG, output),
                    (false, true) => self.bad_input(reply::COMMAND_TOO_LONG, output),
                    (false, false) => return Some(self.receive()),
                }
                None
            }
            State::Securing => self.start_handshake(input, output),
            State::Authenticating { .. }
            | State::CheckingSender { .. }
            | State::Committing { .. }
            | State::Expanding { .. }
            | State::Handshaking
            | State::Leasing { .. }
            | State::Naming { .. }
            | State::Verifying { .. } => self.answer_step(output),
            State::Filtering { .. } => self.filtering_step(now, output),
            State::Opening { .. } => self.opening_step(output),
        }
    }

    /// Greets, after the handshake on a listener that has it first.
    fn greet_client(&mut self, output: &mut Vec<u8>) -> Option<Action> {
        if self.awaits_first_handshake() {
            return self.start_first_handshake();
        }
        self.state = State::Command;
        let banner = format!("220 {} ESMTP Pillarbox", self.server_name());
        self.urgent = true;
        self.write(&banner, output);
        self.report_greeting();
        None
    }

    /// Runs the next command, if its line is complete.
    fn command_step(
        &mut self,
        now: Timestamp,
        input: &mut InputBuffer,
        output: &mut Vec<u8>,
    ) -> Option<Action> {
        let received = input.as_slice();
        let Some(end) = memchr(b'\n', received) else {
            // One byte more for a CR.
            if received.len() > limits::COMMAND_LINE + 1 {
                let dropped = received.len();
                input.consume(dropped);
                self.state = State::Overlong { dropped };
                return None;
            }
            return Some(self.receive());
        };
        let raw = received.get(..end).unwrap_or_default();
        let line = raw.strip_suffix(b"\r").unwrap_or(raw);
        let command = command::parse(line);
        // What follows BDAT is its chunk.
        let has_chunk = command.is_some_and(|command| command.verb == Verb::Bdat);
        let early = !self.settings.pipelining && !has_chunk && received.len() > end + 1;
        let refused = if raw.len() > limits::MESSAGE_LINE {
            Some(reply::LINE_TOO_LONG)
        } else if early {
            Some(reply::NO_PIPELINING)
        } else if line.len() > limits::COMMAND_LINE {
            Some(reply::COMMAND_TOO_LONG)
        } else {
            None
        };
        if let Some(refused) = refused {
            self.bad_input(refused, output);
            return None;
        }
        if matches!(self.state, State::Exchanging(_)) {
            self.urgent = true;
            let action = self.exchange_line(line, output);
            input.erase(end + 1);
            return action;
        }
        self.urgent |= !may_be_kept_back(command);
        self.report_command(command.map(|c| c.verb), line);
        let outcome = match command {
            Some(command) => self.execute(command, now, output),
            None => reply::UNRECOGNIZED.into(),
        };
        let action = match outcome {
            Outcome::Ask(action) => {
                self.waiting_command = without_credentials(line).into_owned();
                Some(action)
            }
            Outcome::Done => {
                if self.state.is_waiting() {
                    self.waiting_command = line.to_vec();
                }
                None
            }
            Outcome::Reply(text) => {
                self.reply(&text, line, output);
                None
            }
            Outcome::Close(text) => {
                self.reply(&text, line, output);
                self.close(None);
                None
            }
        };
        if command.is_some_and(|command| command.verb == Verb::Auth) {
            input.erase(end + 1);
        } else {
            input.consume(end + 1);
        }
        action
    }

    /// Drops the transaction, if there is one.
    pub(super) fn roll_back(&mut self) {
        if let Some(mut transaction) = self.transaction.take() {
            self.discards |= transaction.drop_body();
            self.report_rollback();
        }
    }

    pub(super) fn next_request(&mut self) -> RequestId {
        self.requests = self.requests.wrapping_add(1);
        RequestId(self.requests)
    }

    /// The name by which we greet.
    pub(super) fn server_name(&self) -> &Arc<str> {
        self.peer.server_name.as_ref().unwrap_or(&self.settings.hostname)
    }

    pub(super) fn wait(&mut self) -> Action {
        Action::Wait { flush: std::mem::take(&mut self.urgent) }
    }

    pub(super) fn receive(&mut self) -> Action {
        self.urgent = false;
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        Action::Receive
    }

    /// Writes a reply, and logs it if it refuses `command`.
    pub(super) fn reply(&mut self, line: &str, command: &[u8], output: &mut Vec<u8>) {
        self.write(line, output);
        if reply::refuses(line) {
            let command = without_credentials(command).into_owned();
            self.events.push_back(LogEvent::FailedCommand { command, reply: line.to_owned() });
        }
    }

    /// Writes one line of a reply.
    pub(super) fn write(&mut self, line: &str, output: &mut Vec<u8>) {
        let start = output.len();
        reply::write_line(output, line);
        self.report_reply(output.get(start..).unwrap_or_default());
    }

    /// Refuses input that is not even a command, and ends the session.
    pub(super) fn bad_input(&mut self, line: &str, output: &mut Vec<u8>) {
        self.write(line, output);
        self.events.push_back(LogEvent::BadInput { reply: line.to_owned() });
        self.close(None);
    }

    pub(super) fn close(&mut self, ending: Option<Ending>) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.roll_back();
        self.report(|| Event::LinkDisconnect);
        self.peer.hostname.get_or_insert_with(|| UNKNOWN_HOSTNAME.into());
        self.events.push_back(LogEvent::Disconnected(ending));
        self.state = State::Closed;
    }
}

/// Whether the reply to a command may wait for those to the next ones (RFC 2920, section 3.2).
pub(super) fn may_be_kept_back(command: Option<Command<'_>>) -> bool {
    matches!(command.map(|command| command.verb), Some(Verb::Mail | Verb::Rcpt | Verb::Rset))
}

/// The name of a remote client, without the root's dot, unless it is none: it goes into a header
/// and into the log.
fn checked_hostname(source: Source, name: Box<str>) -> Box<str> {
    if source == Source::Local {
        return name;
    }
    let host = name.strip_suffix('.').unwrap_or(&name);
    if is_host_name(host) { host.into() } else { UNKNOWN_HOSTNAME.into() }
}

/// A command line as it may be logged: of AUTH, only the mechanism, and of what follows it, what
/// that would be.
pub(super) fn without_credentials(line: &[u8]) -> Cow<'_, [u8]> {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    if !words.next().is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH")) {
        return Cow::Borrowed(line);
    }
    match (words.next(), words.next()) {
        (None, _) => Cow::Borrowed(line),
        // What an exchange calls its own lines.
        (Some(b"LOGIN"), Some(b"(password)")) => Cow::Borrowed(b"AUTH LOGIN (password)"),
        (Some(mechanism), _) if !is_mechanism_name(mechanism) => Cow::Borrowed(b"AUTH (...)"),
        (Some(_), None) => Cow::Borrowed(line),
        (Some(mechanism), Some(_)) => {
            let hidden: &[u8] =
                if mechanism.eq_ignore_ascii_case(b"LOGIN") { b" (username)" } else { b" (...)" };
            Cow::Owned([b"AUTH ", mechanism, hidden].concat())
        }
    }
}
