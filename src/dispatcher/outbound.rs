//! What the queue gives out: each delivery goes where its kind says, and its outcome back.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::forwarded::Forwarding;
use super::mda::Mda;
use super::mta::{Event, Mta, RelayJob, Release, Sink};
use super::report;
use super::shared::{Counted, Shared};
use crate::ipc::link::{Arrived, Responder};
use crate::ipc::message::queue::{Delivery, DispatcherToQueue, QueueToDispatcher};
use crate::ipc::message::scheduler::HoldRelease;
use crate::ipc::message::worker::Identity;
use crate::ipc::seal::Sealed;
use crate::model::outcome::Outcome;
use crate::model::{DeliveryKind, Envelope, EnvelopeId, MessageId};

/// How the queue is answered.
type Answer = Responder<DispatcherToQueue, QueueToDispatcher>;

/// Deliveries that are under way.
pub struct Outbound {
    shared: Arc<Shared>,
    mda: Arc<Mda>,
    mta: Mta,
    forwarding: Forwarding,
    relays: Arc<Relays>,
}

/// Relayed envelopes that are under way.
#[derive(Debug)]
struct Relays {
    shared: Arc<Shared>,
    answers: Mutex<HashMap<EnvelopeId, Answer>>,
}

impl Outbound {
    /// Nothing is under way yet.
    #[must_use]
    pub fn new(shared: &Arc<Shared>) -> Arc<Self> {
        let relays =
            Arc::new(Relays { shared: Arc::clone(shared), answers: Mutex::new(HashMap::new()) });
        let directory = Arc::new(super::directory::LookupDirectory::new(shared));
        let settings = super::relay_settings::settings_of(&shared.setup);
        let sink: Arc<Relays> = Arc::clone(&relays);
        Arc::new(Self {
            shared: Arc::clone(shared),
            mda: Mda::new(shared),
            mta: Mta::new(settings, directory, sink),
            forwarding: Forwarding::new(&shared.setup.config),
            relays,
        })
    }

    /// Deals with requests of the queue that came together.
    ///
    /// Relayed envelopes of one message go on together, so that they share a transaction.
    pub fn take(
        self: &Arc<Self>,
        arrived: impl Iterator<Item = Arrived<DispatcherToQueue, QueueToDispatcher>>,
    ) {
        let mut relayed: Vec<(MessageId, Vec<(Envelope, Answer)>)> = Vec::new();
        for Arrived { message, responder, .. } in arrived {
            match message {
                QueueToDispatcher::Deliver(delivery) => {
                    let Delivery { envelope, ticket, .. } = *delivery;
                    match (&envelope.route.kind, ticket) {
                        (DeliveryKind::Local(_), Some((identity, ticket))) => {
                            self.deliver(envelope, identity, ticket, responder);
                        }
                        (DeliveryKind::Relay, _) => {
                            let id = envelope.id.message();
                            match relayed.iter_mut().find(|(message, _)| *message == id) {
                                Some((_, envelopes)) => envelopes.push((envelope, responder)),
                                None => relayed.push((id, vec![(envelope, responder)])),
                            }
                        }
                        // A responder that is dropped tells the queue that nothing was tried.
                        _ => {}
                    }
                }
                QueueToDispatcher::Report(told) => {
                    let shared = Arc::clone(&self.shared);
                    tokio::spawn(async move {
                        let outcome = report::submit(&shared, told).await;
                        answer(responder, outcome);
                    });
                }
                // Only replies.
                _ => {}
            }
        }
        for (message, envelopes) in relayed {
            let outbound = Arc::clone(self);
            tokio::spawn(async move { outbound.relay(message, envelopes).await });
        }
    }

    fn deliver(
        self: &Arc<Self>,
        envelope: Envelope,
        identity: Identity,
        ticket: Sealed,
        responder: Answer,
    ) {
        let outbound = Arc::clone(self);
        tokio::spawn(async move {
            let shared = &outbound.shared;
            let _counted = Counted::new(&shared.counters.delivering);
            let outcome = outbound.mda.deliver(&envelope, identity, ticket).await;
            shared.bodies.attempted(envelope.id.message());
            answer(responder, outcome);
        });
    }

    async fn relay(&self, message: MessageId, envelopes: Vec<(Envelope, Answer)>) {
        let body = match self.shared.body(message).await {
            Ok(body) => body,
            Err(none) => {
                for (_, responder) in envelopes {
                    answer(responder, none.outcome());
                }
                return;
            }
        };
        let all: Vec<&Envelope> = envelopes.iter().map(|(envelope, _)| envelope).collect();
        let senders = self.forwarding.senders(&self.shared, &all).await;
        let mut jobs = Vec::with_capacity(envelopes.len());
        for ((envelope, responder), sender) in envelopes.into_iter().zip(senders) {
            match sender {
                Ok(sender) => {
                    self.relays.begin(envelope.id, responder);
                    jobs.push(RelayJob { envelope, sender, body: body.clone() });
                }
                Err(none) => answer(responder, none.outcome()),
            }
        }
        self.mta.submit(jobs);
    }
}

impl Relays {
    fn begin(&self, id: EnvelopeId, responder: Answer) {
        self.shared.counters.delivering.fetch_add(1, Ordering::Relaxed);
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(id, responder);
    }

    fn end(&self, id: EnvelopeId) -> Option<Answer> {
        let answer = self.answers.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if answer.is_some() {
            self.shared.counters.delivering.fetch_sub(1, Ordering::Relaxed);
        }
        answer
    }

    fn tell(&self, message: DispatcherToQueue) {
        let queue = self.shared.queue.clone();
        tokio::spawn(async move {
            // A queue that is gone schedules anew when it is back.
            let _gone = queue.notice(&message, None).await;
        });
    }
}

impl Sink for Relays {
    fn event(&self, event: Event) {
        match event {
            Event::Held { envelope, relay } => {
                if let Some(responder) = self.end(envelope) {
                    let held = DispatcherToQueue::Held { hold_queue: relay };
                    let _gone = responder.reply(&held, None);
                }
            }
            Event::Released { relay, release } => {
                let release = match release {
                    Release::All => HoldRelease::All,
                    Release::Count(count) => {
                        HoldRelease::Some(u32::try_from(count).unwrap_or(u32::MAX))
                    }
                    Release::Reschedule => HoldRelease::Failed,
                };
                self.tell(DispatcherToQueue::Released { hold_queue: relay, release });
            }
            Event::Retry { envelopes } => self.tell(DispatcherToQueue::Retry(envelopes)),
            Event::Settled { envelope, outcome } => {
                if let Some(responder) = self.end(envelope) {
                    self.shared.bodies.attempted(envelope.message());
                    answer(responder, outcome);
                }
            }
        }
    }
}

fn answer(responder: Answer, outcome: Outcome) {
    // A queue that is gone tries again.
    let _gone = responder.reply(&DispatcherToQueue::Outcome(outcome), None);
}
