//! Filters that the server itself is: whether their conditions hold.
//!
//! Tables are asked through questions, which whoever drives the engine answers. Keys are compared as
//! tables compare them for rules: without regard to case, regular expressions as written.
//!
//! Source: section 5.7 of the SMTP page.

use super::{Facts, Fcrdns, Phase};
use crate::config::{BuiltInFilter, FilterCondition, FilterPhase, TableMatch};
use crate::table::{Answer, Question, Service};

/// Whether a condition holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Test {
    /// A table has to be asked; [`holds`] says what its answer means.
    Ask(Question),
    /// It does, or does not.
    Known(bool),
}

/// The phase in which a filter is looked at.
#[must_use]
pub fn phase(filter: &BuiltInFilter) -> Phase {
    match filter.phase {
        FilterPhase::Connect => Phase::Connect,
        FilterPhase::Helo => Phase::Helo,
        FilterPhase::Ehlo => Phase::Ehlo,
        FilterPhase::MailFrom => Phase::MailFrom,
        FilterPhase::RcptTo => Phase::RcptTo,
        FilterPhase::Data => Phase::Data,
        FilterPhase::Commit => Phase::Commit,
    }
}

/// Phases that have to be asked for the condition to be known when it is looked at, its own among
/// them, as in [`Phase::bit`].
#[must_use]
pub fn needs(filter: &BuiltInFilter) -> u16 {
    let earlier = match filter.condition {
        FilterCondition::Helo(_) => Phase::Helo.bit() | Phase::Ehlo.bit(),
        FilterCondition::MailFrom(_) => Phase::MailFrom.bit(),
        FilterCondition::RcptTo(_) => Phase::RcptTo.bit(),
        FilterCondition::Auth(_)
        | FilterCondition::Fcrdns
        | FilterCondition::Rdns(_)
        | FilterCondition::Src(_) => 0,
    };
    earlier | phase(filter).bit()
}

/// Whether the condition has to know who logs in, which events tell.
#[must_use]
pub fn needs_events(filter: &BuiltInFilter) -> bool {
    matches!(filter.condition, FilterCondition::Auth(_))
}

/// Tests the condition of a filter, `!` taken into account.
#[must_use]
pub fn test(filter: &BuiltInFilter, facts: &Facts) -> Test {
    let contains = |test: TableMatch, service, key: Option<&str>| match key {
        Some(key) => Test::Ask(Question::Contains {
            table: test.table,
            service: if test.regex { Service::Regex } else { service },
            key: key.to_owned(),
        }),
        // What is not known is in no table.
        None => Test::Known(filter.negated),
    };
    let known = |holds: bool| Test::Known(holds != filter.negated);
    match filter.condition {
        FilterCondition::Auth(None) => known(facts.user.is_some()),
        FilterCondition::Auth(Some(test)) => contains(test, Service::String, facts.user.as_deref()),
        FilterCondition::Fcrdns => known(facts.fcrdns == Fcrdns::Pass),
        FilterCondition::Helo(test) => contains(test, Service::Domain, facts.helo.as_deref()),
        FilterCondition::MailFrom(test) => {
            contains(test, Service::Mailaddr, facts.mail_from.as_deref())
        }
        FilterCondition::RcptTo(test) => {
            contains(test, Service::Mailaddr, facts.rcpt_to.as_deref())
        }
        FilterCondition::Rdns(None) => known(facts.has_name()),
        FilterCondition::Rdns(Some(test)) => contains(test, Service::Domain, Some(&facts.hostname)),
        FilterCondition::Src(test) => {
            contains(test, Service::Netaddr, Some(&facts.source.to_string()))
        }
    }
}

/// Whether the condition of a filter holds, now that the table has answered. A table that cannot be
/// read has no entry.
#[must_use]
pub fn holds(filter: &BuiltInFilter, answer: &Answer) -> bool {
    (*answer == Answer::Contains(true)) != filter.negated
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FilterKind;
    use crate::config::tests::good;
    use crate::filter::{AuthResult, Event};
    use crate::model::envelope::Source;
    use crate::spec_case::ran;
    use crate::table::Tables;

    /// A session of `alice`, from a host with a name.
    fn facts() -> Facts {
        let source = Source::Ip("10.9.8.7".parse().unwrap());
        let mut facts = Facts::new("host.b.c".to_owned(), Fcrdns::Pass, source);
        facts.asked(Phase::Ehlo, b"x.b.c");
        facts.asked(Phase::MailFrom, b"a@b");
        facts.asked(Phase::RcptTo, b"c@d");
        facts.happened(&Event::LinkAuth { result: AuthResult::Fail, user: b"mallory".to_vec() });
        facts.happened(&Event::LinkAuth { result: AuthResult::Pass, user: b"alice".to_vec() });
        facts
    }

    fn check(number: u32, condition: &str, facts: &Facts, expected: bool) {
        let text = format!("filter f phase {condition} junk\nmatch reject\n");
        let config = good(&text);
        let FilterKind::BuiltIn(filter) = &config.filters[0].kind else { panic!("{text}") };
        let found = match test(filter, facts) {
            Test::Known(holds) => holds,
            Test::Ask(question) => holds(filter, &Tables::new(&config).answer(&question).unwrap()),
        };
        assert_eq!(found, expected, "case F{number}: {condition}: {facts:?}");
        ran("filter", number);
    }

    #[test]
    fn conditions_of_addresses_and_names() {
        let named = facts();
        let nameless = Facts { hostname: "<unknown>".into(), fcrdns: Fcrdns::Fail, ..facts() };
        let failed = Facts { fcrdns: Fcrdns::Error, ..facts() };
        let literal = Facts { hostname: "10.9.8.7".into(), ..facts() };
        let bracketed = Facts { hostname: "[::1]".into(), ..facts() };
        let sixth = Facts { source: Source::Ip("2001:db8::1".parse().unwrap()), ..facts() };
        let local = Facts { source: Source::Local, ..facts() };
        let cases = [
            (81, "connect match rdns", &nameless, false),
            (81, "connect match !rdns", &nameless, true),
            (0, "connect match rdns", &named, true),
            (0, "connect match rdns", &literal, false),
            (0, "connect match rdns", &bracketed, false),
            (0, "connect match rdns \"*.b.c\"", &named, true),
            (0, "connect match rdns \"<unknown>\"", &nameless, true),
            (0, "connect match rdns regex \"^HOST\"", &named, true),
            (90, "connect match !fcrdns", &nameless, true),
            (90, "connect match !fcrdns", &failed, true),
            (0, "connect match fcrdns", &named, true),
            (82, "connect match src { \"10.9.8.0/24\" }", &named, true),
            (82, "helo match src { \"10.9.8.0/24\" }", &named, true),
            (0, "connect match src \"10.9.8.7\"", &named, true),
            (0, "connect match src \"10.9.9.0/24\"", &named, false),
            (0, "connect match src \"10.9.8.0/24\"", &sixth, false),
            (0, "connect match src \"2001:db8::/32\"", &sixth, true),
            (0, "connect match src \"[2001:db8::1]\"", &sixth, true),
            (0, "connect match src regex \"^10[.]\"", &named, true),
            (0, "connect match src \"local\"", &local, true),
            (0, "connect match src { \"0.0.0.0/0\" }", &local, false),
        ];
        for (number, condition, facts, expected) in cases {
            check(number, condition, facts, expected);
        }
    }

    #[test]
    fn conditions_of_what_the_client_says() {
        let helo = |name: &str| Facts { helo: Some(name.to_owned()), ..facts() };
        let mail = |address: &str| Facts { mail_from: Some(address.to_owned()), ..facts() };
        let rcpt = |address: &str| Facts { rcpt_to: Some(address.to_owned()), ..facts() };
        let stranger = Facts { user: None, ..facts() };
        let bob = Facts { user: Some("bob".into()), ..facts() };
        let cases = [
            (83, "ehlo match helo regex \"^A\"", helo("a.b"), true),
            (0, "ehlo match helo regex \"^A\"", helo("b.a"), false),
            (84, "ehlo match helo \"*.b.c\"", helo("x.b.c"), true),
            (84, "ehlo match helo \"*.b.c\"", helo("b.c"), false),
            (84, "ehlo match helo \"*.b.c\"", helo("y.x.b.c"), false),
            (85, "mail-from match mail-from \"@b\"", mail("a@b"), true),
            (85, "mail-from match mail-from \"@b\"", mail("a@c"), false),
            (86, "mail-from match mail-from regex \"^$\"", mail(""), true),
            (86, "mail-from match mail-from regex \"^$\"", mail("a@b"), false),
            (0, "mail-from match mail-from \"@\"", mail(""), true),
            (87, "rcpt-to match rcpt-to \"c@d\"", rcpt("C@D"), true),
            (87, "rcpt-to match rcpt-to \"c@d\"", rcpt("c+tag@d"), true),
            (87, "rcpt-to match rcpt-to \"c@d\"", rcpt("x@d"), false),
            (88, "mail-from match !auth", stranger.clone(), true),
            (88, "mail-from match !auth", facts(), false),
            (89, "mail-from match auth \"alice\"", facts(), true),
            (89, "mail-from match auth \"alice\"", bob, false),
            (89, "mail-from match auth \"alice\"", stranger.clone(), false),
            (0, "mail-from match !auth \"alice\"", stranger.clone(), true),
            (0, "mail-from match auth regex \"^AL\"", facts(), true),
            (0, "data match mail-from \"a@b\"", facts(), true),
            (0, "data match mail-from \"a@b\"", Facts { mail_from: None, ..facts() }, false),
        ];
        for (number, condition, facts, expected) in cases {
            check(number, condition, &facts, expected);
        }
    }

    #[test]
    fn a_table_that_fails_has_no_entry() {
        for (condition, expected) in [("src \"10.0.0.0/8\"", false), ("!src \"10.0.0.0/8\"", true)]
        {
            let config =
                good(&format!("filter f phase connect match {condition} junk\nmatch reject\n"));
            let FilterKind::BuiltIn(filter) = &config.filters[0].kind else { panic!() };
            assert_eq!(holds(filter, &Answer::Failed), expected, "{condition}");
        }
    }

    #[test]
    fn what_a_condition_looks_at_is_asked_for_in_time() {
        let cases = [
            ("connect match fcrdns", vec![Phase::Connect], false),
            ("data match mail-from \"@b\"", vec![Phase::MailFrom, Phase::Data], false),
            ("rcpt-to match rcpt-to \"@b\"", vec![Phase::RcptTo], false),
            ("data match helo \"b\"", vec![Phase::Helo, Phase::Ehlo, Phase::Data], false),
            ("commit match auth \"b\"", vec![Phase::Commit], true),
        ];
        for (condition, phases, events) in cases {
            let config =
                good(&format!("filter f phase {condition} reject \"550 x\"\nmatch reject\n"));
            let FilterKind::BuiltIn(filter) = &config.filters[0].kind else { panic!() };
            let bits = phases.iter().fold(0, |bits, phase| bits | phase.bit());
            assert_eq!((needs(filter), needs_events(filter)), (bits, events), "{condition}");
        }
    }
}
