//! What can only be checked when the whole file was read: names that may be declared later, files of
//! keys and certificates, accounts, listeners that exclude each other. Entries of tables are looked
//! at in [`super::entries`].
//!
//! What stops the daemon at its start is an error here; what would only fail when mail comes is a
//! warning.

use std::collections::HashMap;

use super::diagnostics::{Diagnostic, reason};
use super::parser::{Parsed, Parser, Quote};
use super::pki::PkiDraft;
use super::tree::{ActionKind, Endpoint, Pki, PkiId, Span};
use super::{KeyFile, KeyFileProblem};

/// A certificate or an authority that a relay names. It may be declared after the action.
#[derive(Debug)]
pub(super) struct CertificateUse {
    /// Index of the action.
    pub action: usize,
    /// What is named.
    pub what: Certificate,
    /// Its name.
    pub name: Quote,
}

/// What a relay names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Certificate {
    /// `ca`.
    Authority,
    /// `pki`.
    Pki,
}

impl Parser<'_> {
    /// Checks what was read as a whole.
    pub(super) fn check_whole(&mut self) {
        self.finish_pki();
        self.check_authorities();
        self.resolve_certificates();
        self.check_accounts();
        self.check_endpoints();
        self.check_entries();
        if self.config.rules.is_empty() {
            self.diagnostics.push(Diagnostic::bare_error("warn: no rules, nothing to do"));
        }
    }

    fn finish_pki(&mut self) {
        for draft in std::mem::take(&mut self.pki) {
            // What an error is said about stays in place, so that the others keep their indices.
            let _told = self.check_pki(&draft);
            self.config.pki.push(Pki {
                name: draft.name,
                span: draft.span,
                certificate: draft.certificate.unwrap_or_default(),
                key: draft.key.unwrap_or_default(),
                dhe: draft.dhe,
            });
        }
    }

    fn check_pki(&mut self, draft: &PkiDraft) -> Parsed<()> {
        let Some(certificate) = &draft.certificate else {
            return Err(self.error(draft.span, "load_pki_tree: missing certificate file"));
        };
        let Some(key) = &draft.key else {
            return Err(self.error(draft.span, "load_pki_tree: missing key file"));
        };
        let failed = "load_pki_tree: failed to load certificate file";
        self.check_key_file(certificate, KeyFile::Certificate, draft.span, failed)?;
        let failed = "load_pki_keys: failed to load key file";
        self.check_key_file(key, KeyFile::Key, draft.span, failed)?;
        self.files.key_pair(certificate, key).map_err(|problem| {
            let message = format!("pki {}: {problem}", draft.name);
            let hint = format!("`{certificate}` and `{key}`");
            self.error_with_hint(draft.span, message, &hint)
        })
    }

    fn check_authorities(&mut self) {
        for index in 0..self.config.authorities.len() {
            let Some(authority) = self.config.authorities.get(index) else { return };
            let (path, span) = (authority.certificate.clone(), authority.span);
            let failed = "load_pki_tree: failed to load CA file";
            // The others are looked at all the same.
            let usable = self.check_key_file(&path, KeyFile::Certificate, span, failed);
            if usable.is_ok()
                && let Err(problem) = self.files.authorities(&path)
            {
                self.error_with_hint(span, failed, &format!("{path}: {problem}"));
            }
        }
    }

    /// Looks whether a file of keys or certificates can be used.
    fn check_key_file(
        &mut self,
        path: &str,
        kind: KeyFile,
        span: Span,
        failed: &str,
    ) -> Parsed<()> {
        match self.files.key_file(path, kind) {
            Ok(()) => return Ok(()),
            Err(KeyFileProblem::Unreadable(error)) => {
                let hint = format!("{path}: {}", reason(&error));
                return Err(self.error_with_hint(span, failed, &hint));
            }
            Err(KeyFileProblem::Owner) => {
                let text = format!(" {path}: not owned by uid 0");
                self.diagnostics.push(Diagnostic::bare_warning(text));
            }
            Err(KeyFileProblem::Mode) => {
                let most = kind.mode_text();
                let text = format!(" {path}: insecure permissions: must be at most {most}");
                self.diagnostics.push(Diagnostic::bare_warning(text));
            }
        }
        Err(self.error(span, failed))
    }

    fn resolve_certificates(&mut self) {
        for CertificateUse { action, what, name } in std::mem::take(&mut self.certificate_uses) {
            let pki = self.pki_named(&name.text);
            let authority = self.config.authority_named(&name.text);
            let kind = self.config.actions.get_mut(action).map(|action| &mut action.kind);
            let Some(ActionKind::Relay(relay)) = kind else { continue };
            match what {
                Certificate::Authority => relay.authority = authority,
                Certificate::Pki => relay.pki = pki,
            }
            let known: Vec<String> = match what {
                Certificate::Authority if authority.is_none() => {
                    self.config.authorities.iter().map(|known| known.name.clone()).collect()
                }
                Certificate::Pki if pki.is_none() => {
                    self.config.pki.iter().map(|known| known.name.clone()).collect()
                }
                _ => continue,
            };
            let message = match what {
                Certificate::Authority => format!("ca name not found: {}", name.text),
                Certificate::Pki => format!("client pki \"{}\" not found", name.text),
            };
            let known = known.iter().map(String::as_str);
            // Each is said on its own.
            let _told = self.unknown(name.span, message, &name.text, known);
        }
    }

    /// The certificate with this name; case does not count.
    fn pki_named(&self, name: &str) -> Option<PkiId> {
        let index =
            self.config.pki.iter().position(|known| known.name.eq_ignore_ascii_case(name))?;
        u32::try_from(index).ok().map(PkiId)
    }

    /// Users and groups that do not exist: of a filter they stop the start, of an action they only
    /// make its deliveries fail. Those that cannot be looked up are left for later.
    fn check_accounts(&mut self) {
        let processes = std::mem::take(&mut self.config.processes);
        for process in &processes {
            if let Some(user) = &process.user
                && matches!(self.network.user(user), Ok(false))
            {
                self.error(process.span, format!("getpwnam: no such user: {user}"));
            }
            if let Some(group) = &process.group
                && matches!(self.network.group(group), Ok(false))
            {
                self.error(process.span, format!("getgrnam: no such group: {group}"));
            }
        }
        self.config.processes = processes;
        let mut missing: Vec<(Span, String)> = Vec::new();
        for action in &self.config.actions {
            if let ActionKind::Local(local) = &action.kind
                && let Some(user) = &local.user
                && matches!(self.network.user(user), Ok(false))
            {
                missing.push((action.span, format!("delivery user \"{user}\" does not exist")));
            }
        }
        for (span, message) in missing {
            self.warning(span, &message);
        }
    }

    /// Two listeners cannot have one address and port.
    fn check_endpoints(&mut self) {
        let mut seen: HashMap<&Endpoint, Option<Span>> = HashMap::new();
        let mut twice = Vec::new();
        for listener in &self.config.listeners {
            let Endpoint::Network { address, port } = &listener.endpoint else { continue };
            let Some(first) = seen.insert(&listener.endpoint, listener.span) else { continue };
            let line = first.map_or(0, |span| span.line);
            let message = format!("{}: Address already in use", address.with_port(*port));
            twice.push((listener.span.unwrap_or_default(), message, line));
        }
        for (span, message, line) in twice {
            self.error_with_hint(span, message, &format!("line {line} listens there already"));
        }
    }
}
