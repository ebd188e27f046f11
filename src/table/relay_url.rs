//! Relay URLs: `[SCHEME://][LABEL@]HOST[:PORT]`, which name a smart host.
//!
//! Source: smtpd.conf(5), `relay host`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::dns::address_literal;
use crate::model::mailbox::MAX_DOMAIN;

/// A smart host and how to speak to it.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct RelayUrl {
    /// Protocol and encryption.
    pub scheme: Scheme,
    /// Which credentials to log in with.
    pub label: Option<String>,
    /// A name, or an address in brackets.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

/// Protocol and encryption of a smart host.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Scheme {
    /// `lmtp`: LMTP without encryption.
    Lmtp,
    /// `smtp` or none: STARTTLS where it is offered.
    Smtp,
    /// `smtp+notls`: never encrypted.
    SmtpNoTls,
    /// `smtp+tls`: STARTTLS, verified, or nothing.
    SmtpTls,
    /// `smtps`: TLS from the first byte, verified.
    Smtps,
}

/// A text is no relay URL.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a relay URL")]
pub struct BadRelayUrl;

impl RelayUrl {
    /// Reads a URL. Text after the host that does not begin with a colon is ignored.
    ///
    /// # Errors
    /// [`BadRelayUrl`]: an unknown scheme, a label that the scheme does not allow, no valid host, no
    /// valid port, or `lmtp` without a port.
    pub fn parse(text: &str) -> Result<Self, BadRelayUrl> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Scheme::parse(scheme).ok_or(BadRelayUrl)?, rest),
            None => (Scheme::Smtp, text),
        };
        let (label, rest) = rest.split_once('@').unwrap_or(("", rest));
        if !label.is_empty() && !scheme.demands_tls() {
            return Err(BadRelayUrl);
        }
        let (host, rest) = split_host(rest).ok_or(BadRelayUrl)?;
        let port = match rest.strip_prefix(':') {
            Some(port) => parse_port(port),
            None => scheme.default_port(),
        };
        Ok(Self {
            scheme,
            label: (!label.is_empty()).then(|| label.to_owned()),
            host: host.to_owned(),
            port: port.ok_or(BadRelayUrl)?,
        })
    }
}

/// The canonical form: always with scheme and port.
impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.name())?;
        if let Some(label) = &self.label {
            write!(f, "{label}@")?;
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Scheme {
    /// The port of SMTP.
    pub const SMTP_PORT: u16 = 25;
    const SMTPS_PORT: u16 = 465;
    const ALL: [Self; 5] = [Self::Lmtp, Self::Smtp, Self::SmtpNoTls, Self::SmtpTls, Self::Smtps];

    /// Its name in a URL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lmtp => "lmtp",
            Self::Smtp => "smtp",
            Self::SmtpNoTls => "smtp+notls",
            Self::SmtpTls => "smtp+tls",
            Self::Smtps => "smtps",
        }
    }

    /// Whether mail may go only through TLS.
    #[must_use]
    pub fn demands_tls(self) -> bool {
        matches!(self, Self::SmtpTls | Self::Smtps)
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scheme| scheme.name().eq_ignore_ascii_case(name))
    }

    fn default_port(self) -> Option<u16> {
        match self {
            Self::Lmtp => None,
            Self::Smtp | Self::SmtpNoTls | Self::SmtpTls => Some(Self::SMTP_PORT),
            Self::Smtps => Some(Self::SMTPS_PORT),
        }
    }
}

/// The host at the beginning of `text`, and the rest.
fn split_host(text: &str) -> Option<(&str, &str)> {
    let end = if text.starts_with('[') {
        text.find(']')? + 1
    } else {
        let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        text.find(|c| !part(c)).unwrap_or(text.len())
    };
    let (host, rest) = text.split_at(end);
    is_host(host).then_some((host, rest))
}

/// Whether this is an address in brackets, or a name: labels of 1 to 63 bytes without a hyphen at
/// either end.
fn is_host(host: &str) -> bool {
    if host.starts_with('[') {
        return address_literal(host).is_some();
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.len() <= MAX_DOMAIN && host.split('.').all(is_label)
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|&port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_case;

    #[test]
    fn relay_urls() {
        use Scheme::*;
        let label = "x".repeat(64);
        let long = ["x"; 129].join(".");
        let cases = [
            (200, "mx.example.org", Some((Smtp, None, "mx.example.org", 25))),
            (0, "SMTP://mx", Some((Smtp, None, "mx", 25))),
            (0, "smtp+notls://mx", Some((SmtpNoTls, None, "mx", 25))),
            (201, "smtp+tls://l@mx:587", Some((SmtpTls, Some("l"), "mx", 587))),
            (202, "smtps://user@[::1]:4650", Some((Smtps, Some("user"), "[::1]", 4650))),
            (203, "smtps://a@b@mx", Some((Smtps, Some("a"), "b", 465))),
            (204, "lmtp://mx:24", Some((Lmtp, None, "mx", 24))),
            (204, "lmtp://mx", None),
            (205, "smtp://l@mx", None),
            (205, "l@mx", None),
            (205, "lmtp://l@mx:24", None),
            (205, "smtp+notls://l@mx", None),
            (206, "mx:0", None),
            (206, "mx:65536", None),
            (0, "mx:+25", None),
            (206, "mx:abc", None),
            (206, "mx:25/x", None),
            (0, "mx:", None),
            (206, "::1", None),
            (206, "[mx]", None),
            (0, "[::1", None),
            (206, "mx.", None),
            (206, "-mx", None),
            (206, "", None),
            (0, "foo://x", None),
            (0, "://x", None),
            (0, "smtp://", None),
            (0, "a..b", None),
            (0, "mx-", None),
            (0, &label, None),
            (0, &label[1..], Some((Smtp, None, &label[1..], 25))),
            (0, &long, None),
            (0, &long[2..], Some((Smtp, None, &long[2..], 25))),
            (0, "smtp://127.0.0.1:2525", Some((Smtp, None, "127.0.0.1", 2525))),
            (0, "smtps://mx", Some((Smtps, None, "mx", 465))),
            (207, "mx/foo", Some((Smtp, None, "mx", 25))),
            (207, "[127.0.0.1]:25", Some((Smtp, None, "[127.0.0.1]", 25))),
            (0, "[IPv6:::1]", Some((Smtp, None, "[IPv6:::1]", 25))),
            (207, "_mx", Some((Smtp, None, "_mx", 25))),
            (207, "smtps://@mx", Some((Smtps, None, "mx", 465))),
        ];
        for (number, text, expected) in cases {
            let expected = expected
                .map(|(scheme, label, host, port)| RelayUrl {
                    scheme,
                    label: label.map(str::to_owned),
                    host: host.to_owned(),
                    port,
                })
                .ok_or(BadRelayUrl);
            assert_eq!(RelayUrl::parse(text), expected, "config case {number}: {text:?}");
            if let Ok(url) = expected {
                assert_eq!(RelayUrl::parse(&url.to_string()), Ok(url), "{text:?}");
            }
            spec_case::ran("config", number);
        }
    }
}
