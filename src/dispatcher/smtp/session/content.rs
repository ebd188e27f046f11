//! The content of a message, from its first byte to the commit.

use super::Session;
use crate::dispatcher::smtp::action::{Action, Refusal};
use crate::dispatcher::smtp::chunking::{Chunks, refusal_of};
use crate::dispatcher::smtp::event::LogEvent;
use crate::dispatcher::smtp::input::InputBuffer;
use crate::dispatcher::smtp::state::{Committing, State};
use crate::message::{Fault, Reached};
use crate::model::limits;
use crate::proto::reply;

impl Session {
    /// Bytes of a body in memory that [`Self::take_body`] would hand out. What all sessions together
    /// have, with [`Self::lines_in_memory`], is bounded by [`limits::BODIES_IN_MEMORY`].
    #[must_use]
    pub fn body_in_memory(&self) -> usize {
        self.transaction.as_ref().map_or(0, |transaction| transaction.body.len())
    }

    /// Bytes of a message in memory that cannot be handed out: lines of its headers that are not
    /// complete, or that filters have not taken.
    #[must_use]
    pub fn lines_in_memory(&self) -> usize {
        match (&self.state, &self.transaction) {
            (State::Body(pipeline), _) => pipeline.held(),
            (State::FilteredBody(body), _) => body.held(),
            (_, Some(transaction)) => transaction.chunks.as_ref().map_or(0, Chunks::held),
            _ => 0,
        }
    }

    /// Hands out what there is of the body, after [`Action::TakeBody`] or at any time before the
    /// commit. Pieces come in order; [`Commit::body`](crate::dispatcher::smtp::Commit::body) is the last one.
    pub fn take_body(&mut self) -> Vec<u8> {
        let Some(transaction) = &mut self.transaction else { return Vec::new() };
        transaction.spilled += transaction.body.len() as u64;
        std::mem::take(&mut transaction.body)
    }

    /// The body cannot be stored, or not be kept in memory: the message is refused at its end, and
    /// nothing of it is kept.
    pub fn body_failed(&mut self, refusal: Refusal) {
        let Some(transaction) = &mut self.transaction else { return };
        transaction.refusal.get_or_insert(refusal);
        self.discards |= transaction.drop_body();
        match &mut self.state {
            State::Body(pipeline) => pipeline.drop_held(),
            State::FilteredBody(body) => body.drop_held(),
            _ => {
                if let Some(chunks) = &mut transaction.chunks {
                    chunks.drop_held();
                }
            }
        }
    }

    /// Takes in message content.
    pub(super) fn body_step(
        &mut self,
        input: &mut InputBuffer,
        output: &mut Vec<u8>,
    ) -> Option<Action> {
        let (State::Body(pipeline), Some(transaction)) = (&mut self.state, &mut self.transaction)
        else {
            self.state = State::Command;
            return None;
        };
        if input.is_empty() {
            return Some(self.receive());
        }
        let progress = pipeline.feed(input.as_slice(), &mut transaction.body);
        input.consume(progress.consumed);
        let fault = pipeline.fault();
        transaction.note_headers(pipeline.has_ascii_headers());
        if fault.is_some() || transaction.refusal.is_some() {
            self.discards |= transaction.drop_body();
        }
        match progress.reached {
            Reached::Input if transaction.body.len() > limits::BODY_IN_MEMORY => {
                Some(Action::TakeBody)
            }
            Reached::Input => None,
            Reached::LineTooLong => {
                self.bad_input(reply::LINE_TOO_LONG, output);
                None
            }
            Reached::End { standard } => {
                self.end_of_input(standard, input, output);
                if matches!(self.state, State::Closed) {
                    return None;
                }
                self.end_of_content(fault, b"DATA", output)
            }
        }
    }

    /// Ends a message that was received to its end by `command`, a name for the log, and that its
    /// filters have nothing against.
    pub(in crate::dispatcher::smtp) fn end_of_data(
        &mut self,
        fault: Option<Fault>,
        command: &[u8],
        output: &mut Vec<u8>,
    ) -> Option<Action> {
        self.state = State::Command;
        let refusal = self.transaction.as_ref()?.refusal;
        self.urgent = true;
        if fault == Some(Fault::Loop) {
            self.events.push_back(LogEvent::LoopDetected);
        }
        let refused = match refusal_of(fault, refusal) {
            Some(refused) => refused,
            None => {
                let request = self.next_request();
                let commit = Box::new(self.transaction.take()?.into_commit(request));
                let message = Box::new(Committing {
                    id: commit.message,
                    size: commit.size(),
                    sender: commit.origin.sender.clone(),
                    recipients: commit
                        .recipients
                        .iter()
                        .filter_map(|r| Some((r.envelopes.last()?.0, r.address.clone())))
                        .collect(),
                });
                self.state = State::Committing { request, message };
                self.waiting_command = command.to_vec();
                return Some(Action::Commit(commit));
            }
        };
        self.reply(refused, command, output);
        self.roll_back();
        None
    }
}
