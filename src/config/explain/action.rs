//! Actions written out again.

use std::fmt::{self, Formatter};

use super::notation::{Delay, Quoted};
use crate::config::tree::{
    Action, ActionKind, Config, LocalAction, Mapping, Method, RelayAction, RelayTls, SenderRewrite,
    TableId,
};

impl Config {
    pub(super) fn action_line(&self, f: &mut Formatter<'_>, action: &Action) -> fmt::Result {
        write!(f, "action {}", Quoted(&action.name))?;
        match &action.kind {
            ActionKind::Local(local) => self.local(f, local)?,
            ActionKind::Relay(relay) => self.relay(f, relay)?,
        }
        if let Some(ttl) = action.ttl {
            write!(f, " ttl {}", Delay(ttl))?;
        }
        writeln!(f)
    }

    fn local(&self, f: &mut Formatter<'_>, action: &LocalAction) -> fmt::Result {
        match &action.method {
            Method::ExpandOnly => f.write_str(" expand-only")?,
            Method::ForwardOnly => f.write_str(" forward-only")?,
            Method::Lmtp { destination, recipient_address } => {
                let rcpt_to = if *recipient_address { " rcpt-to" } else { "" };
                write!(f, " lmtp {}{rcpt_to}", Quoted(destination))?;
            }
            Method::Maildir { path, junk } => {
                f.write_str(" maildir")?;
                if let Some(path) = path {
                    write!(f, " {}", Quoted(path))?;
                }
                f.write_str(if *junk { " junk" } else { "" })?;
            }
            Method::Mbox => f.write_str(" mbox")?,
            Method::Mda { command } => write!(f, " mda {}", Quoted(command))?,
        }
        if let Some(user) = &action.user {
            write!(f, " user {}", Quoted(user))?;
        }
        match action.mapping {
            Some(Mapping::Alias(table)) => write!(f, " alias {}", self.use_of(table))?,
            Some(Mapping::Virtual(table)) => write!(f, " virtual {}", self.use_of(table))?,
            None => {}
        }
        if action.userbase != TableId::GETPWNAM {
            write!(f, " userbase {}", self.use_of(action.userbase))?;
        }
        if let Some(wrapper) = action.wrapper.and_then(|id| self.wrapper(id)) {
            write!(f, " wrapper {}", Quoted(&wrapper.name))?;
        }
        Ok(())
    }

    fn relay(&self, f: &mut Formatter<'_>, action: &RelayAction) -> fmt::Result {
        f.write_str(" relay")?;
        if let Some(table) = action.host {
            write!(f, " host {}", self.use_of(table))?;
        }
        if let Some(table) = action.domain {
            write!(f, " domain {}", self.use_of(table))?;
        }
        if let Some(backup) = &action.backup {
            f.write_str(" backup")?;
            if let Some(name) = &backup.name {
                write!(f, " mx {}", Quoted(name))?;
            }
        }
        if let Some(table) = action.source {
            write!(f, " src {}", self.use_of(table))?;
        }
        if let Some(table) = action.helo_source {
            write!(f, " helo-src {}", self.use_of(table))?;
        }
        if let Some(name) = &action.helo {
            write!(f, " helo {}", Quoted(name))?;
        }
        if let Some(SenderRewrite { local, domain }) = &action.mail_from {
            let local = local.as_deref().unwrap_or_default();
            let domain = domain.as_deref().unwrap_or_default();
            write!(f, " mail-from {}", Quoted(&format!("{local}@{domain}")))?;
        }
        self.relay_protection(f, action)
    }

    fn relay_protection(&self, f: &mut Formatter<'_>, action: &RelayAction) -> fmt::Result {
        match action.tls {
            Some(RelayTls::Unverified) => f.write_str(" tls no-verify")?,
            Some(RelayTls::Verified) => f.write_str(" tls")?,
            None => {}
        }
        if let Some(table) = action.auth {
            write!(f, " auth {}", self.use_of(table))?;
        }
        if let Some(pki) = action.pki.and_then(|id| self.pki(id)) {
            write!(f, " pki {}", Quoted(&pki.name))?;
        }
        if let Some(authority) = action.authority.and_then(|id| self.authority(id)) {
            write!(f, " ca {}", Quoted(&authority.name))?;
        }
        if let Some(ciphers) = &action.ciphers {
            write!(f, " ciphers {}", Quoted(&ciphers.to_string()))?;
        }
        if let Some(protocols) = &action.protocols {
            write!(f, " protocols {}", Quoted(&protocols.to_string()))?;
        }
        if let Some(filter) = action.filter {
            write!(f, " filter {}", self.filter_use(filter))?;
        }
        f.write_str(if action.srs { " srs" } else { "" })
    }
}
