//! `match`: which mail goes to which action.

use super::lexer::TokenKind;
use super::parser::{Parsed, Parser};
use super::table::{Argument, Usage};
use super::tree::{
    Criterion, Decision, Destination, Login, Rule, Source, Span, TableMatch, TableSource,
};
use crate::table::Table;

/// A rule while it is read.
#[derive(Default)]
struct Draft {
    tag: Option<Criterion<TableMatch>>,
    from: Option<Criterion<Source>>,
    to: Option<Criterion<Destination>>,
    helo: Option<Criterion<TableMatch>>,
    auth: Option<Criterion<Login>>,
    tls: Option<Criterion<()>>,
    mail_from: Option<Criterion<TableMatch>>,
    rcpt_to: Option<Criterion<TableMatch>>,
}

impl Parser<'_> {
    /// `match { [!] CRITERION } ( reject | action NAME )`.
    pub(super) fn rule(&mut self, span: Span) -> Parsed<()> {
        let mut draft = Draft::default();
        let decision = loop {
            let negated = self.accept_byte(b'!');
            let token = self.next();
            let TokenKind::Reserved(word) = token.kind else {
                return Err(self.unexpected(&token));
            };
            match word {
                "action" | "reject" if negated => return Err(self.unexpected(&token)),
                "action" => break self.rule_action()?,
                "reject" => break Decision::Reject,
                _ => self.criterion(&mut draft, word, negated, token.span)?,
            }
        };
        // Nothing may follow the decision; a rule with more after it does not count.
        if !matches!(self.peek().kind, TokenKind::Newline | TokenKind::End) {
            return Err(self.unexpected_next());
        }
        self.config.rules.push(Rule {
            span,
            tag: draft.tag,
            from: draft.from.unwrap_or(Criterion { negated: false, test: Source::Local }),
            to: draft.to.unwrap_or(Criterion { negated: false, test: Destination::Local }),
            helo: draft.helo,
            auth: draft.auth,
            tls: draft.tls,
            mail_from: draft.mail_from,
            rcpt_to: draft.rcpt_to,
            decision,
        });
        Ok(())
    }

    fn rule_action(&mut self) -> Parsed<Decision> {
        let name = self.text()?;
        match self.config.action_named(&name.text) {
            Some(action) => Ok(Decision::Action(action)),
            None => Err(self.error(name.span, format!("no such dispatcher: {}", name.text))),
        }
    }

    fn criterion(
        &mut self,
        draft: &mut Draft,
        word: &str,
        negated: bool,
        span: Span,
    ) -> Parsed<()> {
        match word {
            "tag" => {
                let test = self.table_match(Usage::Keys, "tag")?;
                self.fill(&mut draft.tag, Criterion { negated, test }, "tag", span)
            }
            "helo" => {
                let test = self.table_match(Usage::Keys, "helo")?;
                self.fill(&mut draft.helo, Criterion { negated, test }, "helo", span)
            }
            "tls" => self.fill(&mut draft.tls, Criterion { negated, test: () }, "tls", span),
            "auth" => {
                let test = self.login(Usage::AnyKeys, "auth")?;
                self.fill(&mut draft.auth, Criterion { negated, test }, "auth", span)
            }
            "mail-from" => {
                let test = self.table_match(Usage::AnyKeys, "mail-from")?;
                self.fill(&mut draft.mail_from, Criterion { negated, test }, "mail-from", span)
            }
            "rcpt-to" => {
                let test = self.table_match(Usage::AnyKeys, "rcpt-to")?;
                self.fill(&mut draft.rcpt_to, Criterion { negated, test }, "rcpt-to", span)
            }
            "from" => self.from(draft, negated, span),
            "for" => self.to(draft, negated, span),
            _ => Err(self.error(span, "syntax error")),
        }
    }

    /// `from …`. The forms `from auth` and `from mail-from` are two criteria in one: any client, and
    /// a test that the `!` belongs to and that replaces an earlier one.
    fn from(&mut self, draft: &mut Draft, negated: bool, span: Span) -> Parsed<()> {
        let (word, place) = self.reserved()?;
        let test = match word {
            "any" => Source::Any,
            "local" => Source::Local,
            "socket" => Source::Socket,
            "src" => Source::Src(self.table_match(Usage::Keys, "from")?),
            "rdns" => Source::Name(self.optional_table_match(Usage::Keys, "rdns")?),
            "auth" => {
                let test = self.login(Usage::Keys, "from")?;
                self.fill(&mut draft.from, ANY_SOURCE, "from", span)?;
                draft.auth = Some(Criterion { negated, test });
                return Ok(());
            }
            "mail-from" => {
                let test = self.table_match(Usage::AnyKeys, "from")?;
                self.fill(&mut draft.from, ANY_SOURCE, "from", span)?;
                draft.mail_from = Some(Criterion { negated, test });
                return Ok(());
            }
            _ => return Err(self.error(place, "syntax error")),
        };
        self.fill(&mut draft.from, Criterion { negated, test }, "from", span)
    }

    /// `for …`, with the two-in-one form `for rcpt-to`.
    fn to(&mut self, draft: &mut Draft, negated: bool, span: Span) -> Parsed<()> {
        let (word, place) = self.reserved()?;
        let test = match word {
            "any" => Destination::Any,
            "local" => Destination::Local,
            "domain" => Destination::Domain(self.table_match(Usage::Keys, "'for'")?),
            "rcpt-to" => {
                let test = self.table_match(Usage::AnyKeys, "for")?;
                self.fill(&mut draft.to, ANY_DESTINATION, "for", span)?;
                draft.rcpt_to = Some(Criterion { negated, test });
                return Ok(());
            }
            _ => return Err(self.error(place, "syntax error")),
        };
        self.fill(&mut draft.to, Criterion { negated, test }, "for", span)
    }

    fn login(&mut self, usage: Usage, purpose: &str) -> Parsed<Login> {
        let table = self.optional_table_match(usage, purpose)?;
        Ok(table.map_or(Login::Any, Login::User))
    }

    /// `[regex] TABLE`. Regular expressions are taken from lists alone.
    fn table_match(&mut self, usage: Usage, purpose: &str) -> Parsed<TableMatch> {
        match self.optional_table_match(usage, purpose)? {
            Some(found) => Ok(found),
            None => Err(self.unexpected_next()),
        }
    }

    fn optional_table_match(&mut self, usage: Usage, purpose: &str) -> Parsed<Option<TableMatch>> {
        let regex = self.accept("regex").is_some();
        let argument = match self.optional_table_argument()? {
            Some(argument) => argument,
            None if regex => return Err(self.unexpected_next()),
            None => return Ok(None),
        };
        let usage = if regex { Usage::Keys } else { usage };
        let table = self.usable(argument, usage, purpose)?;
        if regex {
            self.warn_about_expressions(argument);
        }
        Ok(Some(TableMatch { table, regex }))
    }

    /// Says which expressions written here are none. Those of files are known when they are loaded.
    fn warn_about_expressions(&mut self, argument: Argument) {
        let Some(declared) = self.config.table(argument.table) else { return };
        let TableSource::Inline(entries) = &declared.source else { return };
        let table = Table::new(declared.kind, entries.clone());
        for pattern in table.invalid_expressions() {
            let message = format!("invalid regular expression \"{pattern}\" never matches");
            self.warning(argument.span, &message);
        }
    }

    fn fill<T>(
        &mut self,
        slot: &mut Option<Criterion<T>>,
        criterion: Criterion<T>,
        named: &str,
        span: Span,
    ) -> Parsed<()> {
        if slot.is_some() {
            let message = format!("{named} already specified for this rule");
            return Err(self.error(span, message));
        }
        *slot = Some(criterion);
        Ok(())
    }
}

const ANY_SOURCE: Criterion<Source> = Criterion { negated: false, test: Source::Any };
const ANY_DESTINATION: Criterion<Destination> =
    Criterion { negated: false, test: Destination::Any };
