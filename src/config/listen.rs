//! `listen on`: where sessions come from.

use std::net::IpAddr;

use super::diagnostics::reason;
use super::lexer::TokenKind;
use super::limits::{Family, SMTP_PORT, SMTPS_PORT};
use super::parser::{Parsed, Parser, Quote};
use super::table::Usage;
use super::tree::{
    Ciphers, Endpoint, FilterId, Listener, ListenerAuth, ListenerTls, LocalAddress, Protocols,
    Senders, Span, TableId, TlsMode,
};

/// The longest tag, in bytes.
const MAX_TAG: usize = 32;
/// How many certificates a listener may have.
const MAX_PKI: usize = 32;
/// Options of network listeners, besides those of every listener.
const NETWORK_OPTIONS: [&str; 17] = [
    "auth",
    "auth-optional",
    "ca",
    "ciphers",
    "hostname",
    "hostnames",
    "inet4",
    "inet6",
    "pki",
    "port",
    "protocols",
    "proxy-v2",
    "received-auth",
    "senders",
    "smtps",
    "tls",
    "tls-require",
];
/// Those of this server alone.
const OWN_OPTIONS: [&str; 4] = ["no-chunking", "no-limits", "no-pipelining", "no-smtputf8"];
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
    no_chunking: bool,
    no_smtputf8: bool,
    no_limits: bool,
    tls: Option<(TlsMode, &'static str)>,
    verify: bool,
    pki: Vec<Quote>,
    authority: Option<Quote>,
    ciphers: Option<Ciphers>,
    protocols: Option<Protocols>,
    auth: Option<(ListenerAuth, &'static str)>,
    received_auth: bool,
    senders: Option<Senders>,
    filter: Option<FilterId>,
    proxy: bool,
}

impl Parser<'_> {
    /// `listen on socket …` and `listen on INTERFACE …`.
    pub(super) fn listen(&mut self, span: Span) -> Parsed<()> {
        self.expect_word("on")?;
        if self.accept("socket").is_some() {
            return self.listen_on_socket(span);
        }
        self.forget_expected();
        let interface = self.text()?;
        let mut draft = Draft::default();
        while self.common_option(&mut draft)? || self.network_option(&mut draft)? {}
        self.check_security(&draft, span)?;
        let tls = self.listener_tls(&draft, span)?;
        let usual = if draft.is_immediate() { SMTPS_PORT } else { SMTP_PORT };
        let port = draft.port.unwrap_or(usual);
        let addresses = self.addresses(&interface, draft.family)?;
        for address in addresses {
            let endpoint = Endpoint::Network { address, port };
            let listener = draft.listener(span, endpoint, tls.clone());
            self.config.listeners.push(listener);
        }
        Ok(())
    }

    /// The one local listener. It exists anyway; this gives it options.
    fn listen_on_socket(&mut self, span: Span) -> Parsed<()> {
        let mut draft = Draft::default();
        while self.common_option(&mut draft)? {}
        let first = self.config.listeners.first().and_then(|first| first.span);
        if let Some(first) = first {
            let hint = format!("line {} is about it; all its options belong there", first.line);
            return Err(self.error_with_hint(span, "socket listener already configured", &hint));
        }
        if let Some(first) = self.config.listeners.first_mut() {
            *first = draft.listener(span, Endpoint::Socket, None);
        }
        Ok(())
    }

    /// An option of every listener; `false` when the next token begins none.
    fn common_option(&mut self, draft: &mut Draft) -> Parsed<bool> {
        if let Some(span) = self.accept("filter") {
            self.once_in_listener(draft.filter.is_some(), span, "filter")?;
            draft.filter = Some(self.filter_use()?);
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
                let hint = "a tag has at most 32 bytes";
                return Err(self.error_with_hint(tag.span, "tag name too long", hint));
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
        let Some((word, span)) = self.accept_one(&NETWORK_OPTIONS) else { return Ok(false) };
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
            _ => self.security_option(draft, word, span)?,
        }
        Ok(true)
    }

    /// Options of this server alone. They are ordinary words everywhere else.
    fn own_option(&mut self, draft: &mut Draft) -> Parsed<bool> {
        let TokenKind::Text(word) = &self.peek().kind else { return Ok(false) };
        let flag = match word.as_str() {
            "no-chunking" => &mut draft.no_chunking,
            "no-limits" => &mut draft.no_limits,
            "no-pipelining" => &mut draft.no_pipelining,
            "no-smtputf8" => &mut draft.no_smtputf8,
            _ => {
                self.expect_words(&NETWORK_OPTIONS);
                self.expect_words(&OWN_OPTIONS);
                return Ok(false);
            }
        };
        let given = std::mem::replace(flag, true);
        let token = self.next();
        let TokenKind::Text(word) = token.kind else { return Ok(false) };
        self.once_in_listener(given, token.span, &word)?;
        Ok(true)
    }

    /// Options of encryption, authentication and of where connections come from.
    fn security_option(&mut self, draft: &mut Draft, word: &'static str, span: Span) -> Parsed<()> {
        match word {
            "smtps" | "tls" | "tls-require" => self.tls_mode(draft, word, span)?,
            "auth" | "auth-optional" => return self.auth(draft, word, span),
            "pki" => {
                let name = self.text()?;
                if draft.pki.len() == MAX_PKI {
                    return Err(self.error(span, "too many pki specified"));
                }
                draft.pki.push(name);
            }
            "ca" => {
                let name = self.text()?;
                self.once_in_listener(draft.authority.is_some(), span, word)?;
                draft.authority = Some(name);
            }
            "ciphers" => {
                let ciphers = self.ciphers()?;
                self.once_in_listener(draft.ciphers.is_some(), span, word)?;
                draft.ciphers = Some(ciphers);
            }
            "protocols" => {
                let protocols = self.protocols()?;
                self.once_in_listener(draft.protocols.is_some(), span, word)?;
                draft.protocols = Some(protocols);
            }
            "senders" => {
                let table = self.values_table("SENDERS")?;
                let masquerade = self.accept("masquerade").is_some();
                self.once_in_listener(draft.senders.is_some(), span, word)?;
                draft.senders = Some(Senders { table, masquerade });
            }
            "received-auth" => {
                self.once_in_listener(draft.received_auth, span, word)?;
                draft.received_auth = true;
            }
            _ => {
                self.once_in_listener(draft.proxy, span, word)?;
                draft.proxy = true;
            }
        }
        Ok(())
    }

    fn tls_mode(&mut self, draft: &mut Draft, word: &'static str, span: Span) -> Parsed<()> {
        let verify = self.accept("verify");
        let mode = match word {
            "smtps" => TlsMode::Immediate,
            "tls" => TlsMode::Offered,
            _ => TlsMode::Required,
        };
        if let (TlsMode::Offered, Some(verify)) = (mode, verify) {
            let hint = "a certificate can be asked for with `tls-require verify` alone";
            return Err(self.error_with_hint(verify, "syntax error", hint));
        }
        if let Some((_, first)) = draft.tls.replace((mode, word)) {
            let hint = match first == word {
                true => format!("`{word}` is there twice"),
                false => format!("`{first}` and `{word}` exclude each other"),
            };
            return Err(self.error_with_hint(span, "TLS mode already specified", &hint));
        }
        draft.verify = verify.is_some();
        Ok(())
    }

    fn auth(&mut self, draft: &mut Draft, word: &'static str, span: Span) -> Parsed<()> {
        // A word of ours after it is the next option: a list of one word holds no passwords.
        let own = |kind: &TokenKind| matches!(kind, TokenKind::Text(word) if OWN_OPTIONS.contains(&word.as_str()));
        let argument = if own(&self.peek().kind) { None } else { self.optional_table_argument()? };
        let auth =
            ListenerAuth { required: word == "auth", table: argument.map(|found| found.table) };
        if let Some((_, first)) = draft.auth.replace((auth, word)) {
            let hint = match first == word {
                true => format!("`{word}` is there twice"),
                false => format!("`{first}` and `{word}` exclude each other"),
            };
            return Err(self.error_with_hint(span, "auth already specified", &hint));
        }
        if let Some(argument) = argument
            && !self.suits(argument, Usage::Values)
        {
            let name = self.table_name(argument.table);
            let message = format!("nobody can log in with table \"{name}\"");
            let hint = self.unsuited(argument);
            self.warning_with_hint(argument.span, &message, &hint);
        }
        Ok(())
    }

    /// What was said about encryption, with what the names stand for.
    fn listener_tls(&mut self, draft: &Draft, span: Span) -> Parsed<Option<ListenerTls>> {
        let pki = draft.pki.iter().map(|name| self.declared_pki(name)).collect::<Parsed<_>>()?;
        let authority = match &draft.authority {
            Some(name) => Some(self.declared_authority(name)?),
            None => None,
        };
        let Some((mode, _)) = draft.tls else {
            let idle =
                draft.authority.is_some() || draft.ciphers.is_some() || draft.protocols.is_some();
            if idle {
                let message = "ca, ciphers and protocols have no effect without tls";
                self.warning(span, message);
            }
            return Ok(None);
        };
        Ok(Some(ListenerTls {
            mode,
            verify: draft.verify,
            pki,
            authority,
            ciphers: draft.ciphers.clone(),
            protocols: draft.protocols,
        }))
    }

    /// What TLS, certificates and authentication need of one another.
    fn check_security(&mut self, draft: &Draft, span: Span) -> Parsed<()> {
        let (tls, pki) = (draft.tls.is_some(), !draft.pki.is_empty());
        let (missing, hint) = match (tls, pki, draft.auth.is_some()) {
            (false, _, true) => {
                ("auth requires tls/smtps", "passwords are only asked for on encrypted sessions")
            }
            (false, true, _) => {
                ("pki requires tls/smtps", "`tls`, `tls-require` or `smtps` is missing")
            }
            (true, false, _) => {
                ("pki required for tls/smtps", "`pki NAME` says which certificate to show")
            }
            _ => return Ok(()),
        };
        Err(self.error_with_hint(span, format!("invalid listen option: {missing}"), hint))
    }

    fn values_table(&mut self, purpose: &str) -> Parsed<TableId> {
        let argument = self.table_argument()?;
        if self.suits(argument, Usage::Values) {
            return Ok(argument.table);
        }
        let name = self.table_name(argument.table);
        let message = format!("invalid use of table \"{name}\" as {purpose} parameter");
        let hint = self.unsuited(argument);
        Err(self.error_with_hint(argument.span, message, &hint))
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
        } else if let Some(address) = self.scoped_address(name) {
            vec![address]
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

    /// A link-local address of this machine that is written with its interface, as in
    /// `fe80::1%eth0`.
    fn scoped_address(&self, text: &str) -> Option<LocalAddress> {
        let (address, interface) = text.split_once('%')?;
        let address: IpAddr = address.parse().ok()?;
        let scoped = |local: &&LocalAddress| {
            local.address == address
                && local.scope.as_ref().is_some_and(|scope| scope.name == interface)
        };
        self.config.local_addresses.iter().find(scoped).cloned()
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
    fn listener(&self, span: Span, endpoint: Endpoint, tls: Option<ListenerTls>) -> Listener {
        Listener {
            span: Some(span),
            tag: self.tag.clone().unwrap_or_default(),
            hostname: self.hostname.clone(),
            hostnames: self.hostnames,
            dsn: !self.no_dsn,
            mask_source: self.mask_source,
            pipelining: !self.no_pipelining,
            chunking: !self.no_chunking,
            smtputf8: !self.no_smtputf8,
            limits: !self.no_limits,
            tls,
            auth: self.auth.map(|(auth, _)| auth),
            received_auth: self.received_auth,
            senders: self.senders,
            filter: self.filter,
            proxy: self.proxy,
            endpoint,
        }
    }

    fn is_immediate(&self) -> bool {
        matches!(self.tls, Some((TlsMode::Immediate, _)))
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
    Listener { span: None, ..Draft::default().listener(Span::default(), Endpoint::Socket, None) }
}
