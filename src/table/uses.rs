//! For what a configuration asks its tables, where that takes preparation.

use super::Service;
use crate::config::{
    ActionKind, Config, Destination, Filter, FilterCondition, FilterKind, Login, Rule, Source,
    TableId, TableMatch,
};

/// The tables that are asked by address, by regular expression or in turn, with that service: what is
/// made for it, is made when the table is read.
pub(super) fn uses(config: &Config) -> Vec<(TableId, Service)> {
    let mut uses: Vec<_> = config.rules.iter().flat_map(of_rule).collect();
    for action in &config.actions {
        if let ActionKind::Relay(relay) = &action.kind {
            uses.extend(relay.host.map(|table| (table, Service::Relayhost)));
            uses.extend(relay.source.map(|table| (table, Service::Source)));
        }
    }
    uses.extend(config.filters.iter().filter_map(of_filter));
    uses
}

fn of_filter(filter: &Filter) -> Option<(TableId, Service)> {
    let FilterKind::BuiltIn(filter) = &filter.kind else { return None };
    let (test, addresses) = match filter.condition {
        FilterCondition::Auth(test) | FilterCondition::Rdns(test) => (test?, false),
        FilterCondition::Fcrdns => return None,
        FilterCondition::Helo(test)
        | FilterCondition::MailFrom(test)
        | FilterCondition::RcptTo(test) => (test, false),
        FilterCondition::Src(test) => (test, true),
    };
    match (test.regex, addresses) {
        (true, _) => Some((test.table, Service::Regex)),
        (false, true) => Some((test.table, Service::Netaddr)),
        (false, false) => None,
    }
}

fn of_rule(rule: &Rule) -> Vec<(TableId, Service)> {
    let mut tests = Vec::new();
    let mut networks = None;
    match rule.from.test {
        Source::Src(test) if test.regex => tests.push(test),
        Source::Src(test) => networks = Some((test.table, Service::Netaddr)),
        Source::Name(test) => tests.extend(test),
        Source::Any | Source::Local | Source::Socket => {}
    }
    if let Destination::Domain(test) = rule.to.test {
        tests.push(test);
    }
    if let Some(Login::User(test)) = rule.auth.as_ref().map(|auth| auth.test) {
        tests.push(test);
    }
    for test in [&rule.tag, &rule.helo, &rule.mail_from, &rule.rcpt_to] {
        tests.extend(test.as_ref().map(|criterion| criterion.test));
    }
    let expressions = |test: &TableMatch| test.regex.then_some((test.table, Service::Regex));
    networks.into_iter().chain(tests.iter().filter_map(expressions)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::good;

    #[test]
    fn what_takes_preparation_is_found_in_rules_and_actions() {
        let config = good(
            "table n { \"10.0.0.0/8\" }\ntable e { a }\ntable h { \"mx\" }\n\
             action r relay host <h>\n\
             match from src <n> for domain regex <e> mail-from <e> action r\n\
             table s { \"::1\" }\ntable f { b }\ntable d { c }\n\
             filter x phase connect match !src <s> junk\n\
             filter y phase helo match helo regex <f> junk\n\
             filter z phase helo match helo <d> junk",
        );
        let table = |name| config.table_named(name).unwrap();
        let expected = [
            (table("n"), Service::Netaddr),
            (table("e"), Service::Regex),
            (table("h"), Service::Relayhost),
            (table("s"), Service::Netaddr),
            (table("f"), Service::Regex),
        ];
        assert_eq!(uses(&config), expected);
    }
}
