//! Tasks for the tests of outgoing mail.

use std::sync::Arc;

use super::body::Body;
use super::task::Task;
use crate::model::Envelope;
pub use crate::model::fixture::relay_envelope as envelope;

/// The message `body` to `recipients`.
pub fn task(recipients: &[&str], body: &[u8]) -> Task {
    let envelopes: Vec<Envelope> =
        recipients.iter().zip(1..).map(|(recipient, low)| envelope(low, recipient)).collect();
    let sender = envelopes[0].origin.sender.clone();
    Task { sender, envelopes, smtputf8: false, body: Body::Memory(Arc::from(body)) }
}
