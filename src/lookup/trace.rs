//! Rules in the words of the trace `rules`: which one matched, and what its criteria are.
//!
//! The words are those that OpenSMTPD logs, so that what reads such lines goes on reading them.
//! How tables are named is the caller's choice: by their names in the trace, by what they hold where
//! a person reads it.
//!
//! Source: the configuration page of the specification, section 4.7.

use super::rules::{Verdict, Word};
use crate::config::{Config, Criterion, Decision, Destination, Login, Rule, Source, TableMatch};

/// The line about the end of a search.
#[must_use]
pub fn verdict(config: &Config, verdict: Verdict) -> String {
    let index = match verdict {
        Verdict::Action { rule, .. } | Verdict::Reject { rule } => rule,
        Verdict::Failed => return "temporary failure in processing of a rule".to_owned(),
        Verdict::NoRule => return "no rule matched".to_owned(),
    };
    let number = index + 1;
    match config.rules.get(index) {
        Some(rule) => format!("rule #{number} matched: {}", self::rule(config, rule)),
        None => format!("rule #{number} matched"),
    }
}

/// A rule on one line.
#[must_use]
pub fn rule(config: &Config, rule: &Rule) -> String {
    let name = |test: TableMatch| {
        config.table(test.table).map(|table| table.name.clone()).unwrap_or_default()
    };
    let mut line = "match".to_owned();
    for (_, criterion) in criteria(rule, name) {
        line.push(' ');
        line.push_str(&criterion);
    }
    line.push_str(" action ");
    line.push_str(match rule.decision {
        Decision::Action(id) => config.action(id).map_or("", |action| action.name.as_str()),
        Decision::Reject => "reject",
    });
    line
}

/// The criteria of a rule in the order in which they are tried; `name` says how a table is written.
pub fn criteria(rule: &Rule, name: impl Fn(TableMatch) -> String) -> Vec<(Word, String)> {
    let with = |word: &str, test: TableMatch| format!("{word} {}", name(test));
    let in_table = |word: Word, text: &str, criterion: &Option<Criterion<TableMatch>>| {
        let criterion = criterion.as_ref()?;
        Some((word, negated(criterion, with(text, criterion.test))))
    };
    let from = match rule.from.test {
        Source::Any => "from any".to_owned(),
        Source::Local => "from local".to_owned(),
        Source::Name(None) => "from rdns".to_owned(),
        Source::Name(Some(test)) => with("from rdns", test),
        Source::Socket => "from socket".to_owned(),
        Source::Src(test) => with("from src", test),
    };
    let to = match rule.to.test {
        Destination::Any => "for any".to_owned(),
        Destination::Domain(test) => with("for domain", test),
        Destination::Local => "for local".to_owned(),
    };
    let auth = rule.auth.as_ref().map(|auth| {
        let text = match auth.test {
            Login::Any => "auth".to_owned(),
            Login::User(test) => with("auth", test),
        };
        (Word::Auth, negated(auth, text))
    });
    let tls = rule.tls.as_ref().map(|tls| (Word::Tls, negated(tls, "tls".to_owned())));
    [
        in_table(Word::Tag, "tag", &rule.tag),
        Some((Word::From, negated(&rule.from, from))),
        Some((Word::For, negated(&rule.to, to))),
        in_table(Word::Helo, "helo", &rule.helo),
        auth,
        tls,
        in_table(Word::MailFrom, "mail-from", &rule.mail_from),
        in_table(Word::RcptTo, "rcpt-to", &rule.rcpt_to),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn negated<T>(criterion: &Criterion<T>, text: String) -> String {
    if criterion.negated { format!("! {text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ActionId;
    use crate::config::tests::good;

    #[test]
    fn a_rule_is_traced_in_the_words_of_the_reference() {
        let config = good(
            "table nets { 10.0.0.0/8 }\n\
             action a mbox\n\
             match action a\n\
             match !tag X !from src <nets> for domain \"d.org\" !helo h auth tls \
                mail-from \"@x\" rcpt-to y reject\n\
             match from rdns !for any !auth u action a\n\
             match from socket for any !tls action a\n\
             match from rdns \"n\" for any action a\n",
        );
        let cases = [
            "match from local for local action a",
            "match ! tag <dynamic:0> ! from src nets for domain <dynamic:1> ! helo <dynamic:2> \
             auth tls mail-from <dynamic:3> rcpt-to <dynamic:4> action reject",
            "match from rdns ! for any ! auth <dynamic:5> action a",
            "match from socket for any ! tls action a",
            "match from rdns <dynamic:6> for any action a",
        ];
        let traced: Vec<_> = config.rules.iter().map(|one| rule(&config, one)).collect();
        assert_eq!(traced, cases);
        let verdicts = [
            (
                Verdict::Action { rule: 0, action: ActionId(0) },
                "rule #1 matched: match from local for local action a",
            ),
            (Verdict::NoRule, "no rule matched"),
            (Verdict::Failed, "temporary failure in processing of a rule"),
        ];
        for (given, expected) in verdicts {
            assert_eq!(verdict(&config, given), expected);
        }
        assert!(verdict(&config, Verdict::Reject { rule: 1 }).ends_with("action reject"));
    }
}
