//! `action NAME relay`: how mail goes to other servers.

use super::parser::{Parsed, Parser};
use super::table::Usage;
use super::tree::{Backup, RelayAction, RelayTls, SenderRewrite, Span, TableId, TableSource};
use super::whole::{Certificate, CertificateUse};
use crate::table::relay_url::{RelayUrl, Scheme};

/// The options of a relay.
const OPTIONS: [&str; 15] = [
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
    "tls",
];

impl Parser<'_> {
    /// The options of a relay, `relay` read.
    pub(super) fn relay(&mut self) -> Parsed<RelayAction> {
        let mut action = RelayAction::default();
        let mut certificates = Vec::new();
        let mut unsupported = Vec::new();
        while let Some((word, span)) = self.accept_one(&OPTIONS) {
            let missing = match word {
                "backup" | "domain" | "host" => {
                    self.destination(&mut action, word, span)?;
                    false
                }
                "ca" | "pki" => {
                    let what = if word == "ca" { Certificate::Authority } else { Certificate::Pki };
                    let name = self.text()?;
                    let given = certificates.iter().any(|(given, _)| *given == what);
                    self.once_in_action(given, span, word)?;
                    certificates.push((what, name));
                    true
                }
                "auth" | "ciphers" | "protocols" | "tls" => {
                    self.protection(&mut action, word, span)?;
                    true
                }
                _ => self.relay_option(&mut action, word, span)?,
            };
            if missing {
                unsupported.push((span, word));
            }
        }
        for (span, word) in unsupported {
            let instead = match word {
                "auth" => format!("without `{word}`, mail goes out without logging in"),
                _ => format!("without `{word}`, mail goes out in clear text"),
            };
            self.unsupported(span, format!("relay {word}"), instead);
        }
        // The action gets this index when it is complete.
        let index = self.config.actions.len();
        for (what, name) in certificates {
            self.certificate_uses.push(CertificateUse { action: index, what, name });
        }
        Ok(action)
    }

    /// One of `host`, `domain`, `backup`, which exclude one another.
    fn destination(
        &mut self,
        action: &mut RelayAction,
        word: &'static str,
        span: Span,
    ) -> Parsed<()> {
        if word == "backup" {
            let name = match self.accept("mx") {
                Some(_) => Some(self.text()?.text),
                None => None,
            };
            self.check_destination(action, word, span)?;
            action.backup = Some(Backup { name });
            return Ok(());
        }
        let argument = self.table_argument()?;
        self.check_destination(action, word, span)?;
        let usage = if word == "domain" { Usage::Values } else { Usage::Keys };
        let table = self.usable(argument, usage, "host")?;
        self.note_schemes(table, word, argument.span);
        if word == "domain" {
            action.domain = Some(table);
        } else {
            action.host = Some(table);
        }
        Ok(())
    }

    fn check_destination(&mut self, action: &RelayAction, word: &str, span: Span) -> Parsed<()> {
        let (backup, routed) =
            (action.backup.is_some(), action.host.is_some() || action.domain.is_some());
        let conflict = match word {
            "backup" if backup => "backup already specified for this dispatcher",
            "backup" if routed => "backup and host are mutually exclusive",
            "host" if backup => "backup and host are mutually exclusive",
            "domain" if backup => "backup and domain are mutually exclusive",
            "host" | "domain" if routed => "host mapping already specified for this dispatcher",
            _ => return Ok(()),
        };
        Err(self.error(span, conflict))
    }

    /// Options of encryption and logging in.
    fn protection(
        &mut self,
        action: &mut RelayAction,
        word: &'static str,
        span: Span,
    ) -> Parsed<()> {
        match word {
            "auth" => {
                if action.host.is_none() && action.domain.is_none() {
                    let message = "auth may not be specified without host on a dispatcher";
                    let hint = "`auth` must come after `host` or `domain`";
                    return Err(self.error_with_hint(span, message, hint));
                }
                let argument = self.table_argument()?;
                self.once_in_action(action.auth.is_some(), span, "auth mapping")?;
                action.auth = Some(self.usable(argument, Usage::Values, "auth")?);
            }
            "ciphers" => {
                let ciphers = self.ciphers()?;
                self.once_in_action(action.ciphers.is_some(), span, word)?;
                action.ciphers = Some(ciphers);
            }
            "protocols" => {
                let protocols = self.protocols()?;
                self.once_in_action(action.protocols.is_some(), span, word)?;
                action.protocols = Some(protocols);
            }
            _ => {
                let unverified = self.accept("no-verify").is_some();
                self.once_in_action(action.tls.is_some(), span, word)?;
                let tls = if unverified { RelayTls::Unverified } else { RelayTls::Verified };
                action.tls = Some(tls);
            }
        }
        Ok(())
    }

    /// Every other option. Whether it has no effect yet.
    fn relay_option(
        &mut self,
        action: &mut RelayAction,
        word: &'static str,
        span: Span,
    ) -> Parsed<bool> {
        match word {
            "helo" => {
                let name = self.text()?;
                self.once_in_action(action.helo.is_some(), span, word)?;
                action.helo = Some(name.text);
            }
            "mail-from" => {
                let address = self.text()?;
                self.once_in_action(action.mail_from.is_some(), span, word)?;
                action.mail_from = Some(rewrite(&address.text));
            }
            "src" => {
                let argument = self.table_argument()?;
                self.once_in_action(action.source.is_some(), span, "source mapping")?;
                action.source = Some(self.usable(argument, Usage::AnyKeys, "source")?);
            }
            "helo-src" => {
                let argument = self.table_argument()?;
                self.once_in_action(action.helo_source.is_some(), span, "helo-source mapping")?;
                action.helo_source = Some(self.usable(argument, Usage::Values, "helo-source")?);
            }
            "filter" => {
                let filter = self.filter_use()?;
                self.once_in_action(action.filter.is_some(), span, word)?;
                action.filter = Some(filter);
            }
            _ => {
                if self.config.srs.key.is_none() {
                    let message = "an srs key is required for srs to be specified in an action";
                    let hint = "`srs key SECRET` must stand above";
                    return Err(self.error_with_hint(span, message, hint));
                }
                self.once_in_action(action.srs, span, word)?;
                action.srs = true;
            }
        }
        Ok(false)
    }

    /// Notes smart hosts written in the configuration whose scheme has no effect yet. One that
    /// cannot be understood fails when mail is sent, as one from a file does.
    fn note_schemes(&mut self, table: TableId, word: &str, span: Span) {
        let declared = self.config.table(table).map(|table| &table.source);
        let Some(TableSource::Inline(entries)) = declared else { return };
        let unsupported = entries.iter().find_map(|entry| {
            let text = entry.value.as_ref().unwrap_or(&entry.key);
            let url = RelayUrl::parse(text).ok()?;
            let plain = matches!(url.scheme, Scheme::Smtp | Scheme::SmtpNoTls);
            (!plain).then(|| text.clone())
        });
        if let Some(url) = unsupported {
            let instead = "this version sends by `smtp://` and `smtp+notls://`, in clear text";
            self.unsupported(span, format!("relay {word} {url}"), instead);
        }
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
