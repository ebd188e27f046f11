//! Writing down what became of envelopes: delivered, tried again later, given up.

use std::num::NonZeroU32;
use std::time::Duration;

use super::bounce::{self, Cause, Decision};
use super::record;
use super::role::{Queue, now};
use super::store::{NewEnvelope, StoreError};
use crate::ipc::link::{LinkError, Reply};
use crate::ipc::message::queue::DispatcherToQueue;
use crate::ipc::message::scheduler::{End, QueueToScheduler};
use crate::model::envelope::BounceKind;
use crate::model::limits::STATUS_TEXT;
use crate::model::outcome::{EnhancedStatus, Failure, Outcome};
use crate::model::{DeliveryKind, Envelope, EnvelopeId};
use crate::time::duration_to_text;

/// Ends of envelopes in one frame to the scheduler.
const ENDS_IN_FRAME: usize = 2048;

/// Status of a message that went round in circles (RFC 3463, X.4.6).
const LOOP: EnhancedStatus = EnhancedStatus::new(5, 4, 6);
/// Status of an envelope that outlived its time (RFC 3463, X.4.7).
const EXPIRED: EnhancedStatus = EnhancedStatus::new(5, 4, 7);

impl Queue {
    /// Takes the answer to a delivery.
    pub(super) fn settled(
        &mut self,
        id: EnvelopeId,
        reply: Result<Reply<DispatcherToQueue>, LinkError>,
    ) {
        match reply {
            Ok((DispatcherToQueue::Outcome(outcome), _)) => self.settle(id, outcome),
            Ok((DispatcherToQueue::Held { hold_queue }, _)) => {
                if self.releases.end(id).is_some() {
                    self.tell_scheduler(QueueToScheduler::Held { id, hold_queue });
                }
            }
            // Another dispatcher tries it again.
            Err(LinkError::Closed) => {
                if self.releases.lose(id) {
                    self.tell_scheduler(QueueToScheduler::Returned(vec![id]));
                }
            }
            // The dispatcher does not say what became of the attempt.
            Ok(_) | Err(LinkError::Frame(_) | LinkError::Refused) => {
                if self.releases.end(id).is_some() {
                    self.failed(id);
                }
            }
        }
    }

    /// Writes down the outcome of an envelope in flight.
    pub(super) fn settle(&mut self, id: EnvelopeId, outcome: Outcome) {
        let Some(envelope) = self.releases.end(id) else { return };
        match outcome {
            Outcome::Delivered { dsn_relayed } => {
                let cause = match envelope.route.kind {
                    DeliveryKind::Relay => Cause::Relayed { dsn_relayed },
                    DeliveryKind::Bounce(_) | DeliveryKind::Local(_) => Cause::Delivered,
                };
                self.finish(&envelope, cause, End::Delivered);
            }
            Outcome::Loop => {
                let failure = Failure { text: "Loop detected".to_owned(), status: LOOP };
                self.give_up(envelope, failure, End::Loop);
            }
            Outcome::Permanent(failure) => self.give_up(envelope, failure, End::Permanent),
            Outcome::Temporary(failure) => self.defer(envelope, failure),
        }
    }

    /// Notes a temporary failure in the envelope.
    pub(super) fn defer(&mut self, mut envelope: Envelope, failure: Failure) {
        let id = envelope.id;
        envelope.progress.retries = envelope.progress.retries.saturating_add(1);
        envelope.progress.last_try = now();
        note_failure(&mut envelope, failure);
        let Ok(payload) = record::encode(&envelope) else { return };
        let done = self.then(move |queue, result: Result<(), StoreError>| {
            if let Err(error) = result {
                tracing::warn!("warn: queue: envelope {id} not updated: {error}");
            }
            queue.failed(id);
        });
        self.store.update(id, payload, done);
    }

    pub(super) fn give_up(&mut self, mut envelope: Envelope, failure: Failure, end: End) {
        note_failure(&mut envelope, failure);
        self.finish(&envelope, Cause::Failed, end);
    }

    /// Ends an envelope, in one step with the report about it if one is due.
    fn finish(&mut self, envelope: &Envelope, cause: Cause, end: End) {
        let id = envelope.id;
        let kind = match bounce::decide(envelope, cause) {
            Decision::Report(kind) => kind,
            Decision::NotWanted => {
                self.store.done(id);
                self.ended(id, end);
                return;
            }
            Decision::Undeliverable(reason) => {
                tracing::warn!("warn: {reason}");
                self.store.done(id);
                self.ended(id, end);
                return;
            }
        };
        let Some((report, stored)) = self.bounce_of(envelope, kind) else {
            tracing::warn!("warn: queue: cannot bounce!");
            self.store.done(id);
            self.ended(id, end);
            return;
        };
        let done = self.then(move |queue, result: Result<(), StoreError>| match result {
            Ok(()) => {
                queue.counters.bounces += 1;
                queue.ended(id, end);
                queue.add_to_scheduler(&report, false);
            }
            Err(error) => {
                // Neither was written: the envelope is tried again, and ends then.
                tracing::warn!("warn: queue: envelope {id} cannot be ended: {error}");
                queue.failed(id);
            }
        });
        self.store.replace(id, vec![stored], done);
    }

    /// The envelope of a report about `envelope`, and how it is stored.
    fn bounce_of(&self, envelope: &Envelope, kind: BounceKind) -> Option<(Envelope, NewEnvelope)> {
        let id = self.free_id(envelope.id)?;
        let report = bounce::envelope(envelope, kind, id, now());
        let payload = record::encode(&report).ok()?;
        Some((report, NewEnvelope { id, payload }))
    }

    /// An id of the same message that no envelope has.
    fn free_id(&self, like: EnvelopeId) -> Option<EnvelopeId> {
        (0..20).find_map(|_| {
            let low = NonZeroU32::new(getrandom::u32().ok()?)?;
            let id = like.message().envelope(low);
            (!self.store.known(id)).then_some(id)
        })
    }

    /// Sends a delay report, and notes in the envelope that it was sent.
    pub(super) fn warn(&mut self, mut envelope: Envelope, delay: u64) {
        let id = envelope.id;
        let interval = i64::try_from(delay).unwrap_or(i64::MAX);
        envelope.progress.last_bounce = envelope.progress.created.saturating_add(interval);
        let ttl = self.ttl_of(&envelope);
        let Ok(payload) = record::encode(&envelope) else { return };
        let updated = NewEnvelope { id, payload };
        let (report, stored) = match bounce::decide(&envelope, Cause::Delayed { delay, ttl }) {
            Decision::Report(kind) => self.bounce_of(&envelope, kind).unzip(),
            Decision::NotWanted => (None, None),
            Decision::Undeliverable(reason) => {
                tracing::warn!("warn: {reason}");
                (None, None)
            }
        };
        let done = self.then(move |queue, result: Result<(), StoreError>| match (result, report) {
            (Ok(()), Some(report)) => {
                queue.counters.bounces += 1;
                queue.add_to_scheduler(&report, false);
            }
            (Ok(()), None) => {}
            (Err(error), _) => {
                tracing::warn!("warn: queue: delay of {id} cannot be noted: {error}");
            }
        });
        self.store.extend(updated, stored.into_iter().collect(), done);
    }

    /// Gives up an envelope that has outlived its time.
    pub(super) fn expire(&mut self, envelope: Envelope) {
        log_end(&envelope, "Expire", "Envelope expired");
        let failure = Failure { text: "Envelope expired".to_owned(), status: EXPIRED };
        self.give_up(envelope, failure, End::Expired);
    }

    /// Takes out an envelope that an administrator does not want.
    pub(super) fn remove(&mut self, envelope: &Envelope) {
        log_end(envelope, "Remove", "Removed by administrator");
        let id = envelope.id;
        let done = self.then(move |queue, result: Result<(), StoreError>| match result {
            Ok(()) => queue.ended(id, End::Removed),
            Err(error) => {
                tracing::warn!("warn: queue: envelope {id} cannot be removed: {error}");
                queue.failed(id);
            }
        });
        self.store.remove(id, done);
    }

    /// Tells the scheduler that an envelope failed for now.
    pub(super) fn failed(&mut self, id: EnvelopeId) {
        self.tell_scheduler(QueueToScheduler::TemporaryFailures(vec![id]));
        self.is_back(id, true);
    }

    /// Tells the scheduler that an envelope is gone, with the others of this turn.
    pub(super) fn ended(&mut self, id: EnvelopeId, end: End) {
        self.endings.push((id, end));
        self.is_back(id, true);
    }

    /// Sends on what [`Queue::ended`] has gathered.
    pub(super) fn flush_ended(&mut self) {
        if self.endings.is_empty() {
            return;
        }
        let endings = std::mem::take(&mut self.endings);
        for some in endings.chunks(ENDS_IN_FRAME) {
            self.tell_scheduler(QueueToScheduler::Ended(some.to_vec()));
        }
    }
}

fn note_failure(envelope: &mut Envelope, failure: Failure) {
    envelope.progress.error = shortened(failure.text);
    envelope.progress.status = Some(failure.status);
}

/// The text, cut to what an envelope keeps.
fn shortened(mut text: String) -> String {
    if text.len() <= STATUS_TEXT {
        return text;
    }
    let mut end = STATUS_TEXT - 3;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push_str("...");
    text
}

fn log_end(envelope: &Envelope, word: &str, stat: &str) {
    let subsystem = match envelope.route.kind {
        DeliveryKind::Local(_) => "delivery",
        DeliveryKind::Bounce(_) | DeliveryKind::Relay => "relay",
    };
    let sender = match &envelope.origin.sender.0 {
        Some(sender) => sender.as_str(),
        None => "@",
    };
    let destination = envelope.route.destination.as_str();
    let recipient = envelope.route.recipient.as_str();
    let recipient = if recipient == destination { "-" } else { recipient };
    let age = now().saturating_sub(envelope.progress.created);
    let delay = duration_to_text(Duration::from_secs(u64::try_from(age).unwrap_or(0)));
    tracing::info!(
        "{subsystem}: {word} for {}: from=<{sender}>, to=<{destination}>, rcpt=<{recipient}>, \
         delay={delay}, stat=<{stat}>",
        envelope.id
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_status_ends_in_dots_and_is_never_cut_inside_a_character() {
        let text = shortened("ä".repeat(2000));
        assert!(text.len() <= STATUS_TEXT && text.ends_with("ä..."));
        assert_eq!(shortened("short".to_owned()), "short");
    }
}
