//! Senders of forwarded mail: rewritten on the way out, turned back when a report comes for one.
//!
//! Only the lookup role holds the keys; the dispatcher asks for each forwarded message when it is
//! about to be sent, so that the day in an address is that of the attempt. One that was taken over
//! could have any sender signed, which lets it do no more than it can: send mail to anybody.
//!
//! Source: the SMTP page of the specification, 4.2.

use jiff::Timestamp;

use crate::ipc::message::parent::SrsKeys;
use crate::model::{Mailbox, ReversePath};
use crate::proto::srs;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// The keys, and how long they hold.
#[derive(Debug)]
pub struct Rewriting {
    keys: SrsKeys,
    days: u32,
}

impl Rewriting {
    /// With these keys; `days` is how long an address can be turned back.
    #[must_use]
    pub fn new(keys: SrsKeys, days: u32) -> Self {
        Self { keys, days }
    }

    /// The sender of a message that is forwarded for `recipient`; unchanged if it cannot be
    /// rewritten.
    #[must_use]
    pub fn rewrite(&self, sender: Mailbox, recipient: &Mailbox, now: Timestamp) -> Mailbox {
        srs::rewrite(&sender, recipient.domain(), &self.keys.key, day(now)).unwrap_or(sender)
    }

    /// The address that a report is for, if it was sent to a rewritten sender. One that is not
    /// ours, or too old, is told in the log and left as it is.
    #[must_use]
    pub fn turn_back(
        &self,
        sender: &ReversePath,
        recipient: &Mailbox,
        now: Timestamp,
    ) -> Option<Mailbox> {
        if !sender.is_null() || !srs::is_rewritten(recipient.local()) {
            return None;
        }
        let keys = [Some(&self.keys.key), self.keys.backup.as_ref()];
        let keys: Vec<&str> = keys.into_iter().flatten().map(|key| key.as_str()).collect();
        match srs::turn_back(recipient, &keys, self.days, day(now)) {
            Ok(original) => Some(original),
            Err(error) => {
                let shown = crate::proto::escape::word(recipient.as_str().as_bytes());
                tracing::warn!("SRS failed to decode: {shown}: {error}");
                None
            }
        }
    }
}

/// Days since 1970.
fn day(now: Timestamp) -> i64 {
    now.as_second().div_euclid(DAY)
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::spec_case::ran;

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap()
    }

    fn rewriting(key: &str, backup: Option<&str>) -> Rewriting {
        let secret = |text: &str| Zeroizing::new(text.to_owned());
        Rewriting::new(SrsKeys { key: secret(key), backup: backup.map(secret) }, 4)
    }

    #[test]
    fn reports_alone_are_turned_back() {
        let ours = rewriting("new", Some("old"));
        let now = Timestamp::from_second(1_000_000 * DAY / 1_000 + 5).unwrap();
        let to = mailbox("alias@example.org");
        let report = ReversePath::NULL;
        for (number, key) in [(211, "new"), (212, "old")] {
            let address = rewriting(key, None).rewrite(mailbox("a@src.test"), &to, now);
            assert_eq!(address.domain(), "example.org");
            assert_eq!(ours.turn_back(&report, &address, now), Some(mailbox("a@src.test")));
            ran("smtp", number);
            let somebody = mailbox("x@y").into();
            assert_eq!(ours.turn_back(&somebody, &address, now), None);
            ran("smtp", 215);
        }
        let foreign = rewriting("other", None).rewrite(mailbox("a@src.test"), &to, now);
        assert_eq!(ours.turn_back(&report, &foreign, now), None);
        assert_eq!(ours.turn_back(&report, &mailbox("a@src.test"), now), None);
    }

    #[test]
    fn a_sender_that_cannot_be_rewritten_stays() {
        let sender = mailbox("a@[192.0.2.1]");
        let now = Timestamp::UNIX_EPOCH;
        let kept = rewriting("key", None).rewrite(sender.clone(), &mailbox("c@d"), now);
        assert_eq!(kept, sender);
    }
}
