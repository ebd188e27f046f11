//! A session with a scripted outside: for tests, benches and fuzz targets.
//!
//! It stands for the shell, the lookup role and the queue: every request is answered at once, as
//! the script says, and what would be stored, written or logged is kept to be looked at.

mod chunks;
mod exercise;
mod filter;
mod filtering;

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    Action, Answer, Authenticate, Authenticated, CheckSender, Commit, Ending, ExpandRecipient,
    Expansion, FoundVerifier, InputBuffer, Lease, LogEvent, NoVerifier, Peer, Refusal, Session,
    SessionId, Settings,
};
use crate::ipc::seal::{Key, Sealed};
use crate::model::MessageId;
use crate::model::tls::Secured;

pub use chunks::exercise_chunks;
pub use exercise::exercise;
pub use filter::{FilterScript, ScriptedFilter, Told};

/// Answers of the outside.
pub struct Script {
    /// The verdict on credentials.
    pub authenticate: fn(&Authenticate) -> Authenticated,
    /// What a proof of SCRAM comes to.
    pub count: fn(bool) -> Authenticated,
    /// The verifier of a user.
    pub verifier: fn(&str) -> Result<String, NoVerifier>,
    /// Whether a user may send from an address.
    pub allow: fn(&CheckSender) -> Option<bool>,
    /// The answer to each RCPT.
    pub expand: fn(&ExpandRecipient) -> Expansion,
    /// What TLS handshakes come to; an error is the text of the log line.
    pub handshake: Result<Secured, &'static str>,
    /// Why no message id is leased.
    pub lease: Result<(), Refusal>,
    /// What storing a taken piece of a body comes to.
    pub store: Result<(), Refusal>,
    /// What commits come to.
    pub commit: Result<(), Refusal>,
    /// The clock.
    pub now: Timestamp,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            authenticate: |_| Authenticated::Accepted,
            count: |accepted| {
                if accepted { Authenticated::Accepted } else { Authenticated::Rejected }
            },
            verifier: |_| Err(NoVerifier::Failed),
            allow: |_| Some(true),
            expand: |_| Expansion::Accepted(vec![route()]),
            handshake: Ok(secured()),
            lease: Ok(()),
            store: Ok(()),
            commit: Ok(()),
            now: Timestamp::UNIX_EPOCH,
        }
    }
}

/// A sealed route that nothing will open.
///
/// # Panics
/// Never: a number can be serialised.
#[must_use]
pub fn route() -> Sealed {
    match Key::new([0; 32]).seal(&0_u8) {
        Ok(sealed) => sealed,
        Err(error) => unreachable!("a number can be serialised: {error}"),
    }
}

/// What most clients agree on with a server.
#[must_use]
pub fn secured() -> Secured {
    Secured {
        version: "TLSv1.3".to_owned(),
        cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
        bits: 256,
        verified: false,
        fingerprint: None,
        exporter: Some([7; 32]),
    }
}

/// A message that was committed.
pub struct Stored {
    /// The commit.
    pub commit: Commit,
    /// The whole body.
    pub body: Vec<u8>,
}

/// A running session and what came of it.
pub struct Rehearsal {
    /// The session.
    pub session: Session,
    /// How the outside answers.
    pub script: Script,
    /// Messages committed.
    pub stored: Vec<Stored>,
    /// Log events, in order.
    pub events: Vec<LogEvent>,
    /// Bodies dropped after pieces of them were taken.
    pub discarded: usize,
    /// Largest piece of a body that was held in memory, in bytes.
    pub largest_piece: usize,
    /// Largest output that was held back, in bytes.
    pub largest_output: usize,
    /// The filter of the listener, if its settings have one.
    pub filter: ScriptedFilter,
    /// Number of polls.
    pub polls: usize,
    /// Whether the session asked to be closed.
    pub closed: bool,
    input: InputBuffer,
    output: Vec<u8>,
    written: Vec<u8>,
    pieces: Vec<u8>,
    leased: u32,
    /// Whether a question was left without an answer.
    stalled: bool,
}

impl Rehearsal {
    /// A session of `peer` that was just accepted.
    #[must_use]
    pub fn new(settings: Settings, peer: Peer, script: Script) -> Self {
        Self {
            session: Session::new(SessionId(1), Arc::new(settings), peer),
            script,
            stored: Vec::new(),
            events: Vec::new(),
            discarded: 0,
            largest_piece: 0,
            largest_output: 0,
            filter: ScriptedFilter::default(),
            polls: 0,
            closed: false,
            input: InputBuffer::default(),
            output: Vec::new(),
            written: Vec::new(),
            pieces: Vec::new(),
            leased: 0,
            stalled: false,
        }
    }

    /// Sends `bytes` at once, and returns what the client can read then.
    pub fn send(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.input.room().extend_from_slice(bytes);
        while !self.closed && !self.step() {}
        std::mem::take(&mut self.written)
    }

    /// Lets the time pass in which the filter should have answered; returns what the client can
    /// read then.
    pub fn filter_is_late(&mut self) -> Vec<u8> {
        self.stalled = false;
        self.session.filters_late();
        self.send(b"")
    }

    /// Ends the connection from outside.
    pub fn end(&mut self, ending: Ending) {
        self.session.end(ending);
        while !self.closed && !self.step() {}
    }

    /// Lets the server leave; returns what the client can read then.
    pub fn shut_down(&mut self) -> Vec<u8> {
        self.session.shut_down(&mut self.output);
        self.send(b"")
    }

    /// Bytes that were received and not yet handled.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.input.as_slice().len()
    }

    /// The log, rendered.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.events.iter().map(|event| event.to_line(self.session.id())).collect()
    }

    /// Does one action; returns whether the session waits for input.
    fn step(&mut self) -> bool {
        self.polls += 1;
        let action = self.session.poll(self.script.now, &mut self.input, &mut self.output);
        self.largest_output = self.largest_output.max(self.output.len());
        match action {
            Action::Close => {
                self.written.append(&mut self.output);
                self.closed = true;
            }
            Action::Authenticate(asked) => {
                let verdict = (self.script.authenticate)(&asked);
                self.session.answer(Answer::Authenticated(asked.request, verdict));
            }
            Action::BeginFilters { request, hostname } => {
                self.filter.told.push(Told::Begin(hostname));
                self.session.answer(Answer::Filters(request, self.filter.script.interests));
            }
            Action::CheckSender(asked) => {
                let allowed = (self.script.allow)(&asked);
                self.session.answer(Answer::Sender(asked.request, allowed));
            }
            Action::CountProof { request, accepted } => {
                let verdict = (self.script.count)(accepted);
                self.session.answer(Answer::Authenticated(request, verdict));
            }
            Action::Commit(commit) => {
                let mut body = std::mem::take(&mut self.pieces);
                body.extend_from_slice(&commit.body);
                self.session.answer(Answer::Commit(commit.request, self.script.commit));
                if self.script.commit.is_ok() {
                    self.stored.push(Stored { commit: *commit, body });
                }
            }
            Action::DiscardBody => {
                self.pieces.clear();
                self.discarded += 1;
            }
            Action::ExpandRecipient(expand) => {
                let expansion = (self.script.expand)(&expand);
                self.session.answer(Answer::Recipient(expand.request, expansion));
            }
            Action::Filter(question) => match self.filter.ask(&question) {
                Some(decision) => {
                    self.session.answer(Answer::Filtered(question.request, decision));
                }
                None => self.stalled = true,
            },
            Action::FilterLines(lines) => match self.filter.pass(&lines) {
                Some(filtered) => {
                    self.session.answer(Answer::FilteredLines(lines.request, filtered));
                }
                None => self.stalled = true,
            },
            Action::FindVerifier { request, user } => {
                let found = (self.script.verifier)(&user);
                let found = found.map(|text| FoundVerifier { text: text.into(), nonce: [7; 18] });
                self.session.answer(Answer::Verifier(request, found));
            }
            Action::Flush => self.written.append(&mut self.output),
            Action::Log(event) => self.events.push(event),
            Action::NewMessageId(request) => {
                self.leased += 1;
                let id = MessageId::new(self.leased).ok_or(Refusal::Failure);
                let lease = self.script.lease.and(id).map(|id| Lease { id, nonce: 0xabc });
                self.session.answer(Answer::MessageId(request, lease));
            }
            Action::Receive => {
                self.written.append(&mut self.output);
                return true;
            }
            Action::Report(event) => self.filter.told.push(Told::Event(event)),
            Action::StartTls => {
                self.written.append(&mut self.output);
                match &self.script.handshake {
                    Ok(secured) => self.session.answer(Answer::Secured(Box::new(secured.clone()))),
                    Err(text) => {
                        let text = format!("handshake failed: {text}");
                        self.session.end(Ending::IoError(text));
                    }
                }
            }
            Action::TakeBody => {
                let piece = self.session.take_body();
                self.largest_piece = self.largest_piece.max(piece.len());
                self.pieces.extend_from_slice(&piece);
                if let Err(refusal) = self.script.store {
                    self.session.body_failed(refusal);
                }
            }
            Action::Wait { .. } if self.stalled => {
                self.written.append(&mut self.output);
                return true;
            }
            Action::Wait { .. } => self.session.answer(Answer::Hostname(None)),
        }
        false
    }
}
