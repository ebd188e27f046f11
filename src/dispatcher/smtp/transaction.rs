//! One message on its way in: sender, recipients, body.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::action::{Commit, Lease, Recipient, Refusal, RequestId};
use super::chunking::Chunks;
use crate::ipc::seal::Sealed;
use crate::model::envelope::{Origin, RecipientDsn, Smtputf8};
use crate::model::{EnvelopeId, Mailbox};

/// What a session knows from MAIL to the end of the data.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) lease: Lease,
    pub(super) origin: Arc<Origin>,
    pub(super) recipients: Vec<Recipient>,
    /// Low half of the last envelope id.
    low: u32,
    /// Whether a filter has marked the message as spam.
    pub(super) junk: bool,
    /// The part of the body that the shell has not taken.
    pub(super) body: Vec<u8>,
    /// Bytes that the shell has taken.
    pub(super) spilled: u64,
    /// Content that comes by BDAT, once it has begun.
    pub(super) chunks: Option<Chunks>,
    /// Why the body cannot be stored.
    pub(super) refusal: Option<Refusal>,
}

impl Transaction {
    pub(super) fn new(lease: Lease, origin: Origin) -> Self {
        Self {
            low: (lease.nonce >> 32) as u32,
            lease,
            origin: Arc::new(origin),
            recipients: Vec::new(),
            junk: false,
            body: Vec::new(),
            spilled: 0,
            chunks: None,
            refusal: None,
        }
    }

    /// Adds a recipient, and numbers its envelopes.
    pub(super) fn accept(&mut self, address: Mailbox, dsn: RecipientDsn, routes: Vec<Sealed>) {
        let envelopes = routes.into_iter().map(|route| (self.next_envelope(), route)).collect();
        self.recipients.push(Recipient { address, dsn, envelopes });
    }

    /// Notes whether the headers so far are in ASCII.
    pub(super) fn note_headers(&mut self, ascii: bool) {
        if !ascii && self.origin.smtputf8 == Smtputf8::Addresses {
            Arc::make_mut(&mut self.origin).smtputf8 = Smtputf8::Headers;
        }
    }

    fn next_envelope(&mut self) -> EnvelopeId {
        self.low = self.low.wrapping_add(1).max(1);
        self.lease.id.envelope(NonZeroU32::new(self.low).unwrap_or(NonZeroU32::MIN))
    }

    /// Drops what is there of the body. Returns whether the shell has pieces of it.
    pub(super) fn drop_body(&mut self) -> bool {
        self.body = Vec::new();
        std::mem::take(&mut self.spilled) > 0
    }

    pub(super) fn into_commit(self, request: RequestId) -> Commit {
        Commit {
            request,
            message: self.lease.id,
            origin: self.origin,
            recipients: self.recipients,
            body: self.body,
            spilled: self.spilled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::envelope::Source;
    use crate::model::{MessageId, ReversePath};

    #[test]
    fn envelope_numbers_differ_and_are_never_zero() {
        let origin = Origin {
            sender: ReversePath::NULL,
            smtp_name: String::new(),
            helo: String::new(),
            hostname: String::new(),
            username: String::new(),
            source: Source::Local,
            tag: String::new(),
            authenticated: true,
            ret: None,
            envid: None,
            smtputf8: Smtputf8::default(),
        };
        let lease = Lease { id: MessageId::new(1).unwrap(), nonce: u64::MAX };
        let mut transaction = Transaction::new(lease, origin);
        let seal = crate::ipc::seal::Key::new([0; 32]).seal(&1_u8).unwrap();
        for _ in 0..2 {
            let address = Mailbox::parse("c@d").unwrap();
            transaction.accept(address, RecipientDsn::default(), vec![seal.clone(); 2]);
        }
        let numbers: Vec<u64> = transaction
            .recipients
            .iter()
            .flat_map(|r| r.envelopes.iter().map(|(id, _)| id.get()))
            .collect();
        assert_eq!(numbers, [0x1_0000_0001, 0x1_0000_0002, 0x1_0000_0003, 0x1_0000_0004]);
    }
}
