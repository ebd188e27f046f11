//! What a connection has to do with the filters of its listener, which the lookup role hosts.
//!
//! Events gather and go in few messages, in order and always before the next question. A session
//! belongs to the lookup role that it began with: if that one is replaced, its filters know nothing
//! of the session any more, and it ends as with a broken filter.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Answer, FilterLines, FilterQuestion, FilteredLines, RequestId};
use crate::config::FilterId;
use crate::dispatcher::shared::Shared;
use crate::filter::{Decision, Direction, Event, Fcrdns};
use crate::ipc::blob::Blob;
use crate::ipc::link::Link;
use crate::ipc::message::lookup::{DispatcherToLookup, Interests, LineFlow, LookupToDispatcher};
use crate::model::dns::Confirmed;
use crate::model::envelope::Source;
use crate::proto::reply::INTERNAL_ERROR;

/// Bytes of events from which on they are sent, whatever comes next: well below a frame.
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
    shared: Arc<Shared>,
    /// The lookup role that knows of the session.
    link: Option<Link<DispatcherToLookup, LookupToDispatcher>>,
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
        shared: Arc<Shared>,
        session: u64,
        filter: FilterId,
        direction: Direction,
        ends: Ends,
    ) -> Self {
        Self {
            shared,
            link: None,
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
    pub async fn begin(
        &mut self,
        hostname: String,
        confirmed: Confirmed,
        source: Source,
    ) -> impl Future<Output = Option<Interests>> + Send + 'static + use<> {
        self.link = self.shared.lookup.link().await.ok();
        let fcrdns = match confirmed {
            Confirmed::Pass => Fcrdns::Pass,
            Confirmed::Fail => Fcrdns::Fail,
            Confirmed::Error => Fcrdns::Error,
        };
        let message = DispatcherToLookup::FilterBegin {
            session: self.session,
            filter: self.filter,
            direction: self.direction,
            hostname: hostname.clone(),
            fcrdns,
            source,
        };
        self.note(Event::LinkConnect {
            hostname,
            fcrdns,
            source: self.ends.source.clone(),
            destination: self.ends.destination.clone(),
        });
        let link = self.link.clone();
        async move {
            match link?.request(&message, None).await {
                Ok((LookupToDispatcher::FilterInterests(interests), _)) => Some(interests),
                Ok(_) | Err(_) => None,
            }
        }
    }

    /// Notes what the filters want to know.
    pub fn begun(&mut self, interests: Interests) {
        self.wants_events = interests.events;
        if !interests.events {
            self.events = Vec::new();
        }
    }

    /// Tells the filters something, at the latest with the next question.
    pub async fn report(&mut self, event: Event) {
        if !self.wants_events {
            return;
        }
        self.note(event);
        if self.size >= ENOUGH {
            self.flush().await;
        }
    }

    /// Asks about a phase.
    pub async fn ask(&mut self, question: FilterQuestion) -> Pending<'static> {
        self.flush().await;
        let FilterQuestion { request, phase, parameter } = question;
        let (link, session) = (self.link.clone(), self.session);
        Box::pin(async move {
            let parameter = Blob(parameter);
            let message = DispatcherToLookup::FilterAsk { session, phase, parameter };
            let decision = match link {
                Some(link) => match link.request(&message, None).await {
                    Ok((LookupToDispatcher::Filtered(decision), _)) => Some(decision),
                    Ok(_) | Err(_) => None,
                },
                None => None,
            };
            let broken = || Decision::Disconnect(INTERNAL_ERROR.to_owned());
            Answer::Filtered(request, decision.unwrap_or_else(broken))
        })
    }

    /// Passes lines through the filters.
    pub async fn pass(&mut self, lines: FilterLines) -> Pending<'static> {
        self.flush().await;
        let FilterLines { request, lines } = lines;
        let (link, session) = (self.link.clone(), self.session);
        Box::pin(async move {
            let message = DispatcherToLookup::FilterLines { session, lines: Blob(lines) };
            let filtered = match link {
                Some(link) => match link.request(&message, None).await {
                    Ok((LookupToDispatcher::FilterLines { taken, output, flow }, _)) => {
                        Some(FilteredLines { taken: taken as usize, output: output.0, flow })
                    }
                    Ok(_) | Err(_) => None,
                },
                None => None,
            };
            let broken = || FilteredLines { taken: 0, output: Vec::new(), flow: LineFlow::Broken };
            Answer::FilteredLines(request, filtered.unwrap_or_else(broken))
        })
    }

    /// Sends the events that have gathered.
    pub async fn flush(&mut self) {
        let Some(message) = self.gathered() else { return };
        if let Some(link) = &self.link
            && link.notice(&message, None).await.is_err()
        {
            // Whoever asks next is told.
            self.link = None;
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

    fn gathered(&mut self) -> Option<DispatcherToLookup> {
        if self.events.is_empty() {
            return None;
        }
        self.size = 0;
        let events = std::mem::take(&mut self.events);
        Some(DispatcherToLookup::FilterEvents { session: self.session, events })
    }
}

impl Drop for FilterLink {
    /// However the session ends, its filters are told so.
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        let last = self.gathered();
        let end = DispatcherToLookup::FilterEnd { session: self.session };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                for message in last.into_iter().chain([end]) {
                    // A role that is gone has forgotten.
                    let _gone = link.notice(&message, None).await;
                }
            });
        }
    }
}

/// The answer about the start of the filters.
#[must_use]
pub fn begun(
    request: RequestId,
    interests: impl Future<Output = Option<Interests>> + Send + 'static,
) -> Pending<'static> {
    Box::pin(async move { Answer::Filters(request, interests.await) })
}
