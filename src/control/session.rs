//! One client of the control socket, without the socket.
//!
//! A [`Session`] takes what the client asks and says in a [`Step`] what to answer and what to ask of
//! another role; the answer is given back, until the request is done. One request at a time, one
//! question at a time: a client that does not read keeps no more than one piece waiting.
//!
//! Listings are joined here: the scheduler knows where each envelope is, the queue what it is.
//!
//! Source: the queue page of the specification, 6.2 to 6.5.

use std::collections::HashMap;

use super::permission;
use crate::ipc::message::client::{
    Change, ListedEnvelope, PIECE, Place, Reply, Request, Selection, Service, Statistic, Status,
    Summary, VERSION, Verbosity,
};
use crate::model::{Envelope, EnvelopeId, MessageId};

/// Envelopes of a listing that are asked for at once: as many as the scheduler tells in one answer.
pub const PAGE: usize = 1024;
/// Counters in one piece of the answer; names are short.
const STATISTICS_PIECE: usize = 256;

/// What another role is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// The queue: a message from this offset on. Answered by [`Answer::Body`].
    Body {
        /// The message.
        message: MessageId,
        /// In bytes.
        offset: u64,
    },
    /// The scheduler: change envelopes. Answered by [`Answer::Count`].
    Change(Change, Selection),
    /// The queue: these envelopes. Answered by [`Answer::Envelopes`].
    Envelopes(Vec<EnvelopeId>),
    /// The dispatcher: a session over a socket, for this user. Answered by [`Answer::Session`].
    OpenSession {
        /// User id of the client.
        uid: u32,
    },
    /// The parent: pause a service, or resume it. Answered by [`Answer::Done`].
    Pause {
        /// Which.
        service: Service,
        /// Pause it.
        paused: bool,
    },
    /// The scheduler: where envelopes are, in the order of their ids. Answered by
    /// [`Answer::Places`]; none means that there are no more.
    Places {
        /// Those of this message only.
        message: Option<MessageId>,
        /// Those after this one.
        after: Option<EnvelopeId>,
        /// How many, at most.
        count: usize,
    },
    /// The parent: read the configuration again. Answered by [`Answer::Done`].
    Reload,
    /// The parent: how much is logged. Answered by [`Answer::Done`].
    SetVerbosity(Verbosity),
    /// Every role: counters. Answered by [`Answer::Statistics`].
    Statistics,
    /// The parent: what is paused. Answered by [`Answer::Status`].
    Status,
    /// The parent: end the server. Answered by [`Answer::Done`].
    Stop,
    /// Lookup: read the table with this name again. Answered by [`Answer::Done`].
    UpdateTable(String),
}

/// What another role answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Ask::Body`].
    Body(BodyAnswer),
    /// To [`Ask::Change`]: how many envelopes.
    Count(u64),
    /// To questions that are done or not.
    Done(bool),
    /// To [`Ask::Envelopes`]: those that are there, of the first `looked_at` that were asked for.
    Envelopes {
        /// How many were looked at.
        looked_at: usize,
        /// Those that are there, in the order asked for.
        found: Vec<Envelope>,
    },
    /// To [`Ask::Places`].
    Places {
        /// Where they are.
        places: Vec<(EnvelopeId, Place)>,
        /// Whether the scheduler knows of everything that is stored.
        complete: bool,
    },
    /// To [`Ask::OpenSession`].
    Session(SessionAnswer),
    /// To [`Ask::Statistics`].
    Statistics(Vec<Statistic>),
    /// To [`Ask::Status`].
    Status(Status),
    /// The role is being replaced, or did not answer.
    Unavailable,
}

/// What the queue says of a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BodyAnswer {
    /// There is none.
    Absent,
    /// It is in a file, whose descriptor came with the answer and goes with the reply.
    File {
        /// Its length in bytes.
        size: u64,
    },
    /// A piece of it, from the offset that was asked for; empty only at the end.
    Piece {
        /// Length of the whole in bytes.
        size: u64,
        /// At most [`PIECE`] bytes.
        bytes: Vec<u8>,
    },
}

/// What came of a request for a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SessionAnswer {
    /// There is no room for another one.
    Busy,
    /// Accepting is paused.
    Disallowed,
    /// It is open; the client's end goes with the reply.
    Open,
}

/// What to do after a request or an answer: first send the replies, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What the client is told.
    pub replies: Vec<Reply>,
    /// What follows.
    pub next: Next,
}

/// What follows when the replies are sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Ask another role, and come back with the answer.
    Ask(Ask),
    /// End the connection.
    Close,
    /// Read the next request.
    Read,
}

/// The request under way.
#[derive(Clone, Debug, PartialEq)]
enum Work {
    Body {
        message: MessageId,
        offset: u64,
    },
    Change,
    Envelope,
    EnvelopePlace(Box<Envelope>),
    ListEnvelopes {
        message: Option<MessageId>,
        complete: bool,
        page: Vec<(EnvelopeId, Place)>,
    },
    /// `complete`: no page so far said that there is more.
    ListPlaces {
        message: Option<MessageId>,
        complete: bool,
    },
    OpenSession,
    Order,
    Statistics,
    Status,
}

/// One client.
#[derive(Debug)]
pub struct Session {
    uid: u32,
    owner: u32,
    greeted: bool,
    work: Option<Work>,
}

impl Session {
    /// A client with user id `uid`, of a server that user `owner` started.
    #[must_use]
    pub const fn new(uid: u32, owner: u32) -> Self {
        Self { uid, owner, greeted: false, work: None }
    }

    /// Takes a request of the client.
    pub fn request(&mut self, request: Request) -> Step {
        // A client that asks before its last request is done breaks the protocol.
        if self.work.is_some() {
            return close();
        }
        match request {
            Request::Hello { version } if !self.greeted => return self.greet(version),
            Request::Hello { .. } => return close(),
            _ if !self.greeted => return close(),
            _ => {}
        }
        if !permission::may(self.uid, self.owner, &request) {
            return finish(Reply::Denied);
        }
        let (work, ask) = match request {
            // Answered above.
            Request::Hello { .. } => return close(),
            Request::Change { change, selection } => (Work::Change, Ask::Change(change, selection)),
            Request::List { message } => {
                let work = Work::ListPlaces { message, complete: true };
                (work, Ask::Places { message, after: None, count: PAGE })
            }
            Request::OpenSession => (Work::OpenSession, Ask::OpenSession { uid: self.uid }),
            Request::Pause(service) => (Work::Order, Ask::Pause { service, paused: true }),
            Request::Reload => (Work::Order, Ask::Reload),
            Request::Resume(service) => (Work::Order, Ask::Pause { service, paused: false }),
            Request::SetVerbosity(verbosity) => (Work::Order, Ask::SetVerbosity(verbosity)),
            Request::ShowEnvelope(id) => (Work::Envelope, Ask::Envelopes(vec![id])),
            Request::ShowMessage(message) => {
                (Work::Body { message, offset: 0 }, Ask::Body { message, offset: 0 })
            }
            Request::ShowStatistics => (Work::Statistics, Ask::Statistics),
            Request::ShowStatus => (Work::Status, Ask::Status),
            Request::Stop => (Work::Order, Ask::Stop),
            Request::UpdateTable { name } => (Work::Order, Ask::UpdateTable(name)),
        };
        self.ask(Vec::new(), work, ask)
    }

    /// Takes the answer to the last [`Next::Ask`]. One that does not fit counts as none.
    pub fn answer(&mut self, answer: Answer) -> Step {
        match (self.work.take(), answer) {
            (Some(Work::Body { message, offset }), Answer::Body(body)) => {
                self.body(message, offset, body)
            }
            (Some(Work::Change), Answer::Count(number)) => finish(Reply::Count(number)),
            (Some(Work::Envelope), Answer::Envelopes { found, .. }) => {
                match found.into_iter().next() {
                    Some(envelope) => self.find_place(Box::new(envelope)),
                    None => finish(Reply::NotFound),
                }
            }
            (Some(Work::EnvelopePlace(envelope)), answer) => {
                // A scheduler that is being replaced hides no envelope.
                let place = match answer {
                    Answer::Places { places, .. } => places
                        .into_iter()
                        .find(|(id, _)| *id == envelope.id)
                        .map(|(_, place)| place),
                    _ => None,
                };
                finish(Reply::Envelope { envelope, place })
            }
            (
                Some(Work::ListEnvelopes { message, complete, page }),
                Answer::Envelopes { looked_at, found },
            ) => self.listed(message, complete, page, looked_at, &found),
            (
                Some(Work::ListPlaces { message, complete: before }),
                Answer::Places { places, complete },
            ) => self.placed(message, complete && before, places),
            (Some(Work::OpenSession), Answer::Session(session)) => finish(match session {
                SessionAnswer::Busy => Reply::Busy,
                SessionAnswer::Disallowed => Reply::SubmissionRefused,
                SessionAnswer::Open => Reply::Session,
            }),
            (Some(Work::Order), Answer::Done(done)) => {
                finish(if done { Reply::Done } else { Reply::Failed })
            }
            (Some(Work::Statistics), Answer::Statistics(statistics)) => {
                let pieces = statistics.chunks(STATISTICS_PIECE);
                let pieces = pieces.map(|piece| Reply::Statistics(piece.to_vec()));
                Step { replies: pieces.chain([Reply::Done]).collect(), next: Next::Read }
            }
            (Some(Work::Status), Answer::Status(status)) => finish(Reply::Status(status)),
            (Some(_), _) => finish(Reply::Unavailable),
            (None, _) => close(),
        }
    }

    fn greet(&mut self, version: u32) -> Step {
        if version != VERSION {
            let replies = vec![Reply::Incompatible { version: VERSION }];
            return Step { replies, next: Next::Close };
        }
        self.greeted = true;
        finish(Reply::Welcome)
    }

    fn ask(&mut self, replies: Vec<Reply>, work: Work, ask: Ask) -> Step {
        self.work = Some(work);
        Step { replies, next: Next::Ask(ask) }
    }

    fn body(&mut self, message: MessageId, offset: u64, body: BodyAnswer) -> Step {
        match body {
            BodyAnswer::Absent if offset == 0 => finish(Reply::NotFound),
            // It was delivered meanwhile: what was sent is not the whole.
            BodyAnswer::Absent => finish(Reply::Unavailable),
            BodyAnswer::File { size } => finish(Reply::File { size }),
            BodyAnswer::Piece { bytes, .. } if bytes.is_empty() => finish(Reply::Done),
            BodyAnswer::Piece { size, bytes } => {
                let offset = offset.saturating_add(bytes.len() as u64);
                let piece = Reply::Bytes(bytes);
                if offset >= size {
                    return Step { replies: vec![piece, Reply::Done], next: Next::Read };
                }
                let work = Work::Body { message, offset };
                self.ask(vec![piece], work, Ask::Body { message, offset })
            }
        }
    }

    /// An envelope was found: ask the scheduler what it does with it.
    fn find_place(&mut self, envelope: Box<Envelope>) -> Step {
        let id = envelope.id;
        let after = id.get().checked_sub(1).and_then(EnvelopeId::new);
        let ask = Ask::Places { message: Some(id.message()), after, count: 1 };
        self.ask(Vec::new(), Work::EnvelopePlace(envelope), ask)
    }

    /// A page of the scheduler came: ask the queue what these envelopes are.
    fn placed(
        &mut self,
        message: Option<MessageId>,
        complete: bool,
        page: Vec<(EnvelopeId, Place)>,
    ) -> Step {
        if page.is_empty() {
            return finish(if complete { Reply::Done } else { Reply::Incomplete });
        }
        let ask = Ask::Envelopes(page.iter().map(|(id, _)| *id).collect());
        self.ask(Vec::new(), Work::ListEnvelopes { message, complete, page }, ask)
    }

    /// The queue has said what some of a page's envelopes are.
    fn listed(
        &mut self,
        message: Option<MessageId>,
        complete: bool,
        mut page: Vec<(EnvelopeId, Place)>,
        looked_at: usize,
        found: &[Envelope],
    ) -> Step {
        let rest = page.split_off(looked_at.min(page.len()));
        // An answer to nothing would be asked for for ever.
        let Some((end, _)) = page.last().copied() else { return finish(Reply::Unavailable) };
        let replies = pieces(page, found);
        if !rest.is_empty() {
            let ask = Ask::Envelopes(rest.iter().map(|(id, _)| *id).collect());
            return self.ask(replies, Work::ListEnvelopes { message, complete, page: rest }, ask);
        }
        let ask = Ask::Places { message, after: Some(end), count: PAGE };
        self.ask(replies, Work::ListPlaces { message, complete }, ask)
    }
}

/// Joins places and envelopes, in pieces that fit a frame. What has gone meanwhile is left out.
fn pieces(page: Vec<(EnvelopeId, Place)>, found: &[Envelope]) -> Vec<Reply> {
    let places: HashMap<EnvelopeId, Place> = page.into_iter().collect();
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    let mut weight = 0;
    for envelope in found {
        let Some(place) = places.get(&envelope.id).copied() else { continue };
        let summary = Summary::from(envelope);
        weight += summary.weight();
        piece.push(ListedEnvelope { summary, place });
        if weight >= PIECE {
            pieces.push(Reply::Listing(std::mem::take(&mut piece)));
            weight = 0;
        }
    }
    if !piece.is_empty() {
        pieces.push(Reply::Listing(piece));
    }
    pieces
}

fn finish(reply: Reply) -> Step {
    Step { replies: vec![reply], next: Next::Read }
}

const fn close() -> Step {
    Step { replies: Vec::new(), next: Next::Close }
}

#[cfg(test)]
mod tests;
