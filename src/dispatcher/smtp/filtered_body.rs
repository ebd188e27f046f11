//! The content of a message on its way through filters, and back.
//!
//! What the client sends goes to the filters in lines, trace headers first; what comes out of them
//! is stored as if the client had sent it. One batch is on its way at a time, and the client is not
//! read meanwhile: a session holds one batch and one line, however slow its filters are. Once the
//! message is at fault no line of the client goes on, but its end does.
//!
//! Sources: the SMTP page of the specification, 1.10, 5.5, and D3, D4, D17 of section 9.

use memchr::{memchr, memrchr};

use super::action::{Action, Answer, FilterLines, FilteredLines, RequestId};
use super::input::InputBuffer;
use super::session::Session;
use super::state::{Outcome, State};
use crate::filter::Event;
use crate::filter::engine::Flow;
use crate::message::{Fault, Framing, Lines, Options, Pipeline, Progress, Reached};
use crate::model::limits;
use crate::proto::reply;

/// How the end of a message is told to filters.
const DOT: &[u8] = b".\n";
/// Most bytes of lines that go at once; the end has room behind them.
const MAX_LINES: usize = limits::FILTER_LINES - DOT.len();

/// A message in its filters.
#[derive(Debug)]
pub(super) struct FilteredBody {
    lines: Lines,
    pipeline: Pipeline,
    /// Lines that the filters have not taken, the last one perhaps not whole.
    outgoing: Vec<u8>,
    /// Bytes of these that are whole lines, or the rest of one.
    whole: usize,
    /// Whether the filters have the first part of a line whose rest they have not taken.
    cut: bool,
    /// Lines sent whose fate is not known yet.
    pub(super) request: Option<RequestId>,
    /// Largest size of what the client sends.
    max_size: u64,
    /// Whether the client has sent anything: until then the trace headers wait for company.
    begun: bool,
    /// Whether the client has sent the end.
    ended: bool,
    /// Bytes of [`DOT`] that the filters have taken.
    end_taken: usize,
    flow: Flow,
}

/// What comes next.
enum Next {
    /// Lines go to the filters.
    Exchange,
    /// The client has more to say.
    Read,
    /// Everything came out of the filters, or nothing more will.
    Settle,
}

impl FilteredBody {
    /// A message that begins with the lines of `trace`.
    pub(super) fn new(trace: Vec<u8>, options: Options) -> Self {
        let lines = Lines::new(options.framing);
        let max_size = options.max_size;
        // The client has no part in the trace headers.
        let max_filtered = max_size.saturating_add(trace.len() as u64);
        let options = Options { framing: Framing::Strict, max_size: max_filtered, ..options };
        Self {
            lines,
            pipeline: Pipeline::new(options),
            whole: trace.len(),
            outgoing: trace,
            cut: false,
            request: None,
            max_size,
            begun: false,
            ended: false,
            end_taken: 0,
            flow: Flow::More,
        }
    }

    /// Bytes of lines that are held until they are whole, or until filters take them.
    pub(super) fn held(&self) -> usize {
        self.outgoing.len() + self.pipeline.held()
    }

    /// Drops these, but for the rest of a line that the filters have begun: the message will be
    /// refused.
    pub(super) fn drop_held(&mut self) {
        self.drop_lines();
        self.pipeline.drop_held();
    }

    fn fault(&self) -> Option<Fault> {
        let too_big = self.lines.size() > self.max_size;
        self.pipeline.fault().or_else(|| too_big.then_some(Fault::TooBig))
    }

    fn next(&self, input_is_empty: bool) -> Next {
        if self.flow != Flow::More {
            return if self.ended { Next::Settle } else { Next::Read };
        }
        let waiting = self.begun && input_is_empty;
        if self.ended || (self.whole > 0 && (waiting || self.whole >= MAX_LINES)) {
            Next::Exchange
        } else {
            Next::Read
        }
    }

    /// Takes bytes of the client.
    fn read(&mut self, input: &[u8]) -> Progress {
        let start = self.outgoing.len();
        let progress = self.lines.feed(input, &mut self.outgoing);
        self.begun = true;
        if let Some(last) = memrchr(b'\n', self.outgoing.get(start..).unwrap_or_default()) {
            self.whole = start + last + 1;
        }
        self.ended = matches!(progress.reached, Reached::End { .. });
        progress
    }

    /// Forgets lines that are not to go on; a line that the filters have begun is theirs.
    fn drop_lines(&mut self) {
        let whole = self.outgoing.get(..self.whole).unwrap_or_default();
        let end = memchr(b'\n', whole).filter(|_| self.cut).map_or(0, |end| end + 1);
        self.outgoing.truncate(end);
        self.whole = end;
    }

    /// The next lines for the filters.
    fn batch(&mut self, request: RequestId) -> FilterLines {
        let whole = self.outgoing.get(..self.whole).unwrap_or_default();
        let (batch, rest) = whole.split_at_checked(MAX_LINES).unwrap_or((whole, b""));
        let mut lines = batch.to_vec();
        if self.ended && rest.is_empty() {
            lines.extend_from_slice(DOT.get(self.end_taken..).unwrap_or_default());
        }
        self.request = Some(request);
        FilterLines { request, lines }
    }

    /// What came out of the filters goes into the body.
    fn take(&mut self, filtered: FilteredLines, body: &mut Vec<u8>) {
        self.request = None;
        let FilteredLines { taken, output, flow } = filtered;
        self.end_taken += taken.saturating_sub(self.whole);
        let taken = taken.min(self.whole);
        if let Some(last) = self.outgoing.drain(..taken).next_back() {
            self.cut = last != b'\n';
        }
        self.whole -= taken;
        let proper = self.pipeline.feed_lines(&output, body);
        self.flow = if proper { flow } else { Flow::Broken };
        if self.flow == Flow::Ended {
            self.pipeline.finish(body);
        }
    }
}

impl Session {
    /// Takes in content, and passes it through the filters.
    pub(super) fn filtered_body_step(
        &mut self,
        input: &mut InputBuffer,
        output: &mut Vec<u8>,
    ) -> Option<Action> {
        let (State::FilteredBody(body), Some(transaction)) =
            (&mut self.state, &mut self.transaction)
        else {
            self.state = State::Command;
            return None;
        };
        if body.request.is_some() {
            let Some(Answer::FilteredLines(_, filtered)) = self.arrived.take() else {
                return Some(self.wait());
            };
            body.take(filtered, &mut transaction.body);
        }
        transaction.note_headers(body.pipeline.has_ascii_headers());
        let fault = body.fault();
        let broken = body.flow == Flow::Broken;
        if fault.is_some() || transaction.refusal.is_some() || broken {
            self.discards |= transaction.drop_body();
            body.drop_lines();
        }
        if transaction.body.len() > limits::BODY_IN_MEMORY {
            return Some(Action::TakeBody);
        }
        match body.next(input.is_empty()) {
            Next::Exchange => {
                let request = self.next_request();
                let State::FilteredBody(body) = &mut self.state else { return None };
                return Some(Action::FilterLines(Box::new(body.batch(request))));
            }
            Next::Settle if broken => {
                self.state = State::Command;
                self.urgent = true;
                let refused = Outcome::Close(reply::INTERNAL_ERROR.into());
                return self.settle(refused, b"DATA".to_vec(), output);
            }
            Next::Settle => return self.end_of_content(fault, b"DATA", output),
            Next::Read => {}
        }
        if input.is_empty() {
            return Some(self.receive());
        }
        let progress = body.read(input.as_slice());
        if body.flow != Flow::More {
            body.drop_lines();
        }
        input.consume(progress.consumed);
        match progress.reached {
            Reached::Input => {}
            Reached::LineTooLong => self.bad_input(reply::LINE_TOO_LONG, output),
            Reached::End { standard } => self.end_of_input(standard, input, output),
        }
        None
    }

    /// The end of what the client sends of a message. What follows a message may be refused.
    pub(super) fn end_of_input(
        &mut self,
        standard: bool,
        input: &InputBuffer,
        output: &mut Vec<u8>,
    ) {
        self.report(|| Event::ProtocolClient(b".".to_vec()));
        let early = !standard || !self.settings.pipelining;
        if early && !input.is_empty() {
            self.bad_input(reply::NO_PIPELINING, output);
        }
    }
}
