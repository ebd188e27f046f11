//! Which rule a recipient falls under.
//!
//! Rules are tried in order and the first whose criteria all hold decides. A search asks tables and
//! does not know where they are: it stops with a [`Question`] and goes on with the answer. A table
//! that fails ends the search, for no later rule may decide what an earlier one was meant to.
//!
//! Source: smtpd.conf(5) on `match`.

mod criterion;
mod texts;

use serde::{Deserialize, Serialize};

use self::criterion::{Test, test};
use self::texts::{Subject, Texts};
use super::address::Address;
use crate::config::{ActionId, Config, Decision, LocalAddress, Rule, TableId};
use crate::table::few::FewTables;
use crate::table::{Answer, Question, Service};

/// What rules may ask about a session.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Session {
    /// Tag of the listener; empty without one.
    pub tag: String,
    /// Who is at the other end.
    pub client: Client,
    /// The client's name, if its address has one.
    pub client_name: Option<String>,
    /// The argument of HELO or EHLO.
    pub helo: String,
    /// Who has logged in. Local submission counts as logged in, with an empty name.
    pub login: Option<String>,
    /// Whether the session is encrypted.
    pub tls: bool,
    /// The envelope sender.
    pub sender: Address,
}

/// The other end of a session.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Client {
    /// A client on the network.
    Address(LocalAddress),
    /// A program of this machine, through the socket.
    Socket,
}

/// What a search is about: a recipient as it is at this point of an expansion.
#[derive(Clone, Copy, Debug)]
pub struct Recipient<'a> {
    /// The address.
    pub address: &'a Address,
    /// Whether an expansion produced it. It then comes from this machine, whoever sent the message.
    pub internal: bool,
}

/// What a search has come to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Progress {
    /// A table must answer first.
    Ask(Question),
    /// It has ended.
    Found(Verdict),
}

/// The end of a search.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// This rule (index into the rules) gives the message to this action.
    Action {
        /// The rule, from 0.
        rule: usize,
        /// The action.
        action: ActionId,
    },
    /// A table could not answer.
    Failed,
    /// No rule matches.
    NoRule,
    /// This rule refuses it.
    Reject {
        /// The rule, from 0.
        rule: usize,
    },
}

/// A search among rules.
#[derive(Clone, Debug, Default)]
pub struct Search {
    rule: usize,
    /// The first of its criteria that is not decided; what is decided at once is not counted.
    criterion: usize,
    /// The question that an answer is awaited for.
    asked: Option<Asked>,
    /// What tables have answered: many rules ask the same.
    learnt: Vec<(Asked, bool)>,
    texts: Texts,
}

/// What a criterion is about, in the order in which criteria are tried. The order is part of the
/// language, since a table that is not reached cannot fail.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Word {
    /// `tag`
    Tag,
    /// `from`
    From,
    /// `for`
    For,
    /// `helo`
    Helo,
    /// `auth`
    Auth,
    /// `tls`
    Tls,
    /// `mail-from`
    MailFrom,
    /// `rcpt-to`
    RcptTo,
}

/// Sees what a search decides on its way. A search that nobody watches pays nothing for it.
pub trait Watch {
    /// A criterion that rule `rule` (from 0) has was decided.
    fn decided(&mut self, rule: usize, word: Word, holds: bool);
}

/// Nobody watches.
struct Unwatched;

impl Watch for Unwatched {
    fn decided(&mut self, _: usize, _: Word, _: bool) {}
}

/// A question to a table. Within one search a subject has one text.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// The answer is to be turned round.
    negated: bool,
    table: TableId,
    service: Service,
    subject: Subject,
}

/// What a search goes by, the same all the way.
#[derive(Clone, Copy)]
struct About<'a> {
    /// `None`: every question is to be asked.
    few: Option<&'a FewTables>,
    session: &'a Session,
    recipient: Recipient<'a>,
}

/// How many answers are kept: few tables are named in many rules.
const MAX_LEARNT: usize = 16;

/// The criteria in the order in which they are tried.
const CRITERIA: [Word; 8] = [
    Word::Tag,
    Word::From,
    Word::For,
    Word::Helo,
    Word::Auth,
    Word::Tls,
    Word::MailFrom,
    Word::RcptTo,
];

impl Search {
    /// A search that begins with the first rule.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on: with no answer at first, then with the answer to what was asked. `few` are the tables
    /// of `config` that need not be asked.
    pub fn advance(
        &mut self,
        config: &Config,
        few: &FewTables,
        session: &Session,
        recipient: Recipient<'_>,
        answer: Option<&Answer>,
    ) -> Progress {
        self.go_on(config, Some(few), session, recipient, answer, &mut Unwatched)
    }

    /// As [`Self::advance`], but tells `watch` what is decided, and asks every question, also those
    /// whose answer is at hand.
    pub fn advance_watched(
        &mut self,
        config: &Config,
        session: &Session,
        recipient: Recipient<'_>,
        answer: Option<&Answer>,
        watch: &mut impl Watch,
    ) -> Progress {
        self.go_on(config, None, session, recipient, answer, watch)
    }

    fn go_on(
        &mut self,
        config: &Config,
        few: Option<&FewTables>,
        session: &Session,
        recipient: Recipient<'_>,
        answer: Option<&Answer>,
        watch: &mut impl Watch,
    ) -> Progress {
        match (answer, self.asked.take()) {
            (Some(Answer::Contains(found)), Some(asked)) => self.learn(asked, *found, watch),
            (Some(_), _) => return Progress::Found(Verdict::Failed),
            (None, _) => {}
        }
        let about = About { few, session, recipient };
        while let Some(rule) = config.rules.get(self.rule) {
            match self.try_rule(rule, about, watch) {
                Ok(true) => return Progress::Found(self.verdict(rule)),
                Ok(false) => {
                    self.rule += 1;
                    self.criterion = 0;
                }
                Err(question) => return Progress::Ask(question),
            }
        }
        Progress::Found(Verdict::NoRule)
    }

    /// Whether the criteria of a rule hold that are not decided yet, or what has to be asked for that.
    /// They are written out one by one so that each is compiled for itself.
    fn try_rule(
        &mut self,
        rule: &Rule,
        about: About<'_>,
        watch: &mut impl Watch,
    ) -> Result<bool, Question> {
        Ok(self.try_criterion(Word::Tag, rule, about, watch)?
            && self.try_criterion(Word::From, rule, about, watch)?
            && self.try_criterion(Word::For, rule, about, watch)?
            && self.try_criterion(Word::Helo, rule, about, watch)?
            && self.try_criterion(Word::Auth, rule, about, watch)?
            && self.try_criterion(Word::Tls, rule, about, watch)?
            && self.try_criterion(Word::MailFrom, rule, about, watch)?
            && self.try_criterion(Word::RcptTo, rule, about, watch)?)
    }

    /// As [`Self::try_rule`], of one criterion.
    #[inline(always)] // `word` is a constant where it is called
    fn try_criterion(
        &mut self,
        word: Word,
        rule: &Rule,
        about: About<'_>,
        watch: &mut impl Watch,
    ) -> Result<bool, Question> {
        if (word as usize) < self.criterion {
            return Ok(true);
        }
        let holds = match test(word, rule, about.session, about.recipient) {
            Test::Absent => return Ok(true),
            Test::Known(holds) => holds,
            Test::Plain { negated, holds } => holds != negated,
            Test::Table { negated, test, service, subject } => {
                let asked = Asked { negated, table: test.table, service, subject };
                match self.at_hand(asked, about) {
                    Some(found) => found != negated,
                    None => {
                        self.criterion = word as usize;
                        self.asked = Some(asked);
                        return Err(self.question(asked, about));
                    }
                }
            }
        };
        watch.decided(self.rule, word, holds);
        Ok(holds)
    }

    /// The answer of a table that need not be asked.
    fn at_hand(&self, asked: Asked, about: About<'_>) -> Option<bool> {
        let few = about.few?;
        let key = self.texts.key(few, asked, about.session, about.recipient);
        key.and_then(|key| few.hold(asked.table, key)).or_else(|| self.known(asked))
    }

    fn question(&self, asked: Asked, about: About<'_>) -> Question {
        let Asked { table, service, subject, .. } = asked;
        let key = self.texts.of(subject, about.session, about.recipient).to_owned();
        Question::Contains { table, service, key }
    }

    /// The rule (from 0) and the criterion that the last question was asked for.
    #[must_use]
    pub fn position(&self) -> Option<(usize, Word)> {
        CRITERIA.get(self.criterion).map(|word| (self.rule, *word))
    }

    /// What a table has said of the same in an earlier rule.
    fn known(&self, asked: Asked) -> Option<bool> {
        let what = |asked: Asked| (asked.table, asked.service, asked.subject);
        let same = |known: &&(Asked, bool)| what(known.0) == what(asked);
        self.learnt.iter().find(same).map(|(_, found)| *found)
    }

    fn learn(&mut self, asked: Asked, found: bool, watch: &mut impl Watch) {
        if self.learnt.len() < MAX_LEARNT {
            self.learnt.push((asked, found));
        }
        self.decide(found != asked.negated, watch);
    }

    /// Goes to the next criterion, or to the next rule.
    fn decide(&mut self, holds: bool, watch: &mut impl Watch) {
        if let Some(word) = CRITERIA.get(self.criterion) {
            watch.decided(self.rule, *word, holds);
        }
        if holds {
            self.criterion += 1;
        } else {
            self.criterion = 0;
            self.rule += 1;
        }
    }

    fn verdict(&self, rule: &Rule) -> Verdict {
        match rule.decision {
            Decision::Action(action) => Verdict::Action { rule: self.rule, action },
            Decision::Reject => Verdict::Reject { rule: self.rule },
        }
    }
}

#[cfg(test)]
mod tests;
