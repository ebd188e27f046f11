//! What a session has to do with the filters of its listener or of its `relay` action.
//!
//! Events gather and are told together, in order and always before the next question: programs are
//! woken once for all of them.

use std::future::Future;
use std::pin::Pin;

use jiff::Timestamp;

use super::Filters;
use crate::config::FilterId;
use crate::dispatcher::smtp::{Answer, FilterLines, FilterQuestion, FilteredLines, RequestId};
use crate::filter::engine::{Beginning, Flow, Reply, Wants};
use crate::filter::{Decision, Direction, Event, Fcrdns};
use crate::model::dns::Confirmed;
use crate::model::envelope::Source;
use crate::proto::reply::INTERNAL_ERROR;

/// Bytes of events from which on they are told, whatever comes next.
const ENOUGH: usize = 16 * 1024;
/// What an event may take besides the line in it, in bytes.
const EVENT: usize = 700;

/// An answer that is on its way.
pub type Pending<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// The two ends of a connection, as `link-connect` has them.
#[derive(Clone, Debug)]
pub struct Ends {
    /// The client.
    pub source: String,
    /// The server.
    pub destination: String,
}

/// One session, seen by its filters.
pub struct FilterLink {
    filters: Filters,
    /// Whether the filters know of the session.
    known: bool,
    session: u64,
    filter: FilterId,
    direction: Direction,
    ends: Ends,
    /// Whether anything is to be told.
    wants_events: bool,
    events: Vec<(u64, Event)>,
    size: usize,
}

impl FilterLink {
    /// Filters that know nothing of the session yet.
    #[must_use]
    pub fn new(
        filters: Filters,
        session: u64,
        filter: FilterId,
        direction: Direction,
        ends: Ends,
    ) -> Self {
        Self {
            filters,
            known: false,
            session,
            filter,
            direction,
            ends,
            wants_events: true,
            events: Vec::new(),
            size: 0,
        }
    }

    /// Has the filters begin; what comes back is what they want to know.
    pub fn begin(
        &mut self,
        hostname: String,
        confirmed: Confirmed,
        source: Source,
    ) -> impl Future<Output = Option<Wants>> + Send + 'static + use<> {
        let fcrdns = match confirmed {
            Confirmed::Pass => Fcrdns::Pass,
            Confirmed::Fail => Fcrdns::Fail,
            Confirmed::Error => Fcrdns::Error,
        };
        let (filter, direction) = (self.filter, self.direction);
        let beginning = Beginning { filter, direction, hostname: hostname.clone(), fcrdns, source };
        let reply = self.filters.begin(self.session, beginning);
        self.known = true;
        self.note(Event::LinkConnect {
            hostname,
            fcrdns,
            source: self.ends.source.clone(),
            destination: self.ends.destination.clone(),
        });
        async move {
            match reply.await {
                Ok(Reply::Wants(wants)) => Some(wants),
                Ok(_) | Err(_) => None,
            }
        }
    }

    /// Notes what the filters want to know.
    pub fn begun(&mut self, wants: Wants) {
        self.wants_events = wants.events;
        if !wants.events {
            self.events = Vec::new();
        }
    }

    /// Tells the filters something, at the latest with the next question.
    pub fn report(&mut self, event: Event) {
        if !self.wants_events {
            return;
        }
        self.note(event);
        if self.size >= ENOUGH {
            self.flush();
        }
    }

    /// Asks about a phase.
    pub fn ask(&mut self, question: FilterQuestion) -> Pending<'static> {
        self.flush();
        let FilterQuestion { request, phase, parameter } = question;
        let reply = self.filters.ask(self.session, phase, parameter);
        Box::pin(async move {
            let decision = match reply.await {
                Ok(Reply::Decision(decision)) => decision,
                Ok(_) | Err(_) => Decision::Disconnect(INTERNAL_ERROR.to_owned()),
            };
            Answer::Filtered(request, decision)
        })
    }

    /// Passes lines through the filters.
    pub fn pass(&mut self, lines: FilterLines) -> Pending<'static> {
        self.flush();
        let FilterLines { request, lines } = lines;
        let reply = self.filters.lines(self.session, lines);
        Box::pin(async move {
            let filtered = match reply.await {
                Ok(Reply::Lines { taken, output, flow }) => FilteredLines { taken, output, flow },
                Ok(_) | Err(_) => {
                    FilteredLines { taken: 0, output: Vec::new(), flow: Flow::Broken }
                }
            };
            Answer::FilteredLines(request, filtered)
        })
    }

    /// Tells the events that have gathered.
    pub fn flush(&mut self) {
        if self.events.is_empty() {
            return;
        }
        self.size = 0;
        let events = std::mem::take(&mut self.events);
        if self.known {
            self.filters.events(self.session, &events);
        }
    }

    fn note(&mut self, event: Event) {
        let now = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default();
        self.size += EVENT
            + match &event {
                Event::ProtocolClient(line) | Event::ProtocolServer(line) => line.len(),
                _ => 0,
            };
        self.events.push((now, event));
    }
}

impl Drop for FilterLink {
    /// However the session ends, its filters are told so.
    fn drop(&mut self) {
        if !self.known {
            return;
        }
        let (filters, session) = (self.filters.clone(), self.session);
        let last = std::mem::take(&mut self.events);
        let tell = move || {
            filters.events(session, &last);
            filters.end(session);
        };
        // A second panic would end the process.
        if std::thread::panicking() {
            tokio::spawn(async move { tell() });
        } else {
            tell();
        }
    }
}

/// The answer about the start of the filters.
#[must_use]
pub fn begun(
    request: RequestId,
    wants: impl Future<Output = Option<Wants>> + Send + 'static,
) -> Pending<'static> {
    Box::pin(async move { Answer::Filters(request, wants.await) })
}
