//! Delivery reports: when one is due, which envelopes share one, and its text.
//!
//! Everything here is a function of its arguments. The queue stores bounce envelopes and decides
//! when a group is complete; the dispatcher submits the text as a message with a null sender.
//!
//! Sources: the queue page of the specification, section 4; RFC 3461 (what a client may ask for),
//! RFC 3462 (`multipart/report`), RFC 3464 (`message/delivery-status`), RFC 3834, RFC 6533 (what is
//! not in ASCII).
//! Limits: none of its own; the caller bounds the number of envelopes in a group.

mod text;

use crate::model::envelope::{BounceKind, Notify, Ret, Smtputf8};
use crate::model::outcome::EnhancedStatus;
use crate::model::{DeliveryKind, Envelope, EnvelopeId, Mailbox, MessageId};

pub use text::{Copied, Report, compose};

/// What happened to an envelope, as far as its sender may want to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// Still not delivered.
    Delayed {
        /// Seconds of the warning interval that passed.
        delay: u64,
        /// Seconds that the message stays in the queue in all.
        ttl: u64,
    },
    /// In a mailbox.
    Delivered,
    /// Given up: refused, expired, or going round in circles.
    Failed,
    /// Taken over by another server.
    Relayed {
        /// Whether that server was told what the client asked for and will report itself.
        dsn_relayed: bool,
    },
}

/// Whether a report is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Nobody asked for one, or the next server sends it.
    NotWanted,
    /// One is due.
    Report(BounceKind),
    /// One would be due but cannot be sent: worth a warning in the log.
    Undeliverable(NoReport),
}

/// Why a report that is due cannot be sent; the text of its warning.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoReport {
    /// The envelope is a report itself.
    #[error("queue: double bounce!")]
    DoubleBounce,
    /// The sender is null.
    #[error("queue: no return path!")]
    NoReturnPath,
}

/// Whether a report about `envelope` is due after `cause` (RFC 3461, section 4.1: a client that
/// names conditions is told of those alone).
#[must_use]
pub fn decide(envelope: &Envelope, cause: Cause) -> Decision {
    let notify = envelope.dsn.notify;
    if notify.has(Notify::NEVER) {
        return Decision::NotWanted;
    }
    let (wanted, kind) = match cause {
        Cause::Delayed { delay, ttl } => (notify.wants_delay(), BounceKind::Delayed { delay, ttl }),
        Cause::Delivered => (notify.has(Notify::SUCCESS), BounceKind::Delivered),
        Cause::Failed => (notify.wants_failure(), BounceKind::Failed),
        Cause::Relayed { dsn_relayed } => {
            (notify.has(Notify::SUCCESS) && !dsn_relayed, BounceKind::Relayed)
        }
    };
    if !wanted {
        return Decision::NotWanted;
    }
    if matches!(envelope.route.kind, DeliveryKind::Bounce(_)) {
        return Decision::Undeliverable(NoReport::DoubleBounce);
    }
    if envelope.origin.sender.is_null() {
        return Decision::Undeliverable(NoReport::NoReturnPath);
    }
    Decision::Report(kind)
}

/// The envelope that stands for a report about `original` until the report is sent.
///
/// It keeps the failure that `original` holds. `now` is seconds since 1970.
#[must_use]
pub fn envelope(original: &Envelope, kind: BounceKind, id: EnvelopeId, now: i64) -> Envelope {
    let mut bounce = original.clone();
    bounce.id = id;
    bounce.route.kind = DeliveryKind::Bounce(kind);
    bounce.progress.created = now;
    bounce.progress.last_try = 0;
    bounce.progress.last_bounce = 0;
    bounce.progress.retries = 0;
    bounce
}

/// What bounce envelopes must have in common to share one report.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct GroupKey {
    /// The original message.
    pub message: MessageId,
    /// The name that the report is sent under.
    pub smtp_name: String,
    /// What it says, delay and lifetime included.
    pub kind: BounceKind,
    /// Whether the client asked for the whole message back.
    pub whole: bool,
}

impl GroupKey {
    /// The key of a bounce envelope; `None` for any other kind.
    #[must_use]
    pub fn of(envelope: &Envelope) -> Option<Self> {
        let DeliveryKind::Bounce(kind) = envelope.route.kind else { return None };
        Some(Self {
            message: envelope.id.message(),
            smtp_name: envelope.origin.smtp_name.clone(),
            kind,
            whole: envelope.origin.ret == Some(Ret::Full),
        })
    }
}

/// Bounce envelopes that share one report.
#[derive(Clone, Debug, PartialEq)]
pub struct BounceGroup {
    /// What they have in common.
    pub key: GroupKey,
    /// Who gets the report: the sender of the original message.
    pub to: Mailbox,
    /// Whether the report speaks of addresses or copies headers that are not in ASCII (RFC 6533).
    pub international: bool,
    /// What is reported about each recipient, in the order in which they came.
    pub recipients: Vec<Reported>,
}

/// What a report says about one recipient.
#[derive(Clone, Debug, PartialEq)]
pub struct Reported {
    /// The bounce envelope that ends when the report is accepted.
    pub envelope: EnvelopeId,
    /// The recipient after aliases.
    pub recipient: Mailbox,
    /// Text of the failure; empty for a success.
    pub text: String,
    /// Its enhanced status.
    pub status: EnhancedStatus,
}

impl BounceGroup {
    /// A group with its first envelope; `None` unless it is a bounce with a sender to report to.
    #[must_use]
    pub fn new(envelope: &Envelope) -> Option<Self> {
        let key = GroupKey::of(envelope)?;
        let to = envelope.origin.sender.0.clone()?;
        let first = Reported::of(envelope, key.kind);
        let international = envelope.origin.smtputf8 == Smtputf8::Headers
            || !to.as_str().is_ascii()
            || !first.recipient.as_str().is_ascii();
        Some(Self { key, to, international, recipients: vec![first] })
    }

    /// The log line when the report was not accepted: the group is dropped after a permanent
    /// refusal, else tried again.
    #[must_use]
    pub fn refused(&self, is_permanent: bool, reply: &str) -> String {
        let result = if is_permanent { "PermFail" } else { "TempFail" };
        let (message, to, count) = (self.key.message, &self.to, self.recipients.len());
        let plural = if count == 1 { "" } else { "s" };
        format!(
            "warn: {result} injecting failure report on message {message} to <{to}> \
             for {count} envelope{plural}: {reply}"
        )
    }

    /// Adds an envelope with the same [`GroupKey`].
    pub fn add(&mut self, envelope: &Envelope) {
        let reported = Reported::of(envelope, self.key.kind);
        self.international |= !reported.recipient.as_str().is_ascii();
        self.recipients.push(reported);
    }
}

impl Reported {
    fn of(envelope: &Envelope, kind: BounceKind) -> Self {
        let progress = &envelope.progress;
        let (text, status) = match kind {
            BounceKind::Delivered | BounceKind::Relayed => {
                (String::new(), EnhancedStatus::new(2, 0, 0))
            }
            BounceKind::Delayed { .. } => {
                (progress.error.clone(), progress.status.unwrap_or(EnhancedStatus::new(4, 0, 0)))
            }
            BounceKind::Failed => {
                (progress.error.clone(), progress.status.unwrap_or(EnhancedStatus::new(5, 0, 0)))
            }
        };
        Self { envelope: envelope.id, recipient: envelope.route.destination.clone(), text, status }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::ReversePath;
    use crate::model::fixture::relay_envelope;

    use super::*;

    const DELAYED: Cause = Cause::Delayed { delay: 14_400, ttl: 345_600 };

    // queue case 122, and RFC 3461 for every set of conditions
    #[test]
    fn a_report_is_due_when_the_client_wants_it() {
        let report = Decision::Report;
        let delayed = report(BounceKind::Delayed { delay: 14_400, ttl: 345_600 });
        let relayed = Cause::Relayed { dsn_relayed: false };
        let passed_on = Cause::Relayed { dsn_relayed: true };
        let no = Decision::NotWanted;
        let cases = [
            (0, Cause::Failed, report(BounceKind::Failed)),
            (0, DELAYED, delayed),
            (0, Cause::Delivered, no),
            (0, relayed, no),
            (Notify::NEVER, Cause::Failed, no),
            (Notify::NEVER, DELAYED, no),
            (Notify::NEVER, Cause::Delivered, no),
            (Notify::SUCCESS, Cause::Failed, no),
            (Notify::SUCCESS, DELAYED, no),
            (Notify::SUCCESS, Cause::Delivered, report(BounceKind::Delivered)),
            (Notify::SUCCESS, relayed, report(BounceKind::Relayed)),
            (Notify::SUCCESS, passed_on, no),
            (Notify::FAILURE, Cause::Failed, report(BounceKind::Failed)),
            (Notify::FAILURE, DELAYED, no),
            (Notify::DELAY, Cause::Failed, no),
            (Notify::DELAY, DELAYED, delayed),
            (Notify::SUCCESS | Notify::FAILURE, Cause::Failed, report(BounceKind::Failed)),
        ];
        for (bits, cause, expected) in cases {
            let mut envelope = relay_envelope(1, "a@example.org");
            envelope.dsn.notify = Notify(bits);
            assert_eq!(decide(&envelope, cause), expected, "{bits} {cause:?}");
        }
    }

    // queue cases 46 and 121
    #[test]
    fn reports_about_reports_and_to_nobody_are_refused() {
        let mut bounce = relay_envelope(1, "a@example.org");
        bounce.route.kind = DeliveryKind::Bounce(BounceKind::Failed);
        let double = decide(&bounce, Cause::Failed);
        assert_eq!(double, Decision::Undeliverable(NoReport::DoubleBounce));

        let mut anonymous = relay_envelope(1, "a@example.org");
        anonymous.origin.sender = ReversePath::NULL;
        for cause in [Cause::Failed, DELAYED] {
            let none = decide(&anonymous, cause);
            assert_eq!(none, Decision::Undeliverable(NoReport::NoReturnPath), "{cause:?}");
        }
        assert_eq!(NoReport::DoubleBounce.to_string(), "queue: double bounce!");
        assert_eq!(NoReport::NoReturnPath.to_string(), "queue: no return path!");
    }

    #[test]
    fn a_bounce_envelope_starts_anew_and_keeps_the_failure() {
        let mut original = relay_envelope(1, "a@example.org");
        original.progress.created = 5;
        original.progress.retries = 7;
        original.progress.last_try = 9;
        original.progress.error = "550 no".into();
        let id = EnvelopeId::new(0x1_0000_0009).unwrap();
        let bounce = envelope(&original, BounceKind::Failed, id, 1_000);
        assert_eq!(bounce.id, id);
        assert_eq!(bounce.route.kind, DeliveryKind::Bounce(BounceKind::Failed));
        assert_eq!((bounce.progress.created, bounce.progress.last_try), (1_000, 0));
        assert_eq!((bounce.progress.retries, bounce.progress.error.as_str()), (0, "550 no"));
    }

    // queue cases 119 and 120: what is equal shares a report, when is the queue's decision
    #[test]
    fn envelopes_share_a_report_only_if_it_would_say_the_same() {
        let of = |change: fn(&mut Envelope)| {
            let mut one = relay_envelope(1, "a@example.org");
            one.route.kind = DeliveryKind::Bounce(BounceKind::Failed);
            change(&mut one);
            GroupKey::of(&one)
        };
        let base = of(|_| {});
        assert!(base.is_some());
        assert_eq!(of(|e| e.route.destination = Mailbox::parse("b@example.org").unwrap()), base);
        assert_eq!(of(|e| e.origin.ret = Some(Ret::Headers)), base);
        let different: [fn(&mut Envelope); 5] = [
            |e| e.id = EnvelopeId::new(0x2_0000_0001).unwrap(),
            |e| e.origin.smtp_name = "other.test".into(),
            |e| e.origin.ret = Some(Ret::Full),
            |e| e.route.kind = DeliveryKind::Bounce(BounceKind::Relayed),
            |e| e.route.kind = DeliveryKind::Bounce(BounceKind::Delayed { delay: 1, ttl: 2 }),
        ];
        for (index, change) in different.into_iter().enumerate() {
            assert_ne!(of(change), base, "{index}");
        }
        assert_eq!(of(|e| e.route.kind = DeliveryKind::Relay), None);
    }

    // queue case 125
    #[test]
    fn a_refused_report_is_logged_with_what_it_was_about() {
        let mut one = relay_envelope(1, "a@example.org");
        one.route.kind = DeliveryKind::Bounce(BounceKind::Failed);
        let mut group = BounceGroup::new(&one).unwrap();
        let text = "injecting failure report on message 00000001 to <sender@md.test> for";
        let alone = group.refused(true, "550 no");
        assert_eq!(alone, format!("warn: PermFail {text} 1 envelope: 550 no"));
        group.add(&one);
        let both = group.refused(false, "451 later");
        assert_eq!(both, format!("warn: TempFail {text} 2 envelopes: 451 later"));
    }
}
