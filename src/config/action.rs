//! `action`: names, local deliveries and how long mail may wait. Relays are in [`super::relay`].

use std::time::Duration;

use super::globals::DELAY_HINT;
use super::parser::{Abandoned, Parsed, Parser, Quote};
use super::table::Usage;
use super::tree::{
    Action, ActionId, ActionKind, LocalAction, Mapping, Method, Span, TableId, WrapperId,
};
use super::value::delay;

/// The longest name of an action, in bytes: as long as a host name.
const MAX_NAME: usize = 255;
/// How mail can be delivered here.
const METHODS: [&str; 6] = ["expand-only", "forward-only", "lmtp", "maildir", "mbox", "mda"];

impl Parser<'_> {
    /// `action NAME METHOD [OPTIONS] [ttl DELAY]`.
    pub(super) fn action(&mut self, span: Span) -> Parsed<()> {
        let name = self.text()?;
        let declared = self.declare_action(&name, span);
        if declared.is_err() {
            self.names.failed_actions.entry(name.text).or_insert(span);
        }
        declared
    }

    fn declare_action(&mut self, name: &Quote, span: Span) -> Parsed<()> {
        if let Some(first) = self.names.actions.get(&name.text) {
            let message = format!("dispatcher already declared with that name: {}", name.text);
            let line = self.config.action(*first).map_or(0, |action| action.span.line);
            let hint = format!("it is declared in line {line}");
            return Err(self.error_with_hint(name.span, message, &hint));
        }
        if name.text.len() > MAX_NAME {
            let hint = "a name has at most 255 bytes";
            return Err(self.error_with_hint(name.span, "dispatcher name too long", hint));
        }
        let kind = match self.accept("relay") {
            Some(_) => ActionKind::Relay(self.relay()?),
            None => ActionKind::Local(self.local()?),
        };
        let ttl = self.ttl()?;
        let index = u32::try_from(self.config.actions.len()).map_err(|_| Abandoned)?;
        self.names.actions.insert(name.text.clone(), ActionId(index));
        self.config.actions.push(Action { name: name.text.clone(), span, ttl, kind });
        Ok(())
    }

    /// The action that a rule names; it must be declared above.
    pub(super) fn declared_action(&mut self, name: &Quote) -> Parsed<ActionId> {
        if let Some(action) = self.names.actions.get(&name.text) {
            return Ok(*action);
        }
        let message = format!("no such dispatcher: {}", name.text);
        if let Some(failed) = self.names.failed_actions.get(&name.text) {
            let hint = format!("its declaration in line {} has an error", failed.line);
            return Err(self.error_with_hint(name.span, message, &hint));
        }
        let known: Vec<String> = self.names.actions.keys().cloned().collect();
        Err(self.unknown(name.span, message, &name.text, known.iter().map(String::as_str)))
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
                    return Err(self.error_with_hint(text.span, message, DELAY_HINT));
                }
            }
        }
        Ok(ttl)
    }

    fn local(&mut self) -> Parsed<LocalAction> {
        let (word, _) = self.one_of(&METHODS)?;
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
            "expand-only" => Method::ExpandOnly,
            "forward-only" => Method::ForwardOnly,
            _ => Method::Mda { command: self.text()?.text },
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
                    let hint = "mbox starts no command that could be wrapped";
                    return Err(self.error_with_hint(span, message, hint));
                }
                action.wrapper = Some(self.declared_wrapper(&name)?);
            } else {
                break;
            }
        }
        action.userbase = userbase.unwrap_or(TableId::GETPWNAM);
        Ok(action)
    }

    fn declared_wrapper(&mut self, name: &Quote) -> Parsed<WrapperId> {
        if let Some(wrapper) = self.config.wrapper_named(&name.text) {
            return Ok(wrapper);
        }
        let message = format!("no mda wrapper with that name: {}", name.text);
        let known = self.config.wrappers.iter().map(|wrapper| wrapper.name.clone());
        let known: Vec<String> = known.collect();
        Err(self.unknown(name.span, message, &name.text, known.iter().map(String::as_str)))
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

    /// Complains when an option of an action was given before.
    pub(super) fn once_in_action(&mut self, given: bool, span: Span, named: &str) -> Parsed<()> {
        if !given {
            return Ok(());
        }
        Err(self.error(span, format!("{named} already specified for this dispatcher")))
    }
}

/// A leading `~/` means the recipient's directory.
fn home_of_recipient(path: String) -> String {
    match path.strip_prefix("~/") {
        Some(rest) => format!("%{{user.directory}}/{rest}"),
        None => path,
    }
}
