//! Delivery reports on their way: gathered, composed, submitted as mail from `<>`.
//!
//! What a report says is [`super::bounce`]'s business. Envelopes with the same key that become due
//! within a second share one report.

use std::collections::HashMap;
use std::time::Duration;

use super::bounce::{BounceGroup, GroupKey, compose};
use super::intake::reply;
use super::role::{Event, Queue};
use super::store::{StoreError, StoredBody};
use crate::ipc::blob::Blob;
use crate::ipc::link::{LinkError, Reply, Responder};
use crate::ipc::message::queue::{BodyPiece, DispatcherToQueue, QueueToDispatcher, Report};
use crate::ipc::message::scheduler::{End, QueueToScheduler};
use crate::model::Envelope;
use crate::model::outcome::Outcome;
use crate::time::{local_zone, time_to_text};

/// How long envelopes are gathered for one report.
const GATHERING: Duration = Duration::from_secs(1);
/// Bytes of a body in one frame.
pub(super) const PIECE: usize = 48 * 1024;
/// A message above this is not returned whole.
const MAX_RETURNED: u64 = 4 * 1024 * 1024;
/// Stands in for the headers of a message that cannot be read (RFC 5322, section 3.6.5).
const NO_HEADERS: &[u8] = b"Comments: the message is damaged, its headers are not available\n";
/// Bytes of a file that must hold all headers of a message.
const HEADERS: usize = 256 * 1024;

/// Reports that are gathered or on their way.
#[derive(Debug, Default)]
pub(super) struct Reports {
    gathering: HashMap<GroupKey, Gathered>,
    under_way: HashMap<u64, Vec<u8>>,
    next: u64,
}

/// One report that is gathered.
#[derive(Debug)]
struct Gathered {
    group: BounceGroup,
    envelopes: Vec<Envelope>,
}

impl Queue {
    /// Gathers a due bounce envelope.
    pub(super) fn report(&mut self, envelope: Envelope) {
        let id = envelope.id;
        let (Some(key), Some(group)) = (GroupKey::of(&envelope), BounceGroup::new(&envelope))
        else {
            // A bounce without a sender to report to cannot be made; one found is dropped.
            self.store.done(id);
            self.ended(id, End::Removed);
            return;
        };
        if let Some(gathered) = self.reports.gathering.get_mut(&key) {
            gathered.group.add(&envelope);
            gathered.envelopes.push(envelope.clone());
        } else {
            let gathered = Gathered { group, envelopes: vec![envelope.clone()] };
            self.reports.gathering.insert(key.clone(), gathered);
            let events = self.events.clone();
            tokio::spawn(async move {
                tokio::time::sleep(GATHERING).await;
                let _ended =
                    events.send(Event::Go(Box::new(move |queue| queue.compose_report(&key))));
            });
        }
        self.releases.begin(envelope);
    }

    fn compose_report(&mut self, key: &GroupKey) {
        let Some(gathered) = self.reports.gathering.remove(key) else { return };
        let done = self.then(move |queue, body: Result<StoredBody, StoreError>| match body {
            Ok(body) => {
                let original = original_of(body, gathered.group.key.whole);
                queue.submit_report(gathered, &original);
            }
            // It will never be read again: who waits for the report gets it without the copy.
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::warn!("warn: queue: report without a copy: {error}");
                queue.submit_report(gathered, NO_HEADERS);
            }
            Err(error) => {
                tracing::warn!("warn: queue: report: {error}");
                queue.fail_report(&gathered.envelopes);
            }
        });
        self.store.load_body(key.message, done);
    }

    fn submit_report(&mut self, gathered: Gathered, original: &[u8]) {
        let (Some(dispatcher), Ok(boundary)) = (self.dispatcher.clone(), getrandom::u64()) else {
            self.return_report(&gathered.envelopes);
            return;
        };
        let date = time_to_text(jiff::Timestamp::now(), &local_zone());
        let text = compose(&gathered.group, original, boundary, &date);
        self.reports.next += 1;
        let report = self.reports.next;
        let request = QueueToDispatcher::Report(Report {
            report,
            smtp_name: gathered.group.key.smtp_name.clone(),
            recipient: gathered.group.to.clone(),
            size: text.len() as u64,
        });
        self.reports.under_way.insert(report, text);
        let events = self.events.clone();
        tokio::spawn(async move {
            let answer = dispatcher.request(&request, None).await;
            let step = move |queue: &mut Self| queue.reported(report, &gathered, answer);
            let _ended = events.send(Event::Go(Box::new(step)));
        });
    }

    fn reported(
        &mut self,
        report: u64,
        gathered: &Gathered,
        answer: Result<Reply<DispatcherToQueue>, LinkError>,
    ) {
        self.reports.under_way.remove(&report);
        match answer {
            Ok((DispatcherToQueue::Outcome(Outcome::Delivered { .. }), _)) => {
                self.end_report(&gathered.envelopes, End::Delivered);
            }
            Ok((DispatcherToQueue::Outcome(Outcome::Permanent(failure)), _)) => {
                let count = gathered.envelopes.len();
                tracing::warn!(
                    "warn: PermFail injecting failure report on message {} to <{}> for {count} \
                     envelope{}: {}",
                    gathered.group.key.message,
                    gathered.group.to,
                    if count == 1 { "" } else { "s" },
                    failure.text
                );
                self.end_report(&gathered.envelopes, End::Permanent);
            }
            Ok((DispatcherToQueue::Outcome(Outcome::Temporary(failure)), _)) => {
                for envelope in &gathered.envelopes {
                    self.settle(envelope.id, Outcome::Temporary(failure.clone()));
                }
            }
            Err(LinkError::Closed) => self.lose_report(&gathered.envelopes),
            Ok(_) | Err(LinkError::Frame(_) | LinkError::Refused) => {
                self.fail_report(&gathered.envelopes);
            }
        }
    }

    fn end_report(&mut self, envelopes: &[Envelope], end: End) {
        for envelope in envelopes {
            self.releases.end(envelope.id);
            self.store.done(envelope.id);
            self.ended(envelope.id, end);
        }
    }

    /// Nothing became of the report, and nobody knows why: a failure.
    fn fail_report(&mut self, envelopes: &[Envelope]) {
        for envelope in envelopes {
            self.releases.end(envelope.id);
            self.failed(envelope.id);
        }
    }

    /// The report was not tried: due again at once.
    fn return_report(&mut self, envelopes: &[Envelope]) {
        for envelope in envelopes {
            self.releases.end(envelope.id);
        }
        self.give_back(envelopes.iter().map(|envelope| envelope.id).collect());
    }

    /// Takes back what went down with the dispatcher.
    fn lose_report(&mut self, envelopes: &[Envelope]) {
        for envelope in envelopes {
            self.releases.lose(envelope.id);
        }
        let ids = envelopes.iter().map(|envelope| envelope.id).collect();
        self.tell_scheduler(QueueToScheduler::Returned(ids));
    }

    /// Hands out a piece of a report that the dispatcher submits.
    pub(super) fn load_report(
        &self,
        report: u64,
        offset: u64,
        answer: Responder<QueueToDispatcher, DispatcherToQueue>,
    ) {
        let piece = self
            .reports
            .under_way
            .get(&report)
            .map_or(BodyPiece::Absent, |text| piece_of(text, offset));
        reply(answer, &QueueToDispatcher::Body(piece));
    }
}

/// What of the original message the report may return.
fn original_of(body: StoredBody, whole: bool) -> Vec<u8> {
    match body {
        StoredBody::Inline(bytes) => bytes,
        StoredBody::Large { file, size } => {
            let wanted = if whole && size <= MAX_RETURNED { size } else { HEADERS as u64 };
            let mut bytes = Vec::new();
            // What cannot be read is missing from the copy; the report still goes out.
            let read =
                std::io::Read::read_to_end(&mut std::io::Read::take(file, wanted), &mut bytes);
            if let Err(error) = read {
                tracing::warn!("warn: queue: report without a copy: {error}");
            }
            bytes
        }
    }
}

/// A piece of `bytes` from `offset` on.
pub(super) fn piece_of(bytes: &[u8], offset: u64) -> BodyPiece {
    let size = bytes.len() as u64;
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let end = start.saturating_add(PIECE).min(bytes.len());
    let piece = bytes.get(start..end).unwrap_or_default();
    BodyPiece::Inline { size, bytes: Blob(piece.to_vec()) }
}
