//! The text form of an envelope, as `smtpctl show envelope` prints it.
//!
//! One `name: value` a line, in a fixed order; a field whose text is empty is left out, numbers
//! are always there. It is the form in which the reference stored envelopes; ours are records of
//! the spool, and nothing reads this form back.
//!
//! Sources: the queue page of the specification, 1.6; cases 9 to 16 and 24.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::model::Envelope;
use crate::model::envelope::{BounceKind, DeliveryKind, Exec, LocalDelivery, Ret, Smtputf8};

/// Version of the form.
const VERSION: u32 = 3;
/// What `ttl` says of a report: a week, in seconds.
const BOUNCE_TTL: i64 = 604_800;

/// The lines of `envelope`, each with its line end; `held` says why it is held, if it is.
#[must_use]
pub fn text(envelope: &Envelope, held: Option<&str>) -> String {
    let mut out = String::new();
    for (name, value) in fields(envelope, held) {
        // Writing to a String cannot fail.
        let _ = match value {
            Field::Number(number) => writeln!(out, "{name}: {number}"),
            Field::Text(text) => writeln!(out, "{name}: {}", one_line(&text)),
        };
    }
    out
}

/// The same fields as one JSON object and a line end.
#[must_use]
pub fn json(envelope: &Envelope, held: Option<&str>) -> String {
    let mut members = Map::new();
    members.insert("id".to_owned(), envelope.id.to_string().into());
    for (name, value) in fields(envelope, held) {
        let value: Value = match value {
            Field::Number(number) => number.into(),
            Field::Text(text) => text.into(),
        };
        members.insert(name.to_owned(), value);
    }
    format!("{}\n", Value::Object(members))
}

enum Field {
    Number(i64),
    Text(String),
}

/// Collects fields; those with empty text are dropped.
#[derive(Default)]
struct Fields(Vec<(&'static str, Field)>);

impl Fields {
    fn text(&mut self, name: &'static str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.0.push((name, Field::Text(value)));
        }
    }

    fn number(&mut self, name: &'static str, value: impl Into<i64>) {
        self.0.push((name, Field::Number(value.into())));
    }

    /// A number that may be above the range of the form; it is capped.
    fn seconds(&mut self, name: &'static str, value: u64) {
        self.number(name, i64::try_from(value).unwrap_or(i64::MAX));
    }
}

fn fields(envelope: &Envelope, held: Option<&str>) -> Vec<(&'static str, Field)> {
    let Envelope { origin, route, dsn, progress, .. } = envelope;
    let mut out = Fields::default();
    out.number("version", VERSION);
    out.text("dispatcher", route.action.as_str());
    out.text("tag", origin.tag.as_str());
    let (kind, ttl) = match route.kind {
        DeliveryKind::Bounce(_) => ("bounce", BOUNCE_TTL),
        DeliveryKind::Local(_) => ("mda", 0),
        DeliveryKind::Relay => ("mta", 0),
    };
    out.text("type", kind);
    out.text("smtpname", origin.smtp_name.as_str());
    out.text("helo", origin.helo.as_str());
    out.text("hostname", origin.hostname.as_str());
    out.text("username", origin.username.as_str());
    out.text("errorline", progress.error.as_str());
    out.text("sockaddr", origin.source.to_string());
    out.text("sender", if origin.sender.is_null() { "@" } else { origin.sender.as_str() });
    out.text("rcpt", route.recipient.as_str());
    out.text("dest", route.destination.as_str());
    out.number("ctime", progress.created);
    out.number("last-try", progress.last_try);
    out.number("last-bounce", progress.last_bounce);
    out.number("ttl", ttl);
    out.number("retry", progress.retries);
    out.text("flags", flags(envelope));
    out.number("dsn-notify", dsn.notify.0);
    out.text(
        "dsn-ret",
        match origin.ret {
            None => "",
            Some(Ret::Full) => "FULL",
            Some(Ret::Headers) => "HDRS",
        },
    );
    out.text("dsn-envid", origin.envid.as_deref().unwrap_or_default());
    out.text("dsn-orcpt", dsn.orcpt.as_deref().unwrap_or_default());
    if let Some(status) = progress.status {
        out.number("esc-class", status.class);
        out.number("esc-code", i64::from(status.subject) * 10 + i64::from(status.detail));
    }
    match &route.kind {
        DeliveryKind::Bounce(bounce) => bounce_fields(&mut out, *bounce),
        DeliveryKind::Local(local) => local_fields(&mut out, local),
        DeliveryKind::Relay => {}
    }
    // Ours: it is no field of what is stored.
    out.text("held-because", held.unwrap_or_default());
    out.0
}

fn flags(envelope: &Envelope) -> String {
    let flags = [
        (envelope.origin.authenticated, "authenticated"),
        (envelope.route.internal, "internal"),
        (envelope.origin.smtputf8 != Smtputf8::Absent, "smtputf8"),
    ];
    let set: Vec<&str> = flags.iter().filter_map(|(holds, name)| holds.then_some(*name)).collect();
    set.join(" ")
}

fn local_fields(out: &mut Fields, local: &LocalDelivery) {
    let exec = match &local.exec {
        None => String::new(),
        Some(Exec::Command(command)) => format!("|{}", command.trim_start_matches('|')),
        Some(Exec::File(path)) => path.clone(),
    };
    out.text("mda-exec", exec);
    out.text("mda-subaddress", local.subaddress.as_str());
    out.text("mda-user", local.user.as_str());
}

fn bounce_fields(out: &mut Fields, bounce: BounceKind) {
    let name = match bounce {
        BounceKind::Delayed { delay, ttl } => {
            out.seconds("bounce-ttl", ttl);
            out.seconds("bounce-delay", delay);
            "delayed"
        }
        BounceKind::Delivered | BounceKind::Relayed => "delivered",
        BounceKind::Failed => "failed",
    };
    out.text("bounce-type", name);
}

/// Texts of peers hold no line ends once stored; a record that was damaged must not forge a field.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::envelope::{Notify, Origin, Progress, RecipientDsn, Route, Smtputf8, Source};
    use crate::model::outcome::EnhancedStatus;
    use crate::model::{Mailbox, ReversePath};

    fn envelope() -> Envelope {
        let mailbox = |text| Mailbox::parse(text).unwrap();
        Envelope {
            id: "f85ab57f43bf07fc".parse().unwrap(),
            origin: Origin {
                sender: mailbox("bob@md.test").into(),
                smtp_name: "mx.test".into(),
                helo: "localhost".into(),
                hostname: "mx.test".into(),
                username: String::new(),
                source: Source::Local,
                tag: String::new(),
                authenticated: true,
                ret: Some(Ret::Headers),
                envid: Some("envid1".into()),
                smtputf8: Smtputf8::default(),
            },
            route: Route {
                recipient: mailbox("alice@f75.test"),
                destination: mailbox("alice@f75.test"),
                action: "fail75".into(),
                kind: DeliveryKind::Local(LocalDelivery {
                    user: "alice".into(),
                    exec: None,
                    subaddress: String::new(),
                }),
                internal: false,
            },
            dsn: RecipientDsn::default(),
            progress: Progress {
                created: 1_795_289_588,
                retries: 1,
                error: "\"temporary trouble\"".into(),
                status: Some(EnhancedStatus::new(4, 3, 0)),
                ..Progress::default()
            },
        }
    }

    // queue cases 9, 11, 13 and 16, and the second example of 1.6.
    #[test]
    fn a_local_delivery_is_written_field_by_field() {
        let expected = "\
            version: 3\ndispatcher: fail75\ntype: mda\nsmtpname: mx.test\nhelo: localhost\n\
            hostname: mx.test\nerrorline: \"temporary trouble\"\nsockaddr: local\n\
            sender: bob@md.test\nrcpt: alice@f75.test\ndest: alice@f75.test\nctime: 1795289588\n\
            last-try: 0\nlast-bounce: 0\nttl: 0\nretry: 1\nflags: authenticated\ndsn-notify: 0\n\
            dsn-ret: HDRS\ndsn-envid: envid1\nesc-class: 4\nesc-code: 30\nmda-user: alice\n";
        assert_eq!(text(&envelope(), None), expected);
    }

    // queue cases 10, 11, 12, 14 and 24.
    #[test]
    fn fields_follow_what_the_envelope_says() {
        let mut envelope = envelope();
        envelope.origin.sender = ReversePath::NULL;
        envelope.origin.ret = None;
        envelope.origin.envid = None;
        envelope.route.kind = DeliveryKind::Relay;
        envelope.route.internal = true;
        envelope.dsn.notify = Notify(Notify::SUCCESS | Notify::FAILURE);
        envelope.dsn.orcpt = Some("rfc822;a@b".into());
        envelope.progress.status = Some(EnhancedStatus::new(4, 0, 0));
        envelope.progress.error = "Network error\nsender: x@y".into();
        let text = text(&envelope, None);
        for line in [
            "type: mta",
            "sender: @",
            "flags: authenticated internal",
            "dsn-notify: 3",
            "dsn-orcpt: rfc822;a@b",
            "esc-class: 4",
            "esc-code: 0",
            "errorline: Network error sender: x@y",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        for name in ["tag:", "username:", "dsn-ret:", "dsn-envid:", "mda-"] {
            assert!(!text.lines().any(|one| one.starts_with(name)), "{name}\n{text}");
        }
        envelope.progress.status = None;
        assert!(!super::text(&envelope, None).contains("esc-"));
    }

    #[test]
    fn a_delay_report_names_its_delay() {
        let mut envelope = envelope();
        envelope.route.kind =
            DeliveryKind::Bounce(BounceKind::Delayed { delay: 14_400, ttl: u64::MAX });
        let text = text(&envelope, None);
        let expected =
            "bounce-ttl: 9223372036854775807\nbounce-delay: 14400\nbounce-type: delayed\n";
        assert!(text.ends_with(expected), "{text}");
        assert!(text.contains("type: bounce\n") && text.contains("ttl: 604800\n"), "{text}");
    }

    #[test]
    fn json_has_the_fields_and_the_id() {
        let object: Value = serde_json::from_str(&json(&envelope(), None)).unwrap();
        assert_eq!(object["id"], "f85ab57f43bf07fc");
        assert_eq!(object["mda-user"], "alice");
        assert_eq!(object["retry"], 1);
    }

    #[test]
    fn the_reason_of_a_hold_comes_last() {
        let text = text(&envelope(), Some("held: x\ny"));
        assert!(text.ends_with("mda-user: alice\nheld-because: held: x y\n"), "{text}");
    }
}
