//! Senders of forwarded mail, on relays that rewrite them (`srs`).
//!
//! The lookup role has the keys; it is asked anew with each attempt.
//!
//! Source: the SMTP page of the specification, 4.2.

use std::collections::HashMap;

use super::mta::SenderRewrite;
use super::relay_settings::sender_rewrite;
use super::shared::Shared;
use crate::config::{ActionKind, Config};
use crate::ipc::message::lookup::{DispatcherToLookup, LookupToDispatcher};
use crate::model::outcome::{EnhancedStatus, Failure, Outcome};
use crate::model::{Envelope, Mailbox, ReversePath};

/// The lookup role did not answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("Sender cannot be rewritten now")]
pub struct NoAnswer;

impl NoAnswer {
    /// What that means for an envelope.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        let status = EnhancedStatus::new(4, 3, 0);
        Outcome::Temporary(Failure { text: self.to_string(), status })
    }
}

/// The actions that rewrite senders, by name, and what `mail-from` does before.
#[derive(Debug)]
pub struct Forwarding {
    actions: HashMap<String, Option<SenderRewrite>>,
}

impl Forwarding {
    /// What the configuration says.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let rewrites = config.actions.iter().filter_map(|action| match &action.kind {
            ActionKind::Relay(relay) if relay.srs => {
                Some((action.name.clone(), sender_rewrite(relay)))
            }
            _ => None,
        });
        Self { actions: rewrites.collect() }
    }

    /// What is to be rewritten to send this envelope: the sender that would be announced, where
    /// the message goes on to another address than it came for.
    #[must_use]
    fn sender(&self, envelope: &Envelope) -> Option<Mailbox> {
        let rewrite = self.actions.get(&envelope.route.action)?;
        if envelope.route.destination == envelope.route.recipient {
            return None;
        }
        let sender = &envelope.origin.sender;
        match rewrite {
            Some(rewrite) => rewrite.apply(sender).0,
            None => sender.0.clone(),
        }
    }

    /// The sender to announce for each envelope of a message; `None` is the usual one.
    pub async fn senders(
        &self,
        shared: &Shared,
        envelopes: &[&Envelope],
    ) -> Vec<Result<Option<ReversePath>, NoAnswer>> {
        let mut senders = Vec::with_capacity(envelopes.len());
        let mut known: HashMap<String, Result<Mailbox, NoAnswer>> = HashMap::new();
        for envelope in envelopes {
            let Some(sender) = self.sender(envelope) else {
                senders.push(Ok(None));
                continue;
            };
            let recipient = envelope.route.recipient.clone();
            let name = format!("{} {}", recipient.domain(), sender);
            let answer = match known.get(&name) {
                Some(answer) => answer.clone(),
                None => {
                    let answer = ask(shared, sender, recipient).await;
                    known.insert(name, answer.clone());
                    answer
                }
            };
            senders.push(answer.map(|sender| Some(sender.into())));
        }
        senders
    }
}

async fn ask(shared: &Shared, sender: Mailbox, recipient: Mailbox) -> Result<Mailbox, NoAnswer> {
    let request = DispatcherToLookup::ForwardedSender { sender, recipient };
    match shared.lookup.request(&request, None).await {
        Ok((LookupToDispatcher::ForwardedSender(sender), _)) => Ok(sender),
        Ok(_) | Err(_) => Err(NoAnswer),
    }
}
