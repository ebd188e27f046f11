//! What a `relay` action of the configuration says, and what is fixed about one relay.
//!
//! TLS and credentials get their options here when they are built.

use std::fmt;
use std::sync::Arc;

use crate::config::FilterId;
use crate::model::{Mailbox, ReversePath};
use crate::table::relay_url::{RelayUrl, Scheme};

/// A `relay` action. Two actions never share a relay, even if they differ in nothing but the name.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RelayAction {
    /// Its name in the configuration.
    pub name: String,
    /// Where mail goes.
    pub target: Target,
    /// `src`: table of source addresses.
    pub source: Option<String>,
    /// `helo`: name given in EHLO, HELO and LHLO; the server's name without it.
    pub helo: Option<String>,
    /// `helo-src`: table of names by source address; goes before `helo`.
    pub helo_source: Option<String>,
    /// `mail-from`: replaces the sender.
    pub mail_from: Option<SenderRewrite>,
    /// `filter`: what is told of its sessions.
    pub filter: Option<FilterId>,
}

/// Where an action sends mail.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Target {
    /// To those exchanges of the destination domain that are preferred to this name; without one,
    /// to the name by which we greeted the client.
    Backup(Option<String>),
    /// `domain`: to the smart host that this table gives for the destination domain.
    DomainTable(String),
    /// To the exchanges of the destination domain.
    Exchanges,
    /// `host` with one URL.
    Host(String),
    /// `host` with a table of URLs, used in rotation.
    HostTable(String),
}

/// Parts of the sender that `mail-from` replaces; `None` keeps the original's.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct SenderRewrite {
    /// Part before the `@`.
    pub local: Option<String>,
    /// Part after the `@`.
    pub domain: Option<String>,
}

impl SenderRewrite {
    /// The sender as it is announced. The null sender stays; so does one that would become invalid.
    #[must_use]
    pub fn apply(&self, sender: &ReversePath) -> ReversePath {
        let Some(mailbox) = &sender.0 else { return ReversePath::NULL };
        let local = self.local.as_deref().unwrap_or(mailbox.local());
        let domain = self.domain.as_deref().unwrap_or(mailbox.domain());
        Mailbox::new(local, domain).map_or_else(|_| sender.clone(), ReversePath::from)
    }
}

/// What makes envelopes share a relay: destination and everything that decides how it is reached.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RelayKey {
    /// Destination domain, or the smart host; lower case.
    pub domain: String,
    /// Whether `domain` is a host to be resolved by address.
    pub is_host: bool,
    /// Dialogue and use of TLS.
    pub scheme: Scheme,
    /// Port connected to.
    pub port: u16,
    /// Our own name among the exchanges (`backup`).
    pub backup: Option<String>,
    /// The action, with all its options.
    pub action: Arc<RelayAction>,
}

impl RelayKey {
    /// The relay for a smart host.
    #[must_use]
    pub fn smart_host(url: &RelayUrl, action: Arc<RelayAction>) -> Self {
        Self {
            domain: url.host.to_ascii_lowercase(),
            is_host: true,
            scheme: url.scheme,
            port: url.port,
            backup: None,
            action,
        }
    }

    /// The relay for a destination domain; `greeting` is the name by which we greeted the client.
    #[must_use]
    pub fn exchanges(domain: &str, greeting: &str, action: Arc<RelayAction>) -> Self {
        let backup = match &action.target {
            Target::Backup(name) => Some(name.as_deref().unwrap_or(greeting).to_owned()),
            _ => None,
        };
        Self {
            domain: domain.to_ascii_lowercase(),
            is_host: false,
            scheme: Scheme::Smtp,
            port: Scheme::SMTP_PORT,
            backup,
            action,
        }
    }
}

impl fmt::Display for RelayKey {
    /// `[relay:…]` as in logs and `show relays` (queue page, 3.15). `mx` marks a smart host: the
    /// word is the wrong way round, and log readers rely on it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[relay:{}", self.domain)?;
        if self.is_host {
            write!(f, ",port={}", self.port)?;
        }
        write!(f, ",{}", self.scheme.name())?;
        if self.is_host {
            f.write_str(",mx")?;
        }
        if let Some(name) = &self.backup {
            write!(f, ",backup={name}")?;
        }
        if let Some(table) = &self.action.source {
            write!(f, ",sourcetable={table}")?;
        }
        if let Some(table) = &self.action.helo_source {
            write!(f, ",helotable={table}")?;
        }
        if let Some(name) = &self.action.helo {
            write!(f, ",heloname={name}")?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(target: Target) -> RelayAction {
        RelayAction {
            name: "out".into(),
            target,
            source: None,
            helo: None,
            helo_source: None,
            mail_from: None,
            filter: None,
        }
    }

    // queue case 72
    #[test]
    fn mail_from_replaces_the_parts_that_it_gives() {
        let path = |text: &str| ReversePath::from(Mailbox::parse(text).unwrap());
        let rewrite = |local: Option<&str>, domain: Option<&str>| SenderRewrite {
            local: local.map(Into::into),
            domain: domain.map(Into::into),
        };
        let cases = [
            (rewrite(None, Some("rewritten.test")), path("bob@md.test"), "bob@rewritten.test"),
            (rewrite(Some("carol"), None), path("bob@md.test"), "carol@md.test"),
            (rewrite(Some("a"), Some("b")), path("bob@md.test"), "a@b"),
            (rewrite(None, Some("rewritten.test")), ReversePath::NULL, ""),
            (rewrite(None, Some("a b")), path("bob@md.test"), "bob@md.test"),
        ];
        for (rewrite, sender, expected) in cases {
            assert_eq!(rewrite.apply(&sender).as_str(), expected, "{rewrite:?} {sender}");
        }
    }

    #[test]
    fn relays_are_named_as_log_readers_know_them() {
        let url = RelayUrl::parse("smtp+notls://Relay.Example:2525").unwrap();
        let host = RelayKey::smart_host(&url, action(Target::Host(String::new())).into());
        assert_eq!(host.to_string(), "[relay:relay.example,port=2525,smtp+notls,mx]");

        let plain = RelayKey::exchanges("Example.org", "mx.test", action(Target::Exchanges).into());
        assert_eq!(plain.to_string(), "[relay:example.org,smtp]");

        let default = RelayKey::exchanges("a.test", "mx.test", action(Target::Backup(None)).into());
        assert_eq!(default.to_string(), "[relay:a.test,smtp,backup=mx.test]");

        let mut full = action(Target::Backup(Some("mx2.example".into())));
        full.source = Some("out".into());
        full.helo_source = Some("names".into());
        full.helo = Some("my.helo".into());
        assert_eq!(
            RelayKey::exchanges("example.org", "mx.test", full.into()).to_string(),
            "[relay:example.org,smtp,backup=mx2.example,sourcetable=out,helotable=names,\
             heloname=my.helo]"
        );
    }

    // queue case 112
    #[test]
    fn two_actions_never_share_a_relay() {
        let one = action(Target::Exchanges);
        let other = RelayAction { name: "other".into(), ..one.clone() };
        let of = |action: RelayAction| RelayKey::exchanges("example.org", "mx.test", action.into());
        assert_eq!(of(one.clone()), of(one.clone()));
        assert_ne!(of(one), of(other));
    }
}
