//! A task: envelopes of one message that go through one relay in one transaction.

use super::body::Body;
use crate::model::{Envelope, ReversePath};

/// One message and those of its envelopes that are sent together.
#[derive(Clone, Debug)]
pub struct Task {
    /// The sender that is announced, which `mail-from` may have rewritten.
    pub sender: ReversePath,
    /// At least one envelope; all of one message.
    pub envelopes: Vec<Envelope>,
    /// Whether the server must offer SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// The message.
    pub body: Body,
}
