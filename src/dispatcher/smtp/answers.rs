//! What a session does with the answers to its requests.
//!
//! Sources: the replies of MAIL, RCPT and the end of data in the SMTP page of the specification,
//! 1.6.

use std::borrow::Cow;

use super::action::{Action, Answer, Expansion, Lease, Refusal};
use super::event::LogEvent;
use super::session::{Session, may_be_kept_back, without_credentials};
use super::state::{Committing, Mail, Outcome, State};
use super::transaction::Transaction;
use crate::model::Mailbox;
use crate::model::envelope::RecipientDsn;
use crate::proto::{command, reply};

impl Session {
    /// Goes on with the answer that the state waits for.
    pub(super) fn answer_step(&mut self, output: &mut Vec<u8>) -> Option<Action> {
        let answered = match self.state {
            State::Naming { .. } => self.peer.hostname.is_some(),
            _ => self.arrived.is_some(),
        };
        if !answered {
            return Some(self.wait());
        }
        let answer = self.arrived.take();
        let command = std::mem::take(&mut self.waiting_command);
        let outcome = match (std::mem::replace(&mut self.state, State::Command), answer) {
            (State::Naming { mail }, _) => self.lease(mail),
            (State::Leasing { mail, .. }, Some(Answer::MessageId(_, lease))) => {
                self.begin(*mail, lease)
            }
            (State::Expanding { recipient, .. }, Some(Answer::Recipient(_, expansion))) => {
                self.expanded(*recipient, expansion)
            }
            (State::Committing { message, .. }, Some(Answer::Commit(_, result))) => {
                self.committed(*message, result)
            }
            (State::Authenticating { exchange, .. }, Some(Answer::Authenticated(_, verdict))) => {
                self.authenticated(exchange, verdict)
            }
            (State::CheckingSender { mail, .. }, Some(Answer::Sender(_, allowed))) => {
                self.sender_checked(mail, allowed)
            }
            (State::Verifying { exchange, .. }, Some(Answer::Verifier(_, found))) => {
                self.verifier_found(exchange, found)
            }
            (State::Handshaking, Some(Answer::Secured(secured))) => self.is_secured(secured),
            // Only fitting answers arrive.
            _ => Outcome::Done,
        };
        self.settle(outcome, command, output)
    }

    /// Goes on with what a command that had to wait has led to.
    pub(super) fn settle(
        &mut self,
        outcome: Outcome,
        command: Vec<u8>,
        output: &mut Vec<u8>,
    ) -> Option<Action> {
        self.urgent |= !may_be_kept_back(command::parse(&command));
        match outcome {
            Outcome::Ask(action) => {
                // Only for the log from here on.
                self.waiting_command = without_credentials(&command).into_owned();
                return Some(action);
            }
            Outcome::Done if self.state.is_waiting() => self.waiting_command = command,
            Outcome::Done => {}
            Outcome::Reply(text) => self.reply(&text, &command, output),
            Outcome::Close(text) => {
                self.reply(&text, &command, output);
                self.close(None);
            }
        }
        if let Some(ending) = self.ended.take() {
            self.close(Some(ending));
        }
        None
    }

    /// Asks for a message id, as soon as the client's name is known.
    pub(super) fn name_or_lease(&mut self, mail: Box<Mail>) -> Outcome {
        if self.peer.hostname.is_none() {
            self.state = State::Naming { mail };
            return Outcome::Done;
        }
        self.lease(mail)
    }

    /// Asks for a message id.
    fn lease(&mut self, mail: Box<Mail>) -> Outcome {
        let request = self.next_request();
        self.state = State::Leasing { request, mail };
        Outcome::Ask(Action::NewMessageId(request))
    }

    fn begin(&mut self, mail: Mail, lease: Result<Lease, Refusal>) -> Outcome {
        match lease {
            Ok(lease) => {
                let origin = self.origin(mail);
                let mut transaction = Box::new(Transaction::new(lease, origin));
                transaction.junk = self.take_junk();
                self.transaction = Some(transaction);
                self.report_begin(lease.id);
                reply::OK.into()
            }
            Err(refusal) => {
                self.report_unnumbered();
                match refusal {
                    Refusal::Full => reply::INSUFFICIENT_STORAGE.into(),
                    Refusal::Timeout => reply::TIMED_OUT.into(),
                    Refusal::Failure => Outcome::Close(reply::TEMPORARY_ERROR.into()),
                }
            }
        }
    }

    fn expanded(&mut self, recipient: (Mailbox, RecipientDsn), expansion: Expansion) -> Outcome {
        let (address, dsn) = recipient;
        let line = match expansion {
            Expansion::Accepted(routes) if !routes.is_empty() => {
                let Some(transaction) = &mut self.transaction else {
                    return reply::BAD_SEQUENCE.into();
                };
                transaction.accept(address, dsn, routes);
                self.report_envelopes();
                return reply::RECIPIENT_OK.into();
            }
            Expansion::Accepted(_) => Cow::Borrowed(reply::EXPANSION_PROBLEM),
            Expansion::Failed => Cow::Borrowed(reply::RECIPIENT_TEMPORARY),
            Expansion::Refused(line) if reply::refuses(&line) => Cow::Owned(line),
            Expansion::Refused(_) => Cow::Borrowed(reply::RECIPIENT_TEMPORARY),
        };
        Outcome::Reply(format!("{line}: <{address}>").into())
    }

    fn committed(&mut self, message: Committing, result: Result<(), Refusal>) -> Outcome {
        self.report_committed(result.map(|()| message.size).ok());
        match result {
            Ok(()) => {}
            Err(Refusal::Full) => return reply::INSUFFICIENT_STORAGE.into(),
            Err(Refusal::Timeout) => return reply::TIMED_OUT.into(),
            Err(Refusal::Failure) => return Outcome::Close(reply::TEMPORARY_FAILURE.into()),
        }
        self.messages = self.messages.saturating_add(1);
        let Committing { id, size, sender, recipients } = message;
        let extended = self.greeting.as_ref().is_some_and(|g| g.extended);
        let count = recipients.len();
        self.events.push_back(LogEvent::Message { id, size, recipients: count, extended });
        self.events.extend(recipients.into_iter().map(|(id, recipient)| LogEvent::Envelope {
            id,
            sender: sender.clone(),
            recipient,
        }));
        Outcome::Reply(format!("250 2.0.0 {id} Message accepted for delivery").into())
    }
}
