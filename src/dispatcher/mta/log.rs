//! Log lines of outgoing mail (smtp page of the specification, 6.2): an interface that log
//! analysers read.

use std::fmt;
use std::net::IpAddr;

use super::network::AddressText;
use super::session::{Class, Verdict};
use crate::model::Envelope;

pub use crate::log::system_text as system_error;

/// `… mta delivery evpid=…`: what became of one envelope.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryLine<'a> {
    /// Number of the session; 0 if there was none.
    pub session: u64,
    /// The envelope.
    pub envelope: &'a Envelope,
    /// Our own address; `None` if there was no connection.
    pub source: Option<IpAddr>,
    /// The server, or the destination domain if there was no connection.
    pub relay: &'a str,
    /// Seconds since the envelope was made.
    pub delay: u64,
    /// What became of it.
    pub verdict: &'a Verdict,
}

impl fmt::Display for DeliveryLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let envelope = self.envelope;
        let route = &envelope.route;
        write!(
            f,
            "{:016x} mta delivery evpid={} from=<{}> to=<{}>",
            self.session, envelope.id, envelope.origin.sender, route.destination
        )?;
        if route.recipient == route.destination {
            f.write_str(" rcpt=<->")?;
        } else {
            write!(f, " rcpt=<{}>", route.recipient)?;
        }
        match self.source {
            Some(source) => write!(f, " source=\"{}\"", AddressText(source))?,
            None => f.write_str(" source=\"-\"")?,
        }
        let result = match self.verdict.class {
            Class::Ok { .. } => "Ok",
            Class::NotAscii | Class::PermFail => "PermFail",
            Class::TempFail { .. } => "TempFail",
        };
        write!(f, " relay=\"{}\" delay={}", self.relay, Span(self.delay))?;
        write!(f, " result=\"{result}\" stat=\"{}\"", Quoted(&self.verdict.text))
    }
}

/// Text between quotes: a quote or backslash in it is marked, so that a server cannot forge fields.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['"', '\\']) {
            let (plain, marked) = rest.split_at(at);
            write!(f, "{plain}\\")?;
            let (special, after) = marked.split_at(1);
            f.write_str(special)?;
            rest = after;
        }
        f.write_str(rest)
    }
}

/// Seconds as `1d2h3m4s`.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let parts = [
            (self.0 / 86_400, 'd'),
            (self.0 / 3_600 % 24, 'h'),
            (self.0 / 60 % 60, 'm'),
            (self.0 % 60, 's'),
        ];
        for (count, unit) in parts {
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatcher::mta::fixture::envelope;
    use crate::model::{Mailbox, ReversePath};

    #[test]
    fn a_delivery_is_logged_as_log_readers_know_it() {
        let mut envelope = envelope(2, "c@d");
        let verdict = Verdict { class: Class::Ok { dsn_relayed: false }, text: "250 ok".into() };
        let line = DeliveryLine {
            session: 0xabc,
            envelope: &envelope,
            source: Some("127.0.0.19".parse().unwrap()),
            relay: "127.0.0.1 (localhost)",
            delay: 93_784,
            verdict: &verdict,
        };
        assert_eq!(
            line.to_string(),
            "0000000000000abc mta delivery evpid=0000000100000002 from=<sender@md.test> to=<c@d> \
             rcpt=<-> source=\"127.0.0.19\" relay=\"127.0.0.1 (localhost)\" delay=1d2h3m4s \
             result=\"Ok\" stat=\"250 ok\""
        );

        envelope.origin.sender = ReversePath::NULL;
        envelope.route.recipient = Mailbox::parse("alias@d").unwrap();
        let verdict = Verdict { class: Class::PermFail, text: r#"550 "x" \ no"#.into() };
        let line = DeliveryLine {
            session: 0,
            envelope: &envelope,
            source: None,
            relay: "d",
            delay: 0,
            verdict: &verdict,
        };
        assert_eq!(
            line.to_string(),
            "0000000000000000 mta delivery evpid=0000000100000002 from=<> to=<c@d> \
             rcpt=<alias@d> source=\"-\" relay=\"d\" delay=0s result=\"PermFail\" \
             stat=\"550 \\\"x\\\" \\\\ no\""
        );
    }

    #[test]
    fn spans_name_their_parts_that_are_not_zero() {
        let cases = [(0, "0s"), (59, "59s"), (60, "1m"), (3_601, "1h1s"), (86_400, "1d")];
        for (seconds, expected) in cases {
            assert_eq!(Span(seconds).to_string(), expected);
        }
    }
}
