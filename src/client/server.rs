//! The argument of `smtp -s`: `[proto://[user:pass@]]host[:port]`.
//!
//! Source: smtp(1). Credentials need a protocol before them, as `user:pass@host` could be meant
//! otherwise.

use crate::config::Secret;

/// The longest host, in bytes.
const MAX_HOST: usize = 255;

/// A server, and how to speak to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// The dialogue.
    pub protocol: Protocol,
    /// Whether it is encrypted.
    pub encryption: Encryption,
    /// What to log in with.
    pub credentials: Option<Credentials>,
    /// A name or an address; without the brackets around an address.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

/// The dialogue that a server speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// RFC 2033: one reply a recipient after the message.
    Lmtp,
    /// RFC 5321.
    Smtp,
}

/// When a connection is encrypted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encryption {
    /// From the first byte.
    Immediate,
    /// Never.
    Never,
    /// By STARTTLS, where it is offered.
    Offered,
    /// By STARTTLS, or nothing is sent.
    Required,
}

/// A user and a password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Credentials {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// Why a text names no server.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ServerError {
    /// A user without a colon and a password.
    #[error("invalid credentials")]
    Credentials,
    /// No host, or what cannot be one.
    #[error("invalid host")]
    Host,
    /// Neither a number from 1 to 65535 nor a service that the system knows.
    #[error("invalid port {0}")]
    Port(String),
    /// An unknown protocol.
    #[error("invalid url scheme {0}")]
    Scheme(String),
}

impl Default for Server {
    /// `smtp://localhost`
    fn default() -> Self {
        Self {
            protocol: Protocol::Smtp,
            encryption: Encryption::Offered,
            credentials: None,
            host: "localhost".to_owned(),
            port: 25,
        }
    }
}

impl Server {
    /// Reads the argument. `service` knows ports by name.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn parse(
        text: &str,
        service: impl FnOnce(&str) -> Option<u16>,
    ) -> Result<Self, ServerError> {
        let mut server = Self::default();
        let mut rest = text;
        if let Some((scheme, after)) = text.split_once("://") {
            (server.protocol, server.encryption) =
                scheme_of(scheme).ok_or_else(|| ServerError::Scheme(scheme.to_owned()))?;
            rest = after;
            // The last: passwords may hold others.
            if let Some((login, host)) = after.rsplit_once('@') {
                let (user, password) = login.split_once(':').ok_or(ServerError::Credentials)?;
                let password = Secret::from(password.to_owned());
                server.credentials = Some(Credentials { user: user.to_owned(), password });
                rest = host;
            }
        }
        let (host, port) = split(rest)?;
        server.host = host.to_owned();
        server.port = match port {
            Some(port) => {
                let known = port.parse().ok().filter(|number| *number != 0);
                let known = known.or_else(|| service(port));
                known.ok_or_else(|| ServerError::Port(port.to_owned()))?
            }
            None if server.encryption == Encryption::Immediate => 465,
            None => 25,
        };
        Ok(server)
    }
}

fn scheme_of(name: &str) -> Option<(Protocol, Encryption)> {
    Some(match name {
        "lmtp" => (Protocol::Lmtp, Encryption::Offered),
        "lmtp+notls" => (Protocol::Lmtp, Encryption::Never),
        "lmtp+tls" => (Protocol::Lmtp, Encryption::Required),
        "smtp" => (Protocol::Smtp, Encryption::Offered),
        "smtp+notls" => (Protocol::Smtp, Encryption::Never),
        "smtp+tls" => (Protocol::Smtp, Encryption::Required),
        "smtps" => (Protocol::Smtp, Encryption::Immediate),
        _ => return None,
    })
}

/// Host, without brackets, and port.
fn split(text: &str) -> Result<(&str, Option<&str>), ServerError> {
    let (host, after) = match text.strip_prefix('[') {
        Some(inside) => inside.split_once(']').ok_or(ServerError::Host)?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
    if host.is_empty() || host.len() > MAX_HOST || !host.bytes().all(is_host) {
        return Err(ServerError::Host);
    }
    match after.strip_prefix(':') {
        None if after.is_empty() => Ok((host, None)),
        None => Err(ServerError::Host),
        Some(port) => Ok((host, Some(port))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_case;

    fn parse(text: &str) -> Result<Server, ServerError> {
        Server::parse(text, |name| (name == "submission").then_some(587))
    }

    #[test]
    fn servers_that_are_understood() {
        use Encryption::{Immediate, Never, Offered, Required};
        use Protocol::{Lmtp, Smtp};
        let cases = [
            ("mx.example.org", Smtp, Offered, "mx.example.org", 25),
            ("127.0.0.1:2526", Smtp, Offered, "127.0.0.1", 2526),
            ("smtp://mx:submission", Smtp, Offered, "mx", 587),
            ("smtp+tls://mx", Smtp, Required, "mx", 25),
            ("smtp+notls://[::1]", Smtp, Never, "::1", 25),
            ("smtps://[fe80::1%eth0]:4650", Smtp, Immediate, "fe80::1%eth0", 4650),
            ("smtps://mx", Smtp, Immediate, "mx", 465),
            ("lmtp://mx:24", Lmtp, Offered, "mx", 24),
            ("lmtp+tls://mx:24", Lmtp, Required, "mx", 24),
            ("lmtp+notls://mx:24", Lmtp, Never, "mx", 24),
        ];
        for (text, protocol, encryption, host, port) in cases {
            let host = host.to_owned();
            let expected = Server { protocol, encryption, credentials: None, host, port };
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_user_and_a_password_stand_before_the_host() {
        let server = parse("smtps://alice:p:a@ss@mx").unwrap();
        let Credentials { user, password } = server.credentials.unwrap();
        assert_eq!(
            (user.as_str(), password.reveal(), server.host.as_str()),
            ("alice", "p:a@ss", "mx")
        );
    }

    // queue case 207
    #[test]
    fn servers_that_are_refused() {
        let cases = [
            ("foo://h", "invalid url scheme foo"),
            ("SMTP://h", "invalid url scheme SMTP"),
            ("smtps://alice@mx", "invalid credentials"),
            ("alice:pass@mx", "invalid port pass@mx"),
            ("", "invalid host"),
            ("smtp://", "invalid host"),
            ("smtp://:25", "invalid host"),
            ("[::1", "invalid host"),
            ("[::1]25", "invalid host"),
            ("a b", "invalid host"),
            ("mx/path", "invalid host"),
            ("mx:", "invalid port "),
            ("mx:0", "invalid port 0"),
            ("mx:65536", "invalid port 65536"),
            ("mx:nosuch", "invalid port nosuch"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text}");
        }
        spec_case::ran("queue", 207);
    }
}
