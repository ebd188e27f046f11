//! What filters are told of a session, as it happens.
//!
//! Events follow the replies: what became of a command of a transaction is read off the class of
//! its reply. That has odd consequences which filters rely on: a MAIL that is refused for its
//! syntax is no `tx-mail`, one that is refused for an option is, without a number.
//!
//! Sources: the SMTP page of the specification, 5.4, and D7, D17, D19 of section 9.

use std::collections::VecDeque;

use super::session::Session;
use crate::filter::{Event, TransactionResult, bracketed, masked};
use crate::model::MessageId;
use crate::proto::command::Verb;

/// Longest address in an event, in bytes.
const ADDRESS: usize = 255;

/// What the filters of a session were told, and will be.
#[derive(Debug, Default)]
pub(super) struct Trail {
    events: VecDeque<Event>,
    /// The last command, with the address in its line.
    last: Option<(Verb, Option<Vec<u8>>)>,
    transaction: Option<Known>,
    /// What the next reply is followed by.
    next: Option<Next>,
}

/// The transaction as filters know it.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// `None` for one that MAIL failed to begin.
    message: Option<MessageId>,
    /// Whether a recipient was accepted.
    recipient: bool,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    /// The message is durable; this many bytes.
    Commit(u64),
    /// It is not.
    Rollback,
}

impl Trail {
    /// A reply line was written.
    fn reply(&mut self, line: &[u8]) {
        self.events.push_back(Event::ProtocolServer(line.to_vec()));
        let Some(known) = self.transaction else { return };
        if let (Some((verb, address)), Some(class)) = (&self.last, line.first()) {
            let result = match class {
                b'4' => TransactionResult::Temporary,
                b'5' => TransactionResult::Permanent,
                _ => TransactionResult::Ok,
            };
            match (verb, class, known.message) {
                (Verb::Mail, b'2' | b'4' | b'5', message) => {
                    if let (b'2', Some(message)) = (class, message) {
                        self.events.push_back(Event::TxBegin(message));
                    }
                    if let Some(address) = address {
                        self.events.push_back(Event::TxMail(message, result, address.clone()));
                    }
                }
                (Verb::Rcpt, b'2' | b'4' | b'5', Some(message)) => {
                    if let Some(address) = address {
                        self.events.push_back(Event::TxRcpt(message, result, address.clone()));
                    }
                }
                (Verb::Data | Verb::Bdat, b'3', Some(message)) => {
                    self.events.push_back(Event::TxData(message, result));
                }
                (Verb::Data | Verb::Bdat, b'4' | b'5', Some(message)) if known.recipient => {
                    self.events.push_back(Event::TxData(message, result));
                }
                _ => {}
            }
        }
        match (self.next.take(), known.message) {
            (Some(Next::Commit(size)), Some(message)) => {
                self.events.push_back(Event::TxCommit(message, size));
                self.events.push_back(Event::TxReset(message));
                self.transaction = None;
            }
            (Some(Next::Rollback), _) => self.rollback(),
            (_, None) => self.transaction = None,
            (None, Some(_)) => {}
        }
    }

    fn rollback(&mut self) {
        let Some(Known { message: Some(message), .. }) = self.transaction.take() else { return };
        self.events.push_back(Event::TxRollback(message));
        self.events.push_back(Event::TxReset(message));
    }
}

impl Session {
    /// The next event for the filters.
    pub(super) fn next_report(&mut self) -> Option<Event> {
        let trail = &mut self.filters.as_mut()?.trail;
        let event = trail.events.pop_front();
        if trail.events.is_empty() && trail.events.capacity() > 0 {
            // Nothing is held between two commands.
            trail.events = VecDeque::new();
        }
        event
    }

    /// Tells the filters about something, if they want to know.
    pub(super) fn report(&mut self, event: impl FnOnce() -> Event) {
        if let Some(trail) = self.trail() {
            trail.events.push_back(event());
        }
    }

    /// A command line was received; `verb` is `None` for one that is not known.
    pub(super) fn report_command(&mut self, verb: Option<Verb>, line: &[u8]) {
        let Some(trail) = self.trail() else { return };
        trail.events.push_back(Event::ProtocolClient(masked(line).into_owned()));
        trail.last = verb.map(|verb| {
            let address = match verb {
                Verb::Mail | Verb::Rcpt => bracketed(line),
                _ => None,
            };
            (verb, address.map(|text| text.get(..ADDRESS).unwrap_or(text).to_vec()))
        });
    }

    /// A reply line was written, its line end included.
    pub(super) fn report_reply(&mut self, line: &[u8]) {
        if let Some(trail) = self.trail() {
            trail.reply(line.strip_suffix(b"\r\n").unwrap_or(line));
        }
    }

    /// The banner was written.
    pub(super) fn report_greeting(&mut self) {
        if self.filters.is_some() {
            let hostname = self.server_name().to_string();
            self.report(|| Event::LinkGreeting { hostname });
        }
    }

    /// MAIL has begun a transaction; its reply follows.
    pub(super) fn report_begin(&mut self, message: MessageId) {
        if let Some(trail) = self.trail() {
            trail.transaction = Some(Known { message: Some(message), recipient: false });
        }
    }

    /// MAIL came so far that filters take it for a transaction, but will be refused.
    pub(super) fn report_unnumbered(&mut self) {
        if let Some(trail) = self.trail() {
            trail.transaction = Some(Known { message: None, recipient: false });
        }
    }

    /// The last recipient has its envelopes; its reply follows.
    pub(super) fn report_envelopes(&mut self) {
        let (Some(filters), Some(transaction)) = (&mut self.filters, &self.transaction) else {
            return;
        };
        if !filters.interests.events {
            return;
        }
        if let Some(known) = &mut filters.trail.transaction {
            known.recipient = true;
        }
        let envelopes = transaction.recipients.last().map_or(&[][..], |last| &last.envelopes);
        let events = envelopes.iter().map(|(envelope, _)| Event::TxEnvelope(*envelope));
        filters.trail.events.extend(events);
    }

    /// The first chunk of a message is taken.
    pub(super) fn report_chunks(&mut self) {
        let Some(trail) = self.trail() else { return };
        if let Some(Known { message: Some(message), .. }) = trail.transaction {
            trail.events.push_back(Event::TxData(message, TransactionResult::Ok));
        }
    }

    /// A commit was answered, with the size of a message that is durable; its reply follows.
    pub(super) fn report_committed(&mut self, size: Option<u64>) {
        if let Some(trail) = self.trail() {
            trail.next = Some(size.map_or(Next::Rollback, Next::Commit));
        }
    }

    /// The transaction was dropped.
    pub(super) fn report_rollback(&mut self) {
        if let Some(trail) = self.trail() {
            trail.rollback();
        }
    }

    /// What was told, if the filters want to be told.
    fn trail(&mut self) -> Option<&mut Trail> {
        self.filters.as_mut().filter(|filters| filters.interests.events).map(|f| &mut f.trail)
    }
}
