//! `listen on`: where sessions come from.

use std::net::IpAddr;

use super::diagnostics::reason;
use super::lexer::TokenKind;
use super::limits::{Family, SMTP_PORT};
use super::parser::{Parsed, Parser, Quote};
use super::table::Usage;
use super::tree::{Endpoint, Listener, LocalAddress, Span, TableId};

/// The longest tag, in bytes.
const MAX_TAG: usize = 32;
/// The longest host name, in bytes.
const MAX_HOST_NAME: usize = 255;

/// A listener while it is read.
#[derive(Default)]
struct Draft {
    family: Option<Family>,
    port: Option<u16>,
    tag: Option<String>,
    hostname: Option<String>,
    hostnames: Option<TableId>,
    no_dsn: bool,
    mask_source: bool,
    no_pipelining: bool,
    filter: bool,
    tls: bool,
    pki: bool,
    auth: bool,
    /// Other options that were given and may not be repeated.
    given: Vec<&'static str>,
    /// Options that have no effect yet.
    unsupported: Vec<(Span, &'static str)>,
}

impl Parser<'_> {
    /// `listen on socket …` and `listen on INTERFACE …`.
    pub(super) fn listen(&mut self, span: Span) -> Parsed<()> {
        self.expect_word("on")?;
        if self.accept("socket").is_some() {
            return self.listen_on_socket(span);
        }
        let interface = self.text()?;
        let mut draft = Draft::default();
        loop {
            if self.common_option(&mut draft)? || self.network_option(&mut draft)? {
                continue;
            }
            break;
        }
        self.check_security(&draft, span)?;
        self.refuse_unsupported(&draft.unsupported)?;
        let port = draft.port.unwrap_or(SMTP_PORT);
        let addresses = self.addresses(&interface, draft.family)?;
        for address in addresses {
            let endpoint = Endpoint::Network { address, port };
            let listener = draft.listener(span, endpoint);
            self.config.listeners.push(listener);
        }
        Ok(())
    }

    /// The one local listener. It exists anyway; this gives it options.
    fn listen_on_socket(&mut self, span: Span) -> Parsed<()> {
        let mut draft = Draft::default();
        while self.common_option(&mut draft)? {}
        let configured = self.config.listeners.first().is_some_and(|first| first.span.is_some());
        if configured {
            return Err(self.error(span, "socket listener already configured"));
        }
        self.refuse_unsupported(&draft.unsupported)?;
        if let Some(first) = self.config.listeners.first_mut() {
            *first = draft.listener(span, Endpoint::Socket);
        }
        Ok(())
    }

    /// An option of every listener; `false` when the next token begins none.
    fn common_option(&mut self, draft: &mut Draft) -> Parsed<bool> {
        if let Some(span) = self.accept("filter") {
            self.once_in_listener(draft.filter, span, "filter")?;
            self.filter_use()?;
            draft.filter = true;
            draft.unsupported.push((span, "listen filter"));
        } else if let Some(span) = self.accept("mask-src") {
            self.once_in_listener(draft.mask_source, span, "mask-source")?;
            draft.mask_source = true;
        } else if let Some(span) = self.accept("no-dsn") {
            self.once_in_listener(draft.no_dsn, span, "no-dsn")?;
            draft.no_dsn = true;
        } else if let Some(span) = self.accept("tag") {
            self.once_in_listener(draft.tag.is_some(), span, "tag")?;
            let tag = self.text()?;
            if tag.text.len() > MAX_TAG {
                return Err(self.error(tag.span, "tag name too long"));
            }
            draft.tag = Some(tag.text);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// An option of network listeners; `false` when the next token begins none.
    fn network_option(&mut self, draft: &mut Draft) -> Parsed<bool> {
        if let TokenKind::Text(_) = self.peek().kind {
            return self.own_option(draft);
        }
        let Some((word, span)) = self.accept_reserved() else { return Ok(false) };
        match word {
            "inet4" | "inet6" => {
                self.once_in_listener(draft.family.is_some(), span, "address family")?;
                let inet4 = word == "inet4";
                draft.family = Some(if inet4 { Family::Inet4 } else { Family::Inet6 });
            }
            "port" => {
                self.once_in_listener(draft.port.is_some(), span, "port")?;
                draft.port = Some(self.port()?);
            }
            "hostname" => {
                self.once_in_listener(draft.hostname.is_some(), span, "hostname")?;
                let name = self.text()?;
                if name.text.len() > MAX_HOST_NAME {
                    return Err(self.error(name.span, "hostname too long"));
                }
                draft.hostname = Some(name.text);
            }
            "hostnames" => {
                self.once_in_listener(draft.hostnames.is_some(), span, "hostnames")?;
                draft.hostnames = Some(self.values_table("HOSTNAMES")?);
            }
            _ => self.unsupported_option(draft, word, span)?,
        }
        Ok(true)
    }

    /// Options of this server alone. They are ordinary words everywhere else.
    fn own_option(&mut self, draft: &mut Draft) -> Parsed<bool> {
        let TokenKind::Text(word) = &self.peek().kind else { return Ok(false) };
        let (word, span) = (word.clone(), self.peek().span);
        match word.as_str() {
            "no-pipelining" => {
                self.next();
                self.once_in_listener(draft.no_pipelining, span, "no-pipelining")?;
                draft.no_pipelining = true;
            }
            "no-chunking" | "no-limits" | "no-smtputf8" => {
                self.next();
                return Err(self.unsupported(span, &word));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Options that have no effect yet; their own rules hold all the same.
    fn unsupported_option(
        &mut self,
        draft: &mut Draft,
        word: &'static str,
        span: Span,
    ) -> Parsed<()> {
        match word {
            "smtps" | "tls" | "tls-require" => {
                if word != "tls" {
                    self.accept("verify");
                }
                if std::mem::replace(&mut draft.tls, true) {
                    return Err(self.error(span, "TLS mode already specified"));
                }
            }
            "auth" | "auth-optional" => {
                self.optional_table_argument()?;
                self.once_in_listener(std::mem::replace(&mut draft.auth, true), span, "auth")?;
            }
            "pki" => {
                self.text()?;
                draft.pki = true;
            }
            "senders" => {
                self.values_table("SENDERS")?;
                self.accept("masquerade");
                self.once_in_listener(draft.given.contains(&word), span, word)?;
            }
            "ca" | "ciphers" | "protocols" => {
                self.text()?;
                self.once_in_listener(draft.given.contains(&word), span, word)?;
            }
            "proxy-v2" | "received-auth" => {
                self.once_in_listener(draft.given.contains(&word), span, word)?;
            }
            _ => return Err(self.error(span, "syntax error")),
        }
        draft.given.push(word);
        draft.unsupported.push((span, word));
        Ok(())
    }

    /// What TLS, certificates and authentication need of one another.
    fn check_security(&mut self, draft: &Draft, span: Span) -> Parsed<()> {
        let missing = match (draft.tls, draft.pki, draft.auth) {
            (false, _, true) => "auth requires tls/smtps",
            (false, true, _) => "pki requires tls/smtps",
            (true, false, _) => "pki required for tls/smtps",
            _ => return Ok(()),
        };
        Err(self.error(span, format!("invalid listen option: {missing}")))
    }

    fn values_table(&mut self, purpose: &str) -> Parsed<TableId> {
        let argument = self.table_argument()?;
        if self.suits(argument, Usage::Values) {
            return Ok(argument.table);
        }
        let name = self.table_name(argument.table);
        let message = format!("invalid use of table \"{name}\" as {purpose} parameter");
        Err(self.error(argument.span, message))
    }

    fn port(&mut self) -> Parsed<u16> {
        let token = self.next();
        let (port, written) = match token.kind {
            TokenKind::Number(number) => (u16::try_from(number).ok(), number.to_string()),
            TokenKind::Text(name) => (self.network.service(&name), name),
            TokenKind::Reserved(name @ ("smtp" | "smtps")) => {
                (self.network.service(name), name.to_owned())
            }
            _ => return Err(self.unexpected(&token)),
        };
        match port.filter(|&port| port != 0) {
            Some(port) => Ok(port),
            None => Err(self.error(token.span, format!("invalid port: {written}"))),
        }
    }

    /// The addresses that a name stands for: an interface, an address, a host.
    fn addresses(
        &mut self,
        interface: &Quote,
        family: Option<Family>,
    ) -> Parsed<Vec<LocalAddress>> {
        let name = &interface.text;
        let mut addresses = if let Some(addresses) = self.network.interface(name) {
            addresses
        } else if let Ok(address) = name.parse::<IpAddr>() {
            vec![address.into()]
        } else {
            match self.network.host(name) {
                Ok(found) => found.into_iter().map(LocalAddress::from).collect(),
                Err(error) => {
                    let message = format!("invalid virtual ip or interface: {name}");
                    return Err(self.error_with_hint(interface.span, message, &reason(&error)));
                }
            }
        };
        let found_any = !addresses.is_empty();
        addresses.retain(|local| family.is_none_or(|family| is_of(local.address, family)));
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        let message = format!("invalid virtual ip or interface: {name}");
        if found_any {
            let hint = "it has no address of this family";
            return Err(self.error_with_hint(interface.span, message, hint));
        }
        Err(self.error(interface.span, message))
    }

    /// Complains when an option of a listener was given before.
    fn once_in_listener(&mut self, given: bool, span: Span, named: &str) -> Parsed<()> {
        if !given {
            return Ok(());
        }
        Err(self.error(span, format!("{named} already specified")))
    }
}

impl Draft {
    fn listener(&self, span: Span, endpoint: Endpoint) -> Listener {
        Listener {
            span: Some(span),
            tag: self.tag.clone().unwrap_or_default(),
            hostname: self.hostname.clone(),
            hostnames: self.hostnames,
            dsn: !self.no_dsn,
            mask_source: self.mask_source,
            pipelining: !self.no_pipelining,
            endpoint,
        }
    }
}

fn is_of(address: IpAddr, family: Family) -> bool {
    match family {
        Family::Inet4 => address.is_ipv4(),
        Family::Inet6 => address.is_ipv6(),
    }
}

/// The socket listener that every configuration has.
pub(super) fn socket() -> Listener {
    Listener {
        span: None,
        endpoint: Endpoint::Socket,
        tag: String::new(),
        hostname: None,
        hostnames: None,
        dsn: true,
        mask_source: false,
        pipelining: true,
    }
}
