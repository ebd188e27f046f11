//! The text of a delivery report, with LF line ends as messages are stored.
//!
//! Programs that sort bounces key on Subject, From, the order of the parts and their Action and
//! Status lines; those are fixed (queue page of the specification, 4.4). The prose is ours.

use std::fmt::Write as _;

use memchr::memmem;

use super::BounceGroup;
use crate::model::envelope::BounceKind;

/// A report without the copy of the original: what stands before and after it, and how much of
/// the original belongs in between. For originals that are not held in memory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Everything before the copy.
    pub head: Vec<u8>,
    /// What is copied.
    pub copied: Copied,
    /// Everything after the copy.
    pub tail: Vec<u8>,
}

/// How much of the original message a report returns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Copied {
    /// The headers, up to but not including the empty line.
    Headers,
    /// All of it.
    Whole,
}

impl Copied {
    /// The part of `original`, or of a first piece of it that holds all headers.
    #[must_use]
    pub fn of(self, original: &[u8]) -> &[u8] {
        match self {
            Self::Headers if original.starts_with(b"\n") => &[],
            Self::Headers => {
                let end = memmem::find(original, b"\n\n").map_or(original.len(), |at| at + 1);
                original.get(..end).unwrap_or_default()
            }
            Self::Whole => original,
        }
    }
}

/// The whole report about `original`, a message as stored.
///
/// `boundary` is random; `date` is the text of a Date header.
#[must_use]
pub fn compose(group: &BounceGroup, original: &[u8], boundary: u64, date: &str) -> Vec<u8> {
    let report = Report::new(group, boundary, date);
    let copy = report.copied.of(original);
    let mut message = report.head;
    message.reserve_exact(copy.len() + report.tail.len() + 1);
    message.extend_from_slice(copy);
    if !message.ends_with(b"\n") {
        message.push(b'\n');
    }
    message.extend_from_slice(&report.tail);
    message
}

impl Report {
    /// The report about a group. `boundary` is random; `date` is the text of a Date header.
    ///
    /// A copy that does not end in a line end needs one before [`Report::tail`].
    #[must_use]
    pub fn new(group: &BounceGroup, boundary: u64, date: &str) -> Self {
        let name = &group.key.smtp_name;
        let boundary = format!("{boundary:>16}/{name}");
        let mut head = String::with_capacity(2048);
        // Writing to a String cannot fail.
        let _ = write_head(&mut head, group, &boundary, date);
        let whole = group.key.whole && group.key.kind == BounceKind::Failed;
        Self {
            head: head.into_bytes(),
            copied: if whole { Copied::Whole } else { Copied::Headers },
            tail: format!("\n--{boundary}--\n").into_bytes(),
        }
    }
}

fn write_head(
    out: &mut String,
    group: &BounceGroup,
    boundary: &str,
    date: &str,
) -> std::fmt::Result {
    let name = &group.key.smtp_name;
    let kind = group.key.kind;
    let word = word(kind);
    writeln!(out, "Subject: Delivery status notification: {word}")?;
    writeln!(out, "From: Mailer Daemon <MAILER-DAEMON@{name}>")?;
    writeln!(out, "To: {}", group.to)?;
    writeln!(out, "Date: {date}")?;
    writeln!(out, "MIME-Version: 1.0")?;
    writeln!(out, "Content-Type: multipart/report; report-type=delivery-status;")?;
    writeln!(out, "\tboundary=\"{boundary}\"")?;
    writeln!(out, "Auto-Submitted: auto-replied")?;
    writeln!(out, "\nThis is a MIME-encapsulated message.\n")?;

    let lines: Vec<String> = group
        .recipients
        .iter()
        .map(|reported| format!("{}: {}", reported.recipient, one_line(&reported.text)))
        .collect();
    let ascii = lines.iter().all(|line| line.is_ascii());
    writeln!(out, "--{boundary}")?;
    writeln!(out, "Content-Description: Notification")?;
    if ascii {
        writeln!(out, "Content-Type: text/plain; charset=us-ascii\n")?;
    } else {
        writeln!(out, "Content-Type: text/plain; charset=utf-8")?;
        writeln!(out, "Content-Transfer-Encoding: 8bit\n")?;
    }
    writeln!(out, "    Hello,\n")?;
    writeln!(out, "    this is the mail server {name}. Replies to this message are not read.\n")?;
    write_cause(out, kind)?;
    out.push('\n');
    for line in &lines {
        writeln!(out, "{line}")?;
    }
    out.push('\n');
    if let BounceKind::Delayed { ttl, .. } = kind {
        writeln!(out, "    This is a temporary report, nothing is lost yet. The message stays")?;
        writeln!(out, "    in the queue for up to {} and is tried again meanwhile.", span(ttl))?;
        writeln!(out, "    There is no need to send it again.\n")?;
    }
    writeln!(out, "    A copy of the original message follows.\n")?;

    writeln!(out, "--{boundary}")?;
    writeln!(out, "Content-Description: Delivery Report")?;
    // A program that knows only the older forms must not be made to read UTF-8 as ASCII.
    let (status_type, headers_type) = match group.international {
        true => ("message/global-delivery-status", "message/global-headers"),
        false => ("message/delivery-status", "text/rfc822-headers"),
    };
    writeln!(out, "Content-Type: {status_type}")?;
    write_encoding(out, group)?;
    writeln!(out, "\nReporting-MTA: dns; {name}\n")?;
    for reported in &group.recipients {
        let kind = if reported.recipient.as_str().is_ascii() { "rfc822" } else { "utf-8" };
        writeln!(out, "Final-Recipient: {kind}; {}", reported.recipient)?;
        writeln!(out, "Action: {word}")?;
        writeln!(out, "Status: {}\n", reported.status)?;
    }

    writeln!(out, "--{boundary}")?;
    writeln!(out, "Content-Description: Message headers")?;
    writeln!(out, "Content-Type: {headers_type}")?;
    write_encoding(out, group)?;
    writeln!(out)
}

/// The encoding of a part that may not be in ASCII.
fn write_encoding(out: &mut String, group: &BounceGroup) -> std::fmt::Result {
    if group.international {
        writeln!(out, "Content-Transfer-Encoding: 8bit")?;
    }
    Ok(())
}

fn write_cause(out: &mut String, kind: BounceKind) -> std::fmt::Result {
    match kind {
        BounceKind::Delayed { delay, .. } => {
            writeln!(
                out,
                "    Your message has been waiting for more than {} and is",
                span(delay)
            )?;
            writeln!(out, "    not yet delivered to these recipients:")
        }
        BounceKind::Delivered => {
            writeln!(out, "    Your message was delivered to these recipients:")
        }
        BounceKind::Failed => {
            writeln!(out, "    Your message could not be delivered, and will not be tried again,")?;
            writeln!(out, "    for these recipients:")
        }
        BounceKind::Relayed => {
            writeln!(out, "    Your message was relayed for these recipients:")
        }
    }
}

/// The word of Subject and Action.
fn word(kind: BounceKind) -> &'static str {
    match kind {
        BounceKind::Delayed { .. } => "delayed",
        BounceKind::Delivered => "delivered",
        BounceKind::Failed => "failed",
        BounceKind::Relayed => "relayed",
    }
}

/// `seconds` in its largest unit, the rest dropped: `1 hour` for 5400.
fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// A failure as one line: without the number that some local failures begin with, and without
/// control characters, which could end the line.
fn one_line(text: &str) -> String {
    let numbered = text.len() > 4 && text.starts_with(['1', '6']);
    let text = if numbered { text.get(4..).unwrap_or(text) } else { text };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use crate::model::envelope::{Ret, Smtputf8};
    use crate::model::fixture::relay_envelope;
    use crate::model::outcome::EnhancedStatus;
    use crate::model::{DeliveryKind, Envelope, Mailbox};

    use super::*;

    const ORIGINAL: &[u8] = b"From: a\nSubject: hi\n\nbody\n.dot\n";
    const DATE: &str = "Sat, 7 Nov 2026 09:05:03 +0000 (UTC)";

    fn bounce(recipient: &str, kind: BounceKind, text: &str, status: EnhancedStatus) -> Envelope {
        let mut envelope = relay_envelope(1, recipient);
        envelope.route.kind = DeliveryKind::Bounce(kind);
        envelope.progress.error = text.into();
        envelope.progress.status = Some(status);
        envelope
    }

    fn composed(envelopes: &[Envelope], original: &[u8]) -> String {
        let mut group = BounceGroup::new(&envelopes[0]).unwrap();
        envelopes[1..].iter().for_each(|envelope| group.add(envelope));
        String::from_utf8(compose(&group, original, 1_234_567_890_123_456_789, DATE)).unwrap()
    }

    fn failed(text: &str) -> Envelope {
        bounce("alice@f1.test", BounceKind::Failed, text, EnhancedStatus::new(5, 3, 0))
    }

    // queue cases 113, 117, 118
    #[test]
    fn a_failure_report_has_its_three_parts_in_order() {
        let expected = "\
Subject: Delivery status notification: failed
From: Mailer Daemon <MAILER-DAEMON@mx.test>
To: sender@md.test
Date: Sat, 7 Nov 2026 09:05:03 +0000 (UTC)
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary=\"1234567890123456789/mx.test\"
Auto-Submitted: auto-replied

This is a MIME-encapsulated message.

--1234567890123456789/mx.test
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

    Hello,

    this is the mail server mx.test. Replies to this message are not read.

    Your message could not be delivered, and will not be tried again,
    for these recipients:

alice@f1.test: \"boom\"

    A copy of the original message follows.

--1234567890123456789/mx.test
Content-Description: Delivery Report
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.test

Final-Recipient: rfc822; alice@f1.test
Action: failed
Status: 5.3.0

--1234567890123456789/mx.test
Content-Description: Message headers
Content-Type: text/rfc822-headers

From: a
Subject: hi

--1234567890123456789/mx.test--
";
        assert_eq!(composed(&[failed("\"boom\"")], ORIGINAL), expected);
    }

    // RFC 6533, sections 3, 4 and 6
    #[test]
    fn a_report_about_what_is_not_ascii_says_so() {
        let status = EnhancedStatus::new(5, 6, 7);
        let text = "SMTPUTF8 required";
        let other = bounce("ü@f1.test", BounceKind::Failed, text, status);
        let report = composed(&[failed("no"), other], ORIGINAL);
        let parts = [
            "Content-Type: message/global-delivery-status\nContent-Transfer-Encoding: 8bit\n\nRep",
            "Final-Recipient: rfc822; alice@f1.test\n",
            "Final-Recipient: utf-8; ü@f1.test\nAction: failed\nStatus: 5.6.7\n",
            "Content-Type: message/global-headers\nContent-Transfer-Encoding: 8bit\n\nFrom: a\n",
        ];
        for part in parts {
            assert!(report.contains(part), "{part}: {report}");
        }
        for change in [
            |envelope: &mut Envelope| envelope.origin.smtputf8 = Smtputf8::Headers,
            |envelope: &mut Envelope| {
                envelope.origin.sender = Mailbox::parse("é@md.test").unwrap().into();
            },
        ] {
            let mut one = failed("no");
            change(&mut one);
            assert!(composed(&[one], ORIGINAL).contains("message/global-headers"));
        }
        let mut plain = failed("no");
        plain.origin.smtputf8 = Smtputf8::Addresses;
        assert!(composed(&[plain], ORIGINAL).contains("message/delivery-status"));
    }

    // queue cases 114 and 115
    #[test]
    fn the_whole_message_comes_back_once_if_a_failure_asks_for_it() {
        let mut envelope = failed("550 no");
        envelope.origin.ret = Some(Ret::Full);
        let small = composed(std::slice::from_ref(&envelope), ORIGINAL);
        assert!(small.contains("From: a\nSubject: hi\n\nbody\n.dot\n\n--"), "{small}");

        let mut large = ORIGINAL.to_vec();
        large.extend(std::iter::repeat_n(&b"0123456789abcde\n"[..], 12_800).flatten());
        let text = composed(&[envelope], &large);
        let boundary = "--1234567890123456789/mx.test\nContent-Description: ";
        assert_eq!(text.matches(boundary).count(), 3);
        assert_eq!(text.matches("--1234567890123456789/mx.test--\n").count(), 1);
        assert!(text.ends_with("abcde\n\n--1234567890123456789/mx.test--\n"));

        let mut delayed = bounce(
            "a@b.test",
            BounceKind::Delayed { delay: 1, ttl: 2 },
            "451 x",
            EnhancedStatus::new(4, 0, 0),
        );
        delayed.origin.ret = Some(Ret::Full);
        assert!(!composed(&[delayed], ORIGINAL).contains("body"));
    }

    // queue case 116
    #[test]
    fn successes_are_reported_without_a_text() {
        let left_over = EnhancedStatus::new(4, 3, 0);
        for (kind, word) in [(BounceKind::Delivered, "delivered"), (BounceKind::Relayed, "relayed")]
        {
            let text = composed(&[bounce("alice@md.test", kind, "451 old", left_over)], ORIGINAL);
            assert!(text.starts_with(&format!("Subject: Delivery status notification: {word}\n")));
            assert!(text.contains("\nalice@md.test: \n"), "{text}");
            assert!(text.contains(&format!("\nAction: {word}\nStatus: 2.0.0\n")), "{text}");
        }
    }

    // queue case 119
    #[test]
    fn recipients_of_one_report_have_a_line_and_a_block_each() {
        let status = EnhancedStatus::new(5, 0, 0);
        let one = bounce("a@b.test", BounceKind::Failed, "550 one", status);
        let two = bounce("c@d.test", BounceKind::Failed, "550 two", status);
        let text = composed(&[one, two], ORIGINAL);
        assert!(text.contains("\na@b.test: 550 one\nc@d.test: 550 two\n"), "{text}");
        let blocks = "Final-Recipient: rfc822; a@b.test\nAction: failed\nStatus: 5.0.0\n\n\
                      Final-Recipient: rfc822; c@d.test\nAction: failed\nStatus: 5.0.0\n\n";
        assert!(text.contains(blocks), "{text}");
    }

    // queue case 124
    #[test]
    fn spans_are_given_in_their_largest_unit() {
        let cases = [
            (0, "0 seconds"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (5_400, "1 hour"),
            (7_200, "2 hours"),
            (86_400, "1 day"),
            (345_600, "4 days"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(span(seconds), expected);
        }
        let kind = BounceKind::Delayed { delay: 5_400, ttl: 345_600 };
        let delayed = bounce("a@b.test", kind, "451 later", EnhancedStatus::new(4, 0, 0));
        let text = composed(&[delayed], ORIGINAL);
        assert!(text.contains("waiting for more than 1 hour and"), "{text}");
        assert!(text.contains("in the queue for up to 4 days and"), "{text}");
        assert!(text.contains("\nAction: delayed\nStatus: 4.0.0\n"), "{text}");
    }

    #[test]
    fn a_failure_text_stays_one_line() {
        let cases = [
            ("550 no", "550 no"),
            ("150 local text", "local text"),
            ("600 x", "x"),
            ("1", "1"),
            ("a\r\nBcc: x", "a  Bcc: x"),
            ("1üü", "1üü"),
        ];
        for (text, expected) in cases {
            assert_eq!(one_line(text), expected, "{text:?}");
        }
        let text = composed(&[failed("550 Größe")], ORIGINAL);
        assert!(text.contains("charset=utf-8\nContent-Transfer-Encoding: 8bit\n"), "{text}");
    }

    #[test]
    fn a_short_boundary_is_padded_and_an_odd_original_is_closed() {
        let group = BounceGroup::new(&failed("550 no")).unwrap();
        let text = String::from_utf8(compose(&group, b"X: y", 7, DATE)).unwrap();
        assert!(text.contains("boundary=\"               7/mx.test\""), "{text}");
        assert!(text.ends_with("X: y\n\n--               7/mx.test--\n"), "{text}");
        assert_eq!(Copied::Headers.of(b"\nbody"), b"");
        assert_eq!(Copied::Headers.of(b"A: b\n\nbody"), b"A: b\n");
    }
}
