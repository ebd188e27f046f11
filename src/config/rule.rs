//! `match`: which mail goes to which action.

use super::lexer::TokenKind;
use super::parser::{Parsed, Parser};
use super::table::Usage;
use super::tree::{Criterion, Decision, Destination, Login, Rule, Source, Span, TableMatch};

/// What a rule can look at.
const CRITERIA: [&str; 8] = ["auth", "for", "from", "helo", "mail-from", "rcpt-to", "tag", "tls"];
/// What it can decide.
const DECISIONS: [&str; 2] = ["action", "reject"];

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
            if !negated && let Some((word, _)) = self.accept_one(&DECISIONS) {
                break match word {
                    "action" => self.rule_action()?,
                    _ => Decision::Reject,
                };
            }
            let (word, span) = self.one_of(&CRITERIA)?;
            self.criterion(&mut draft, word, negated, span)?;
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
        self.declared_action(&name).map(Decision::Action)
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
            _ => self.to(draft, negated, span),
        }
    }

    /// `from …`. The forms `from auth` and `from mail-from` are two criteria in one: any client, and
    /// a test that the `!` belongs to and that replaces an earlier one.
    fn from(&mut self, draft: &mut Draft, negated: bool, span: Span) -> Parsed<()> {
        let words = ["any", "auth", "local", "mail-from", "rdns", "socket", "src"];
        let (word, _) = self.one_of(&words)?;
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
            _ => {
                let test = self.table_match(Usage::AnyKeys, "from")?;
                self.fill(&mut draft.from, ANY_SOURCE, "from", span)?;
                draft.mail_from = Some(Criterion { negated, test });
                return Ok(());
            }
        };
        self.fill(&mut draft.from, Criterion { negated, test }, "from", span)
    }

    /// `for …`, with the two-in-one form `for rcpt-to`.
    fn to(&mut self, draft: &mut Draft, negated: bool, span: Span) -> Parsed<()> {
        let (word, _) = self.one_of(&["any", "domain", "local", "rcpt-to"])?;
        let test = match word {
            "any" => Destination::Any,
            "local" => Destination::Local,
            "domain" => Destination::Domain(self.table_match(Usage::Keys, "'for'")?),
            _ => {
                let test = self.table_match(Usage::AnyKeys, "for")?;
                self.fill(&mut draft.to, ANY_DESTINATION, "for", span)?;
                draft.rcpt_to = Some(Criterion { negated, test });
                return Ok(());
            }
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
        Ok(Some(TableMatch { table, regex }))
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
