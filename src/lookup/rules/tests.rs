//! Rules and who falls under them.

use super::*;
use crate::config::tests::good;
use crate::spec_case;
use crate::table::Tables;

fn remote() -> Session {
    Session {
        tag: String::new(),
        client: Client::Address("127.0.0.5".parse::<std::net::IpAddr>().unwrap().into()),
        client_name: None,
        helo: "good.host".into(),
        login: None,
        tls: false,
        sender: Address::new("a", "b.c"),
    }
}

fn local() -> Session {
    let client = Client::Address("127.0.0.1".parse::<std::net::IpAddr>().unwrap().into());
    Session { client, ..remote() }
}

/// A client whose address no table can hold.
fn link_local() -> Session {
    let address = "fe80::1".parse::<std::net::IpAddr>().unwrap();
    let scope = Some(crate::config::Scope { index: 2, name: "eth0".to_owned() });
    Session { client: Client::Address(LocalAddress { address, scope }), ..remote() }
}

fn submitted() -> Session {
    Session { client: Client::Socket, login: Some(String::new()), ..remote() }
}

fn from(local: &str, domain: &str) -> Session {
    Session { sender: Address::new(local, domain), ..remote() }
}

fn named(name: &str) -> Session {
    Session { client_name: Some(name.into()), ..remote() }
}

fn logged_in(name: &str) -> Session {
    Session { login: Some(name.into()), ..remote() }
}

fn tagged() -> Session {
    Session { tag: "TAGGED".into(), ..remote() }
}

fn address(text: &str) -> Address {
    let (local, domain) = text.split_once('@').unwrap();
    Address::new(local, domain)
}

fn search(rules: &str, session: &Session, recipient: &str, internal: bool) -> Verdict {
    let config = good(&format!("action a mbox\n{rules}\n"));
    let tables = Tables::new(&config);
    let few = FewTables::new(&config);
    let address = address(recipient);
    let recipient = Recipient { address: &address, internal };
    let mut search = Search::new();
    let mut answer = None;
    loop {
        match search.advance(&config, &few, session, recipient, answer.as_ref()) {
            Progress::Ask(question) => answer = tables.answer(&question),
            Progress::Found(verdict) => return verdict,
        }
    }
}

#[test]
fn criteria() {
    let d = "match from any for domain \"d.org\" action a";
    let any = |criteria: &str| format!("match from any for any {criteria} action a");
    let of = |criteria: &str| format!("match for any {criteria} action a");
    let cases = [
        (148, d.to_owned(), remote(), "a@nomatch.org", false),
        (148, d.to_owned(), remote(), "a@D.org", true),
        (150, "match from local for domain \"d\" action a".into(), local(), "a@d", true),
        (150, "match from local for domain \"d\" action a".into(), remote(), "a@d", false),
        (151, of("from socket"), local(), "a@d", false),
        (151, of("from socket"), submitted(), "a@d", true),
        (0, of("!from socket"), local(), "a@d", true),
        (152, "match for any action a".into(), remote(), "a@d", false),
        (0, "match for any action a".into(), submitted(), "a@d", true),
        (0, any(""), remote(), "postmaster@", false),
        (0, "match from any action a".into(), remote(), "a@localhost", true),
        (0, "match from any action a".into(), remote(), "a@mail.example.org", true),
        (0, "match from any action a".into(), remote(), "a@d", false),
        (153, any("mail-from regex \"^@$\""), from("", ""), "a@d", true),
        (153, any("mail-from regex \"^@$\""), remote(), "a@d", false),
        (154, any("mail-from \"bob\""), from("BOB+x", "z.z"), "a@d", true),
        (154, any("mail-from \"bob\""), from("rob", "z.z"), "a@d", false),
        (155, any("!mail-from \"@bad.org\""), from("x", "bad.org"), "a@d", false),
        (155, any("!mail-from \"@bad.org\""), from("x", "good.org"), "a@d", true),
        (156, any("tag TAGGED"), remote(), "a@d", false),
        (156, any("tag TAGGED"), tagged(), "a@d", true),
        (157, any("tag \"tag*\""), tagged(), "a@d", false),
        (157, any("tag regex \"^TAG\""), tagged(), "a@d", true),
        (158, any("helo \"good.*\""), remote(), "a@d", true),
        (159, any("auth"), remote(), "a@d", false),
        (159, any("!auth"), remote(), "a@d", true),
        (160, any("tls"), remote(), "a@d", false),
        (160, any("tls"), Session { tls: true, ..remote() }, "a@d", true),
        (0, any("!tls"), remote(), "a@d", true),
        // Two backslashes in the file are a literal backslash and any character.
        (
            161,
            "match from any for domain regex \"^re[0-9]+\\\\.org$\" action a".into(),
            remote(),
            "alice@re12.org",
            false,
        ),
        (
            161,
            "match from any for domain regex \"^re[0-9]+\\.org$\" action a".into(),
            remote(),
            "alice@re12.org",
            true,
        ),
        (
            162,
            "match from any for rcpt-to \"alice@rt.org\" action a".into(),
            remote(),
            "alice+x@rt.org",
            true,
        ),
        (163, "match from any for domain \"*.w\" action a".into(), remote(), "a@b.w", true),
        (163, "match from any for domain \"*.w\" action a".into(), remote(), "a@c.b.w", false),
        (163, "match from any for domain \"*.w\" action a".into(), remote(), "a@w", false),
        // As decided: whoever it is.
        (0, any(""), link_local(), "a@d", true),
        (0, of("from src \"::/0\""), link_local(), "a@d", false),
        (164, of("from rdns"), remote(), "a@d", false),
        (164, of("!from rdns"), remote(), "a@d", true),
        (165, of("from rdns \"m.r.x\""), named("M.r.x"), "a@d", true),
        // as decided: patterns match
        (166, of("from rdns \"*.r.x\""), named("m.r.x"), "a@d", true),
        (167, of("from rdns regex \"\\.r\\.x$\""), named("m.r.x"), "a@d", true),
        (168, of("!from rdns \"m.r.x\""), named("other"), "a@d", true),
        (168, of("!from rdns \"m.r.x\""), remote(), "a@d", false),
        (169, of("from auth \"alice\""), logged_in("ALICE"), "a@d", true),
        (170, of("from auth \"@dom.org\""), logged_in("bob@dom.org"), "a@d", true),
        (171, of("auth"), submitted(), "a@d", true),
        (172, of("from auth \"alice\""), submitted(), "a@d", false),
        (0, of("!from auth \"alice\""), remote(), "a@d", true),
        (
            173,
            "match from any !for domain \"deny.org\" rcpt-to \"zed\" action a".into(),
            remote(),
            "zed@deny.org",
            false,
        ),
        (
            173,
            "match from any !for domain \"deny.org\" rcpt-to \"zed\" action a".into(),
            remote(),
            "zed@other.org",
            true,
        ),
        (0, of("from src \"127.0.0.0/8\""), remote(), "a@d", true),
        (0, of("!from src \"127.0.0.0/8\""), remote(), "a@d", false),
        (0, of("from src regex \"^127\""), remote(), "a@d", true),
        (0, of("from src \"local\""), submitted(), "a@d", true),
    ];
    for (number, rule, session, recipient, expected) in cases {
        let verdict = search(&rule, &session, recipient, false);
        let action = Verdict::Action { rule: 0, action: ActionId(0) };
        let expected = if expected { action } else { Verdict::NoRule };
        assert_eq!(verdict, expected, "config case {number}: {rule}");
        spec_case::ran("config", number);
    }
}

#[test]
fn an_address_that_an_expansion_produced_comes_from_this_machine() {
    let cases = [
        ("from local", true),
        ("from any", true),
        ("from src \"local\"", true),
        ("from src \"127.0.0.5\"", false),
        ("from socket", false),
        ("!from socket", false),
        ("from rdns", false),
        ("!from rdns", false),
        ("from rdns \"m.r.x\"", false),
    ];
    for (from, expected) in cases {
        let rule = format!("match {from} for any action a");
        let verdict = search(&rule, &named("m.r.x"), "y@intonly.org", true);
        assert_eq!(matches!(verdict, Verdict::Action { .. }), expected, "{from}");
    }
    let rule = "match from local for domain intonly.org action a";
    let action = Verdict::Action { rule: 0, action: ActionId(0) };
    assert_eq!(search(rule, &remote(), "y@intonly.org", true), action);
    assert_eq!(search(rule, &remote(), "y@intonly.org", false), Verdict::NoRule);
    spec_case::ran("config", 175);
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = "match for domain \"x\" action a\nmatch for domain \"d\" reject\n\
                 match for any action a";
    assert_eq!(search(rules, &local(), "a@d", false), Verdict::Reject { rule: 1 });
    spec_case::ran("config", 149);
    let last = Verdict::Action { rule: 2, action: ActionId(0) };
    assert_eq!(search(rules, &local(), "a@e", false), last);
}

#[test]
fn a_table_that_fails_ends_the_search_if_it_is_reached() {
    let rules = "table t file:/list\nmatch for domain <t> reject\nmatch for any action a";
    assert_eq!(search(rules, &local(), "a@d", false), Verdict::Failed);
    assert_eq!(search(rules, &remote(), "a@d", false), Verdict::NoRule);
    spec_case::ran("config", 174);
}
