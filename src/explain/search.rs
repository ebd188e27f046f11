//! A search among the rules, told criterion by criterion.
//!
//! The search itself is that of the server ([`crate::lookup::rules`]), watched.

use super::report::{Lookup, Search, TriedCriterion, TriedRule};
use super::sources::{Known, Sources};
use crate::config::{Config, Rule, Source, TableId, TableMatch, TableSource};
use crate::lookup::address::Address;
use crate::lookup::rules::{self, Client, Progress, Recipient, Session, Watch, Word};
use crate::lookup::trace;
use crate::table::{Answer, Question, Service};

/// What was decided, in order.
#[derive(Debug, Default)]
struct Decisions {
    taken: Vec<Decision>,
    /// The question whose answer comes next.
    asked: Option<(Question, Answer)>,
}

#[derive(Debug)]
struct Decision {
    rule: usize,
    word: Word,
    holds: bool,
    asked: Option<(Question, Answer)>,
}

impl Watch for Decisions {
    fn decided(&mut self, rule: usize, word: Word, holds: bool) {
        let asked = self.asked.take();
        self.taken.push(Decision { rule, word, holds, asked });
    }
}

/// How a search stops short of a verdict of the rules.
struct Stop {
    rule: usize,
    word: Word,
    question: Question,
    because: String,
}

/// Searches for `address`; `internal` if an expansion produced it.
pub fn explain(
    config: &Config,
    session: &Session,
    sources: &Sources<'_>,
    address: &Address,
    internal: bool,
) -> Search {
    let recipient = Recipient { address, internal };
    let mut decisions = Decisions::default();
    let mut search = rules::Search::new();
    let mut answer = None;
    let mut stop = None;
    let trace = loop {
        let progress =
            search.advance_watched(config, session, recipient, answer.as_ref(), &mut decisions);
        let question = match progress {
            Progress::Ask(question) => question,
            Progress::Found(verdict) => break trace::verdict(config, verdict),
        };
        let stopped = |because: &str| {
            let (rule, word) = search.position()?;
            Some(Stop { rule, word, question: question.clone(), because: because.to_owned() })
        };
        match sources.answer(&question) {
            Known::Unknown(because) => {
                stop = stopped(&because);
                break "not known".to_owned();
            }
            Known::Answer(answered) => {
                if !matches!(answered, Answer::Contains(_)) {
                    stop = stopped("the table failed");
                }
                decisions.asked = Some((question, answered.clone()));
                answer = Some(answered);
            }
        }
    };
    let teller = Teller { config, session, internal };
    Search { rules: teller.rules(&decisions.taken, stop.as_ref()), trace }
}

/// Puts decisions into words.
struct Teller<'a> {
    config: &'a Config,
    session: &'a Session,
    internal: bool,
}

impl Teller<'_> {
    fn rules(&self, taken: &[Decision], stop: Option<&Stop>) -> Vec<TriedRule> {
        let last = taken.iter().map(|one| one.rule).chain(stop.map(|stop| stop.rule)).max();
        let Some(last) = last else { return Vec::new() };
        let rules = self.config.rules.iter().take(last.saturating_add(1)).enumerate();
        let mut rest = taken;
        rules
            .map(|(index, rule)| {
                let count = rest.iter().take_while(|one| one.rule == index).count();
                let (mine, others) = rest.split_at(count);
                rest = others;
                self.rule(index, rule, mine, stop.filter(|stop| stop.rule == index))
            })
            .collect()
    }

    fn rule(
        &self,
        index: usize,
        rule: &Rule,
        taken: &[Decision],
        stop: Option<&Stop>,
    ) -> TriedRule {
        let written = trace::criteria(rule, |test| argument(self.config, test));
        let text = |word: Word| {
            let found = written.iter().find(|(other, _)| *other == word);
            found.map(|(_, text)| text.clone()).unwrap_or_default()
        };
        let mut criteria: Vec<TriedCriterion> = taken
            .iter()
            .map(|one| TriedCriterion {
                criterion: text(one.word),
                holds: Some(one.holds),
                because: self.because(rule, one),
                lookup: one
                    .asked
                    .as_ref()
                    .map(|(question, answer)| lookup(self.config, question, said(answer))),
            })
            .collect();
        criteria.extend(stop.map(|stop| TriedCriterion {
            criterion: text(stop.word),
            holds: None,
            because: stop.because.clone(),
            lookup: Some(lookup(self.config, &stop.question, "not known".to_owned())),
        }));
        let file = self.config.sources.get(usize::from(rule.span.file));
        TriedRule {
            number: index + 1,
            place: format!("{}:{}", file.map_or("", String::as_str), rule.span.line),
            rule: self.config.rule_statement(rule),
            criteria,
            matches: match stop {
                Some(_) => None,
                None => Some(taken.iter().all(|one| one.holds)),
            },
        }
    }

    fn because(&self, rule: &Rule, decision: &Decision) -> String {
        if let Some((Question::Contains { table, service, key }, Answer::Contains(found))) =
            &decision.asked
        {
            let table = table_name(self.config, *table);
            return match (service, found) {
                (Service::Regex, true) => format!("\"{key}\" matches an expression of {table}"),
                (Service::Regex, false) => format!("\"{key}\" matches no expression of {table}"),
                (_, true) => format!("\"{key}\" is in {table}"),
                (_, false) => format!("\"{key}\" is not in {table}"),
            };
        }
        match decision.word {
            Word::From => self.because_of_source(rule),
            Word::For => match decision.holds != rule.to.negated {
                true => "any domain will do".to_owned(),
                false => "the recipient has no domain".to_owned(),
            },
            Word::Auth => match &self.session.login {
                None => "nobody has logged in".to_owned(),
                Some(user) if user.is_empty() => {
                    "submission on this machine counts as logged in".to_owned()
                }
                Some(user) => format!("logged in as \"{user}\""),
            },
            Word::Tls if self.session.tls => "the session is encrypted".to_owned(),
            Word::Tls => "the session is not encrypted".to_owned(),
            // A table decides these, and was asked.
            Word::Tag | Word::Helo | Word::MailFrom | Word::RcptTo => String::new(),
        }
    }

    fn because_of_source(&self, rule: &Rule) -> String {
        let session = self.session;
        match (rule.from.test, &session.client, &session.client_name) {
            (Source::Any, ..) => "any client will do".to_owned(),
            (Source::Socket | Source::Name(_), ..) if self.internal => {
                "what an expansion produced has no client".to_owned()
            }
            (Source::Local, ..) if self.internal => {
                "what an expansion produced comes from this machine".to_owned()
            }
            (Source::Socket | Source::Local, Client::Socket, _) => {
                "it is submitted on this machine".to_owned()
            }
            (Source::Socket, Client::Address(address), _) => format!("the client is {address}"),
            (Source::Name(_), _, Some(name)) => format!("the client's name is \"{name}\""),
            (Source::Name(_), _, None) => "the client has no name".to_owned(),
            // A table decides these, and was asked.
            (Source::Local | Source::Src(_), ..) => String::new(),
        }
    }
}

/// A question and what became of it.
pub(super) fn lookup(config: &Config, question: &Question, answer: String) -> Lookup {
    let (table, service, key) = match question {
        Question::Account { table, name } => (*table, "userinfo", name),
        Question::Contains { table, service, key } | Question::Value { table, service, key } => {
            (*table, service.name(), key)
        }
    };
    Lookup { table: table_name(config, table), service, key: key.clone(), answer }
}

/// What a table said, in words.
pub(super) fn said(answer: &Answer) -> String {
    match answer {
        Answer::Account(Some(account)) => {
            format!("uid {}, gid {}, home {}", account.uid, account.gid, account.home)
        }
        Answer::Account(None) => "no such user".to_owned(),
        Answer::Contains(true) => "found".to_owned(),
        Answer::Contains(false) => "not found".to_owned(),
        Answer::Failed => "failed".to_owned(),
        Answer::Value(Some(value)) => value.clone(),
        Answer::Value(None) => "no entry".to_owned(),
    }
}

/// A table as it is written, whatever is asked of it.
pub(super) fn table_name(config: &Config, table: TableId) -> String {
    match config.table(table) {
        // Its name has brackets already.
        Some(declared) if matches!(declared.source, TableSource::BuiltIn(_)) => {
            declared.name.clone()
        }
        Some(declared) if table == TableId::GETPWNAM => declared.name.clone(),
        _ => config.table_statement(table),
    }
}

fn argument(config: &Config, test: TableMatch) -> String {
    let regex = if test.regex { "regex " } else { "" };
    format!("{regex}{}", table_name(config, test.table))
}
