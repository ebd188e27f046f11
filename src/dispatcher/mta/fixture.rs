//! Envelopes and tasks for the tests of outgoing mail.

use std::sync::Arc;

use super::body::Body;
use super::task::Task;
use crate::model::envelope::{Origin, Progress, RecipientDsn, Route, Smtputf8, Source};
use crate::model::{DeliveryKind, Envelope, EnvelopeId, Mailbox};

/// Envelope number `low` of message 1, from `sender@md.test`.
pub fn envelope(low: u64, recipient: &str) -> Envelope {
    let recipient = Mailbox::parse(recipient).unwrap();
    Envelope {
        id: EnvelopeId::new(0x1_0000_0000 + low).unwrap(),
        origin: Origin {
            sender: Mailbox::parse("sender@md.test").unwrap().into(),
            smtp_name: "mx.test".into(),
            helo: "client".into(),
            hostname: "localhost".into(),
            username: String::new(),
            source: Source::Local,
            tag: String::new(),
            authenticated: false,
            ret: None,
            envid: None,
            smtputf8: Smtputf8::default(),
        },
        route: Route {
            recipient: recipient.clone(),
            destination: recipient,
            action: "out".into(),
            kind: DeliveryKind::Relay,
            internal: false,
        },
        dsn: RecipientDsn::default(),
        progress: Progress::default(),
    }
}

/// The message `body` to `recipients`.
pub fn task(recipients: &[&str], body: &[u8]) -> Task {
    let envelopes: Vec<Envelope> =
        recipients.iter().zip(1..).map(|(recipient, low)| envelope(low, recipient)).collect();
    let sender = envelopes[0].origin.sender.clone();
    Task { sender, envelopes, smtputf8: false, body: Body::Memory(Arc::from(body)) }
}
