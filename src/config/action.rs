//! `action`: local deliveries and relays.

use std::time::Duration;

use super::parser::{Parsed, Parser};
use super::table::Usage;
use super::tree::{
    Action, ActionKind, LocalAction, Mapping, Method, RelayAction, SenderRewrite, Span, TableId,
    TableSource,
};
use super::value::delay;
use crate::table::relay_url::{RelayUrl, Scheme};

/// The longest name of an action, in bytes: as long as a host name.
const MAX_NAME: usize = 255;

impl Parser<'_> {
    /// `action NAME METHOD [OPTIONS] [ttl DELAY]`.
    pub(super) fn action(&mut self, span: Span) -> Parsed<()> {
        let name = self.text()?;
        if self.config.action_named(&name.text).is_some() {
            let message = format!("dispatcher already declared with that name: {}", name.text);
            return Err(self.error(name.span, message));
        }
        if name.text.len() > MAX_NAME {
            return Err(self.error(name.span, "dispatcher name too long"));
        }
        let kind = match self.accept("relay") {
            Some(_) => ActionKind::Relay(self.relay()?),
            None => ActionKind::Local(self.local()?),
        };
        let ttl = self.ttl()?;
        self.config.actions.push(Action { name: name.text, span, ttl, kind });
        Ok(())
    }

    /// `ttl DELAY`, after everything else.
    fn ttl(&mut self) -> Parsed<Option<Duration>> {
        let mut ttl = None;
        while let Some(span) = self.accept("ttl") {
            let text = self.text()?;
            if ttl.is_some() {
                return Err(self.error(span, "ttl already specified for this dispatcher"));
            }
            match delay(&text.text) {
                Ok(duration) => ttl = Some(duration),
                Err(part) => {
                    let message = format!("ttl delay \"{part}\" is invalid");
                    return Err(self.error(text.span, message));
                }
            }
        }
        Ok(ttl)
    }

    fn local(&mut self) -> Parsed<LocalAction> {
        let (word, span) = self.reserved()?;
        let method = match word {
            "mbox" => Method::Mbox,
            "maildir" => {
                let path = self.accept_text().map(|path| home_of_recipient(path.text));
                Method::Maildir { path, junk: self.accept("junk").is_some() }
            }
            "lmtp" => {
                let destination = self.text()?.text;
                let recipient_address = self.accept("rcpt-to").is_some();
                Method::Lmtp { destination, recipient_address }
            }
            "mda" => Method::Mda { command: self.text()?.text },
            "expand-only" => Method::ExpandOnly,
            "forward-only" => Method::ForwardOnly,
            _ => return Err(self.error(span, "syntax error")),
        };
        self.local_options(word, method)
    }

    fn local_options(&mut self, word: &str, method: Method) -> Parsed<LocalAction> {
        let mut action = LocalAction {
            method,
            user: None,
            mapping: None,
            userbase: TableId::GETPWNAM,
            wrapper: None,
        };
        let mut userbase = None;
        loop {
            if let Some(span) = self.accept("user") {
                let user = self.text()?;
                self.check_user(word, &action, span)?;
                action.user = Some(user.text);
            } else if let Some(span) = self.accept("alias") {
                action.mapping = Some(self.mapping(Mapping::Alias, &action, span)?);
            } else if let Some(span) = self.accept("virtual") {
                action.mapping = Some(self.mapping(Mapping::Virtual, &action, span)?);
            } else if let Some(span) = self.accept("userbase") {
                let argument = self.table_argument()?;
                self.once_in_action(userbase.is_some(), span, "userbase mapping")?;
                userbase = Some(self.usable(argument, Usage::Accounts, "userbase")?);
            } else if let Some(span) = self.accept("wrapper") {
                let name = self.text()?;
                if word == "mbox" {
                    let message = "wrapper may not be specified for this dispatcher";
                    return Err(self.error(span, message));
                }
                let Some(wrapper) = self.config.wrapper_named(&name.text) else {
                    let message = format!("no mda wrapper with that name: {}", name.text);
                    return Err(self.error(name.span, message));
                };
                action.wrapper = Some(wrapper);
            } else {
                break;
            }
        }
        action.userbase = userbase.unwrap_or(TableId::GETPWNAM);
        Ok(action)
    }

    fn check_user(&mut self, word: &str, action: &LocalAction, span: Span) -> Parsed<()> {
        self.once_in_action(action.user.is_some(), span, "user")?;
        let message = match word {
            "mbox" => "user may not be specified for this dispatcher",
            "forward-only" => "user may not be specified for forward-only",
            "expand-only" => "user may not be specified for expand-only",
            _ => return Ok(()),
        };
        Err(self.error(span, message))
    }

    fn mapping(
        &mut self,
        kind: fn(TableId) -> Mapping,
        action: &LocalAction,
        span: Span,
    ) -> Parsed<Mapping> {
        let argument = self.table_argument()?;
        match action.mapping {
            Some(Mapping::Alias(_)) => self.once_in_action(true, span, "alias mapping")?,
            Some(Mapping::Virtual(_)) => self.once_in_action(true, span, "virtual mapping")?,
            None => {}
        }
        let purpose = match kind(argument.table) {
            Mapping::Alias(_) => "alias",
            Mapping::Virtual(_) => "virtual",
        };
        self.usable(argument, Usage::Values, purpose).map(kind)
    }

    fn relay(&mut self) -> Parsed<RelayAction> {
        let mut action = RelayAction::default();
        let mut seen = Seen::default();
        let mut unsupported = Vec::new();
        while let Some((word, span)) = self.relay_word() {
            match word {
                "helo" => {
                    let name = self.text()?;
                    self.once_in_action(action.helo.is_some(), span, "helo")?;
                    action.helo = Some(name.text);
                }
                "mail-from" => {
                    let address = self.text()?;
                    self.once_in_action(action.mail_from.is_some(), span, "mail-from")?;
                    action.mail_from = Some(rewrite(&address.text));
                }
                "src" => {
                    let argument = self.table_argument()?;
                    self.once_in_action(action.source.is_some(), span, "source mapping")?;
                    action.source = Some(self.usable(argument, Usage::AnyKeys, "source")?);
                }
                "host" => {
                    let argument = self.table_argument()?;
                    self.smart_host(&mut seen, word, span)?;
                    let table = self.usable(argument, Usage::Keys, "host")?;
                    self.check_schemes(table, argument.span)?;
                    action.host = Some(table);
                }
                "domain" => {
                    let argument = self.table_argument()?;
                    self.smart_host(&mut seen, word, span)?;
                    self.usable(argument, Usage::Values, "host")?;
                    unsupported.push((span, "relay domain"));
                }
                "backup" => {
                    if self.accept("mx").is_some() {
                        self.text()?;
                    }
                    self.smart_host(&mut seen, word, span)?;
                    unsupported.push((span, "relay backup"));
                }
                _ => unsupported.push((span, self.other_relay_option(&mut seen, word, span)?)),
            }
        }
        self.refuse_unsupported(&unsupported)?;
        Ok(action)
    }

    /// The next relay option's word.
    fn relay_word(&mut self) -> Option<(&'static str, Span)> {
        const OPTIONS: [&str; 14] = [
            "auth",
            "backup",
            "ca",
            "ciphers",
            "domain",
            "filter",
            "helo",
            "helo-src",
            "host",
            "mail-from",
            "pki",
            "protocols",
            "src",
            "srs",
        ];
        if let Some(span) = self.accept("tls") {
            return Some(("tls", span));
        }
        OPTIONS.into_iter().find_map(|word| self.accept(word).map(|span| (word, span)))
    }

    /// Notes one of `host`, `domain`, `backup`, which exclude one another.
    fn smart_host(&mut self, seen: &mut Seen, word: &'static str, span: Span) -> Parsed<()> {
        let routed = seen.has("host") || seen.has("domain");
        let conflict = match word {
            "backup" if seen.has("backup") => "backup already specified for this dispatcher",
            "backup" if routed => "backup and host are mutually exclusive",
            "host" if seen.has("backup") => "backup and host are mutually exclusive",
            "domain" if seen.has("backup") => "backup and domain are mutually exclusive",
            "host" | "domain" if routed => "host mapping already specified for this dispatcher",
            _ => {
                seen.note(word);
                return Ok(());
            }
        };
        Err(self.error(span, conflict))
    }

    /// Reads an option that has no effect yet; its own rules hold all the same.
    fn other_relay_option(
        &mut self,
        seen: &mut Seen,
        word: &'static str,
        span: Span,
    ) -> Parsed<&'static str> {
        let (named, what) = match word {
            "auth" => ("auth mapping", "relay auth"),
            "ca" => ("ca", "relay ca"),
            "ciphers" => ("ciphers", "relay ciphers"),
            "filter" => ("filter", "relay filter"),
            "helo-src" => ("helo-source mapping", "relay helo-src"),
            "pki" => ("pki", "relay pki"),
            "protocols" => ("protocols", "relay protocols"),
            "srs" => ("srs", "relay srs"),
            _ => ("tls", "relay tls"),
        };
        match word {
            "auth" => {
                if !seen.has("host") && !seen.has("domain") {
                    let message = "auth may not be specified without host on a dispatcher";
                    return Err(self.error(span, message));
                }
                let argument = self.table_argument()?;
                self.usable(argument, Usage::Values, "auth")?;
            }
            "helo-src" => {
                let argument = self.table_argument()?;
                self.usable(argument, Usage::Values, "helo-source")?;
            }
            "filter" => self.filter_use()?,
            "srs" => {}
            "tls" => {
                self.accept("no-verify");
            }
            _ => {
                self.text()?;
            }
        }
        self.once_in_action(seen.has(word), span, named)?;
        seen.note(word);
        Ok(what)
    }

    /// Refuses smart hosts written in the configuration whose scheme has no effect yet. One that
    /// cannot be understood fails when mail is sent, as one from a file does.
    fn check_schemes(&mut self, table: TableId, span: Span) -> Parsed<()> {
        let Some(declared) = self.config.table(table) else { return Ok(()) };
        let TableSource::Inline(entries) = &declared.source else { return Ok(()) };
        let unsupported = entries.iter().find_map(|entry| {
            let url = RelayUrl::parse(&entry.key).ok()?;
            let plain = matches!(url.scheme, Scheme::Smtp | Scheme::SmtpNoTls);
            (!plain).then(|| entry.key.clone())
        });
        match unsupported {
            Some(url) => Err(self.unsupported(span, &format!("relay host {url}"))),
            None => Ok(()),
        }
    }

    /// Complains when an option of an action was given before.
    fn once_in_action(&mut self, given: bool, span: Span, named: &str) -> Parsed<()> {
        if !given {
            return Ok(());
        }
        Err(self.error(span, format!("{named} already specified for this dispatcher")))
    }
}

/// Options that were given.
#[derive(Debug, Default)]
struct Seen(Vec<&'static str>);

impl Seen {
    fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    fn note(&mut self, word: &'static str) {
        self.0.push(word);
    }
}

/// A leading `~/` means the recipient's directory.
fn home_of_recipient(path: String) -> String {
    match path.strip_prefix("~/") {
        Some(rest) => format!("%{{user.directory}}/{rest}"),
        None => path,
    }
}

/// The parts of a sender to replace: `user@domain`, `@domain`, `user`.
fn rewrite(address: &str) -> SenderRewrite {
    let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    let part = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    SenderRewrite { local: part(local), domain: part(domain) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_rewrite_keeps_what_is_not_written() {
        let cases = [
            ("a@b", Some("a"), Some("b")),
            ("@b", None, Some("b")),
            ("a", Some("a"), None),
            ("@", None, None),
        ];
        for (text, local, domain) in cases {
            let expected = SenderRewrite {
                local: local.map(str::to_owned),
                domain: domain.map(str::to_owned),
            };
            assert_eq!(rewrite(text), expected, "{text}");
        }
    }
}
