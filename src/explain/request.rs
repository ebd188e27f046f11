//! The message that is asked about: `from=a@b src=192.0.2.1 rcpt=c@d`.
//!
//! Source: smtpd(8) on `--explain`. Addresses are those that MAIL and RCPT would take
//! ([`crate::proto::address`]).

use std::net::IpAddr;

use crate::config::{Config, Endpoint, LocalAddress};
use crate::lookup::address::Address;
use crate::lookup::rules::{Client, Session};
use crate::model::{Mailbox, ReversePath};
use crate::proto::address::{Charset, forward_path, reverse_path};

/// What is to be explained.
#[derive(Clone, Debug)]
pub struct Request {
    /// What rules are told of the session.
    pub session: Session,
    /// The sender.
    pub sender: ReversePath,
    /// The recipients, in order; at least one.
    pub recipients: Vec<Mailbox>,
}

/// Why the words ask for nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// Not an address that the server would take.
    #[error("{key}={value}: not a mail address")]
    Address {
        /// The word before the `=`.
        key: &'static str,
        /// What stands after it.
        value: String,
    },
    /// Not an IP address.
    #[error("src={0}: not an IP address; `local` is this machine's socket")]
    Client(String),
    /// Nobody to explain the way to.
    #[error("--explain needs rcpt=ADDRESS")]
    NoRecipient,
    /// What may be said once was said twice.
    #[error("{0}= is given twice")]
    Twice(&'static str),
    /// No `key=value`, or an unknown key.
    #[error("{0}: not one of auth= from= helo= rcpt= rdns= src= tag= tls")]
    Unknown(String),
}

/// The words as given.
#[derive(Debug, Default)]
struct Words<'a> {
    auth: Option<&'a str>,
    from: Option<&'a str>,
    helo: Option<&'a str>,
    rcpt: Vec<&'a str>,
    rdns: Option<&'a str>,
    src: Option<&'a str>,
    tag: Option<&'a str>,
    tls: bool,
}

impl Request {
    /// Reads the words after `--explain`. Without `src` the message is one that a program of this
    /// machine submits; an address without a domain belongs to this server.
    ///
    /// # Errors
    /// Names the word that is wrong.
    pub fn parse(words: &[String], config: &Config) -> Result<Self, RequestError> {
        let words = Words::of(words)?;
        let domain = &config.server_name;
        let sender = match words.from {
            None => ReversePath::NULL,
            Some(text) => complete(text, |path| reverse_path(path, domain, Charset::Utf8).ok())
                .ok_or_else(|| RequestError::Address { key: "from", value: text.to_owned() })?,
        };
        let recipients: Vec<Mailbox> = words
            .rcpt
            .iter()
            .map(|text| {
                complete(text, |path| forward_path(path, domain, Charset::Utf8).ok())
                    .ok_or_else(|| RequestError::Address { key: "rcpt", value: (*text).to_owned() })
            })
            .collect::<Result<_, _>>()?;
        if recipients.is_empty() {
            return Err(RequestError::NoRecipient);
        }
        Ok(Self { session: words.session(config, &sender)?, sender, recipients })
    }
}

impl<'a> Words<'a> {
    fn of(given: &'a [String]) -> Result<Self, RequestError> {
        let mut words = Self::default();
        for word in given {
            let unknown = || RequestError::Unknown(word.clone());
            let (key, value) = match word.split_once('=') {
                Some(parts) => parts,
                None if word == "tls" => ("tls", ""),
                None => return Err(unknown()),
            };
            let (name, slot) = match key {
                "auth" => ("auth", &mut words.auth),
                "from" => ("from", &mut words.from),
                "helo" => ("helo", &mut words.helo),
                "rdns" => ("rdns", &mut words.rdns),
                "src" => ("src", &mut words.src),
                "tag" => ("tag", &mut words.tag),
                "rcpt" => {
                    words.rcpt.push(value);
                    continue;
                }
                "tls" if value.is_empty() => {
                    words.tls = true;
                    continue;
                }
                _ => return Err(unknown()),
            };
            if slot.replace(value).is_some() {
                return Err(RequestError::Twice(name));
            }
        }
        Ok(words)
    }

    fn session(&self, config: &Config, sender: &ReversePath) -> Result<Session, RequestError> {
        let client = match self.src {
            None | Some("local") => Client::Socket,
            Some(text) => {
                let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
                let address: IpAddr = inner
                    .unwrap_or(text)
                    .parse()
                    .map_err(|_| RequestError::Client(text.to_owned()))?;
                Client::Address(LocalAddress::from(address))
            }
        };
        let local = client == Client::Socket;
        let socket = config.listeners.iter().find(|one| one.endpoint == Endpoint::Socket);
        let tag = match (self.tag, socket) {
            (Some(tag), _) => tag.to_owned(),
            (None, Some(listener)) if local => listener.tag.clone(),
            (None, _) => String::new(),
        };
        let login = match self.auth {
            Some(user) => Some(user.to_owned()),
            // What this machine submits counts as logged in.
            None => local.then(String::new),
        };
        let sender = sender.0.as_ref();
        Ok(Session {
            tag,
            client,
            client_name: self.rdns.map(str::to_owned),
            helo: self.helo.unwrap_or_default().to_owned(),
            login,
            tls: self.tls,
            sender: sender.map(|m| Address::new(m.local(), m.domain())).unwrap_or_default(),
        })
    }
}

/// Reads an address with or without its angle brackets.
fn complete<'a, T: 'a>(text: &str, read: impl FnOnce(&[u8]) -> Option<(T, &[u8])>) -> Option<T> {
    let bracketed = if text.starts_with('<') { text.to_owned() } else { format!("<{text}>") };
    read(bracketed.as_bytes()).filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::good;

    fn parse(words: &[&str]) -> Result<Request, RequestError> {
        let config = good("listen on socket tag HERE\nmatch reject");
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Request::parse(&words, &config)
    }

    #[test]
    fn a_message_without_a_client_is_submitted_on_this_machine() {
        let request = parse(&["rcpt=bob"]).unwrap();
        assert_eq!(request.recipients, [Mailbox::parse("bob@mail.example.org").unwrap()]);
        assert!(request.sender.is_null() && request.session.client == Client::Socket);
        assert_eq!(request.session.login.as_deref(), Some(""));
        assert_eq!(request.session.tag, "HERE");
    }

    #[test]
    fn words_say_what_rules_may_ask() {
        let words = ["from=<a@b.c>", "src=[2001:db8::1]", "helo=h", "auth=u", "tag=T", "tls"];
        let request = parse(&[&words[..], &["rdns=n.x", "rcpt=x@y.z", "rcpt=<v@w>"]].concat());
        let Request { session, sender, recipients } = request.unwrap();
        let client = "2001:db8::1".parse::<IpAddr>().unwrap();
        assert_eq!(session.client, Client::Address(client.into()));
        assert_eq!(sender.as_str(), "a@b.c");
        assert_eq!(session.sender, Address::new("a", "b.c"));
        assert_eq!((session.helo.as_str(), session.tag.as_str()), ("h", "T"));
        assert_eq!(session.login.as_deref(), Some("u"));
        assert_eq!(session.client_name.as_deref(), Some("n.x"));
        assert!(session.tls && recipients.len() == 2);
        assert_eq!(parse(&["src=192.0.2.1", "rcpt=a@b"]).unwrap().session.login, None);
    }

    #[test]
    fn a_word_that_means_nothing_is_named() {
        let cases = [
            (&["from=a@b"][..], "--explain needs rcpt=ADDRESS"),
            (&["rcpt=a b@c"], "rcpt=a b@c: not a mail address"),
            (&["rcpt="], "rcpt=: not a mail address"),
            (&["from=a{b@c", "rcpt=a@b"], "from=a{b@c: not a mail address"),
            (&["rcpt=<a@b> x"], "rcpt=<a@b> x: not a mail address"),
            (
                &["src=localhost", "rcpt=a@b"],
                "src=localhost: not an IP address; `local` is this machine's socket",
            ),
            (&["tag=a", "tag=b", "rcpt=a@b"], "tag= is given twice"),
            (&["rcpt"], "rcpt: not one of auth= from= helo= rcpt= rdns= src= tag= tls"),
            (&["to=a@b"], "to=a@b: not one of auth= from= helo= rcpt= rdns= src= tag= tls"),
        ];
        for (words, expected) in cases {
            assert_eq!(parse(words).unwrap_err().to_string(), expected, "{words:?}");
        }
    }
}
