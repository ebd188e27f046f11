//! Relay URLs: `[scheme://][label@]host[:port]` (queue page of the specification, 3.2).
//!
//! A URL is read when mail is routed, since tables may hold any text. Schemes that demand TLS are
//! understood here; who may use them is the caller's decision.

use crate::model::dns::address_literal;
use crate::model::mailbox::MAX_DOMAIN;

/// A smart host and how it is spoken to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RelayUrl {
    /// Dialogue and use of TLS.
    pub scheme: Scheme,
    /// Key into the credentials table.
    pub label: Option<String>,
    /// Host name, or an address literal with its brackets.
    pub host: String,
    /// Port connected to, never 0.
    pub port: u16,
}

/// Dialogue and use of TLS.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Scheme {
    /// LMTP over TCP, without TLS.
    Lmtp,
    /// STARTTLS when offered.
    Smtp,
    /// TLS never.
    SmtpNoTls,
    /// STARTTLS or no mail.
    SmtpTls,
    /// TLS from the first byte.
    Smtps,
}

impl Scheme {
    /// The port of SMTP.
    pub const SMTP_PORT: u16 = 25;
    const SMTPS_PORT: u16 = 465;

    /// The scheme's name, as in URLs and logs.
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
        [Self::Lmtp, Self::Smtp, Self::SmtpNoTls, Self::SmtpTls, Self::Smtps]
            .into_iter()
            .find(|scheme| scheme.name().eq_ignore_ascii_case(name))
    }

    fn default_port(self) -> Option<u16> {
        match self {
            Self::Lmtp => None,
            Self::Smtp | Self::SmtpNoTls | Self::SmtpTls => Some(Self::SMTP_PORT),
            Self::Smtps => Some(Self::SMTPS_PORT),
        }
    }
}

/// A text is not a relay URL.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UrlError {
    /// The host is neither a name nor an address in brackets.
    #[error("the host is not valid")]
    Host,
    /// A label where no credentials are ever sent.
    #[error("a label needs smtp+tls:// or smtps://")]
    Label,
    /// The port is missing, not a number, or not between 1 and 65535.
    #[error("the port is not valid")]
    Port,
    /// Not one of the five schemes.
    #[error("the scheme is not known")]
    Scheme,
}

impl RelayUrl {
    /// Reads a relay URL. What follows the host and is not a port is ignored.
    ///
    /// # Errors
    /// Names the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = match text.split_once("://") {
            Some((name, rest)) => (Scheme::parse(name).ok_or(UrlError::Scheme)?, rest),
            None => (Scheme::Smtp, text),
        };
        let (label, rest) = match rest.split_once('@') {
            // An empty label is none.
            Some((label, rest)) => (Some(label).filter(|label| !label.is_empty()), rest),
            None => (None, rest),
        };
        if label.is_some() && !scheme.demands_tls() {
            return Err(UrlError::Label);
        }
        let (host, rest) = split_host(rest).ok_or(UrlError::Host)?;
        let port = match rest.strip_prefix(':') {
            Some(digits) => port(digits),
            None => scheme.default_port(),
        };
        Ok(Self {
            scheme,
            label: label.map(str::to_owned),
            host: host.to_owned(),
            port: port.ok_or(UrlError::Port)?,
        })
    }
}

fn port(digits: &str) -> Option<u16> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|port| *port != 0)
}

/// The host at the start of `text`, and what follows it.
fn split_host(text: &str) -> Option<(&str, &str)> {
    if let Some(inside) = text.strip_prefix('[') {
        let (host, rest) = text.split_at_checked(inside.find(']')? + 2)?;
        address_literal(host)?;
        return Some((host, rest));
    }
    let in_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let end = text.bytes().position(|b| !in_name(b)).unwrap_or(text.len());
    let (host, rest) = text.split_at_checked(end)?;
    is_host_name(host).then_some((host, rest))
}

fn is_host_name(name: &str) -> bool {
    name.len() <= MAX_DOMAIN
        && name.split('.').all(|label| {
            let edge = |b: Option<u8>| b.is_some_and(|b| b != b'-');
            label.len() <= 63 && edge(label.bytes().next()) && edge(label.bytes().last())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    // config cases 200-207
    #[test]
    fn relay_urls_that_are_understood() {
        let cases = [
            ("mx.example.org", Scheme::Smtp, None, "mx.example.org", 25),
            ("smtp://127.0.0.1:2525", Scheme::Smtp, None, "127.0.0.1", 2525),
            ("SMTP+NoTLS://mx", Scheme::SmtpNoTls, None, "mx", 25),
            ("smtp+tls://l@mx:587", Scheme::SmtpTls, Some("l"), "mx", 587),
            ("smtps://mx", Scheme::Smtps, None, "mx", 465),
            ("smtps://user@[::1]:4650", Scheme::Smtps, Some("user"), "[::1]", 4650),
            ("smtps://@mx", Scheme::Smtps, None, "mx", 465),
            ("lmtp://mx:24", Scheme::Lmtp, None, "mx", 24),
            ("mx/foo", Scheme::Smtp, None, "mx", 25),
            ("[127.0.0.1]:25", Scheme::Smtp, None, "[127.0.0.1]", 25),
            ("[IPv6:::1]", Scheme::Smtp, None, "[IPv6:::1]", 25),
            ("_mx", Scheme::Smtp, None, "_mx", 25),
        ];
        for (text, scheme, label, host, port) in cases {
            let expected =
                RelayUrl { scheme, label: label.map(Into::into), host: host.into(), port };
            assert_eq!(RelayUrl::parse(text), Ok(expected), "{text:?}");
        }
        // A second @ ends the name: the label is what stands before the first.
        let url = RelayUrl::parse("smtps://a@b@mx").unwrap();
        assert_eq!((url.label.as_deref(), url.host.as_str()), (Some("a"), "b"));
    }

    // config cases 204-206, queue cases 82 and 83
    #[test]
    fn relay_urls_that_are_refused() {
        let cases = [
            ("foo://x", UrlError::Scheme),
            ("://x", UrlError::Scheme),
            ("lmtp://mx", UrlError::Port),
            ("smtp://lab@host", UrlError::Label),
            ("l@mx", UrlError::Label),
            ("lmtp://l@mx:24", UrlError::Label),
            ("smtp+notls://l@mx", UrlError::Label),
            ("mx:0", UrlError::Port),
            ("mx:65536", UrlError::Port),
            ("mx:abc", UrlError::Port),
            ("mx:", UrlError::Port),
            ("mx:25/x", UrlError::Port),
            ("mx:+25", UrlError::Port),
            ("::1", UrlError::Host),
            ("[mx]", UrlError::Host),
            ("[::1", UrlError::Host),
            ("mx.", UrlError::Host),
            ("a..b", UrlError::Host),
            ("-mx", UrlError::Host),
            ("", UrlError::Host),
            ("smtp://", UrlError::Host),
        ];
        for (text, expected) in cases {
            assert_eq!(RelayUrl::parse(text), Err(expected), "{text:?}");
        }
    }
}
