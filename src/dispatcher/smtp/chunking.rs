//! Content in chunks: BDAT.
//!
//! Whatever becomes of a chunk, its bytes are read to the last and never taken for commands, so a
//! refusal is answered behind them. A BDAT whose size cannot be read ends the session: where its
//! content would end is unknown. After a failure the rest of the transaction's chunks are dropped
//! and answered alike, until the last, RSET or a greeting.
//!
//! What is in chunks is read by the rules of [`Framing::Counted`]. Neither BINARYMIME nor more
//! than one message at a time is possible.
//!
//! Sources: RFC 3030, sections 2 and 4.

use std::borrow::Cow;

use jiff::Timestamp;

use super::action::{Action, Refusal};
use super::event::LogEvent;
use super::session::Session;
use super::state::{Outcome, State};
use crate::message::{Fault, Framing, Pipeline, Reached};
use crate::model::limits;
use crate::proto::bdat::Chunk;
use crate::proto::{command, reply};

/// What a log line calls the command.
const COMMAND: &[u8] = b"BDAT";

/// A chunk that is being received.
#[derive(Debug)]
pub(super) struct Incoming {
    chunk: Chunk,
    /// Bytes of it that were not received yet.
    left: u64,
    /// The reply that it will get, where it is refused whatever is in it.
    refused: Option<Cow<'static, str>>,
}

/// The content of a transaction whose first chunk was taken.
#[derive(Debug)]
pub(super) struct Chunks {
    pipeline: Box<Pipeline>,
    /// The reply to the chunk that failed.
    failed: Option<Cow<'static, str>>,
}

impl Chunks {
    /// Bytes that are held until a line or a header is complete.
    pub(super) fn held(&self) -> usize {
        self.pipeline.held()
    }

    /// Drops these: the message will be refused.
    pub(super) fn drop_held(&mut self) {
        self.pipeline.drop_held();
    }
}

/// The reply that refuses a message with this fault, or one that could not be stored.
pub(super) fn refusal_of(fault: Option<Fault>, refusal: Option<Refusal>) -> Option<&'static str> {
    Some(match (fault, refusal) {
        (Some(Fault::Loop), _) => reply::LOOP,
        (Some(Fault::Malformed), _) => reply::NOT_COMPLIANT,
        (Some(Fault::TooBig), _) => reply::TOO_BIG,
        (None, Some(Refusal::Failure)) => reply::TEMPORARY_ERROR,
        (None, Some(Refusal::Full)) => reply::INSUFFICIENT_STORAGE,
        (None, Some(Refusal::Timeout)) => reply::TIMED_OUT,
        (None, None) => return None,
    })
}

impl Session {
    /// BDAT: what follows the command is content.
    pub(super) fn bdat(&mut self, argument: Option<&[u8]>, now: Timestamp) -> Outcome {
        let Ok(chunk) = Chunk::parse(argument.unwrap_or_default()) else {
            return Outcome::Close(reply::BAD_CHUNK.into());
        };
        let refused = self.refuses_chunks();
        if refused.is_none() {
            self.begin_chunks(None, now);
        }
        let refused = refused.map(Cow::Borrowed);
        self.state = State::Chunk(Incoming { chunk, left: chunk.size, refused });
        Outcome::Done
    }

    /// Whether BDAT with this argument is the first of a message, about which filters are asked.
    pub(super) fn begins_chunks(&self, argument: Option<&[u8]>) -> bool {
        let chunk = Chunk::parse(argument.unwrap_or_default());
        chunk.is_ok() && self.refuses_chunks().is_none() && !self.has_chunks()
    }

    /// Whether content may come in chunks. Filters that read lines are given lines only.
    pub(super) fn offers_chunking(&self) -> bool {
        self.settings.chunking && !self.filters_lines()
    }

    /// Filters have refused the first chunk, of this command line: it and all that follow are
    /// dropped, since what is left of a message is not that message.
    pub(super) fn refuse_chunk(&mut self, line: &[u8], refused: String, now: Timestamp) {
        let argument = command::parse(line).and_then(|command| command.argument);
        let Ok(chunk) = Chunk::parse(argument.unwrap_or_default()) else { return };
        self.begin_chunks(Some(Cow::Owned(refused)), now);
        self.state = State::Chunk(Incoming { chunk, left: chunk.size, refused: None });
    }

    fn refuses_chunks(&self) -> Option<&'static str> {
        match &self.transaction {
            Some(transaction) if !transaction.recipients.is_empty() => {
                (!self.offers_chunking()).then_some(reply::NOT_SUPPORTED)
            }
            _ => Some(reply::BAD_SEQUENCE),
        }
    }

    fn begin_chunks(&mut self, failed: Option<Cow<'static, str>>, now: Timestamp) {
        if self.has_chunks() {
            return;
        }
        if let Some((options, trace)) = self.content(now, Framing::Counted)
            && let Some(transaction) = &mut self.transaction
        {
            let is_accepted = failed.is_none();
            let pipeline = Box::new(Pipeline::new(options));
            transaction.body = trace;
            transaction.chunks = Some(Chunks { pipeline, failed });
            if is_accepted {
                self.report_chunks();
            }
        }
    }

    /// Whether the content of the transaction comes in chunks, of which one was taken.
    pub(super) fn has_chunks(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.chunks.is_some())
    }

    /// Takes in what there is of a chunk.
    pub(super) fn chunk_step(
        &mut self,
        input: &mut super::InputBuffer,
        output: &mut Vec<u8>,
    ) -> Option<Action> {
        let State::Chunk(incoming) = &mut self.state else { return None };
        if incoming.left == 0 {
            if !self.settings.pipelining && !input.is_empty() {
                self.bad_input(reply::NO_PIPELINING, output);
                return None;
            }
            return self.end_chunk(output);
        }
        if input.is_empty() {
            return Some(self.receive());
        }
        let received = input.as_slice();
        let count = usize::try_from(incoming.left).unwrap_or(usize::MAX).min(received.len());
        let piece = received.get(..count).unwrap_or_default();
        incoming.left = incoming.left.saturating_sub(count as u64);
        let is_dropped = incoming.refused.is_some();
        let mut reached = Reached::Input;
        let mut takes_body = false;
        if let (false, Some(transaction)) = (is_dropped, &mut self.transaction)
            && let Some(Chunks { pipeline, failed: None }) = &mut transaction.chunks
        {
            reached = pipeline.feed(piece, &mut transaction.body).reached;
            if pipeline.fault().is_some() || transaction.refusal.is_some() {
                self.discards |= transaction.drop_body();
            }
            takes_body = transaction.body.len() > limits::BODY_IN_MEMORY;
        }
        input.consume(count);
        if reached == Reached::LineTooLong {
            self.bad_input(reply::LINE_TOO_LONG, output);
            return None;
        }
        takes_body.then_some(Action::TakeBody)
    }

    /// Answers a chunk that was received.
    fn end_chunk(&mut self, output: &mut Vec<u8>) -> Option<Action> {
        let State::Chunk(Incoming { chunk, refused, .. }) =
            std::mem::replace(&mut self.state, State::Command)
        else {
            return None;
        };
        if let Some(refused) = refused {
            self.reply(&refused, COMMAND, output);
            return None;
        }
        let transaction = self.transaction.as_mut()?;
        let chunks = transaction.chunks.as_mut()?;
        let was_well = chunks.failed.is_none();
        if was_well {
            if chunk.last {
                chunks.pipeline.finish(&mut transaction.body);
            }
            let refused = refusal_of(chunks.pipeline.fault(), transaction.refusal);
            chunks.failed = refused.map(Cow::Borrowed);
        }
        let ascii = chunks.pipeline.has_ascii_headers();
        let failed = chunks.failed.clone();
        transaction.note_headers(ascii);
        match failed {
            None if chunk.last => self.end_of_content(None, COMMAND, output),
            None => {
                let text = format!("250 2.0.0 {} octets received", chunk.size);
                self.reply(&text, COMMAND, output);
                None
            }
            Some(failed) => {
                self.discards |= transaction.drop_body();
                if was_well && failed == reply::LOOP {
                    self.events.push_back(LogEvent::LoopDetected);
                }
                self.reply(&failed, COMMAND, output);
                if chunk.last {
                    self.roll_back();
                }
                None
            }
        }
    }
}
