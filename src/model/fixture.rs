//! Envelopes for tests.

use super::envelope::{Origin, Progress, RecipientDsn, Route, Smtputf8, Source};
use super::{DeliveryKind, Envelope, EnvelopeId, Mailbox};

/// Envelope number `low` of message 1, from `sender@md.test` to `recipient` through the relay action.
pub fn relay_envelope(low: u64, recipient: &str) -> Envelope {
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
