//! The numbered cases of aliases, virtual recipients and `.forward` files.

mod village;

use std::net::{IpAddr, Ipv4Addr};

use self::village::{
    RULES, TABLES, account, address, expand, expand_with, forward, many, outcome, session, short,
    text_file,
};
use super::super::rules::Client;
use super::*;
use crate::config::tests::good;
use crate::ipc::blob::Blob;
use crate::ipc::message::reader::ForwardFile;
use crate::spec_case;
use crate::table::few::FewTables;
use crate::table::{Account, Tables};

const LOST: &str = "524 5.2.4 Mailing list expansion problem";
const LATER: &str = "424 4.2.4 Mailing list expansion problem";
const INVALID: &str = "550 Invalid recipient";
const FAILED: &str = "451 Temporary failure";

#[test]
fn deliveries() {
    let cases = [
        (208, "list@a.org", "alice, bob"),
        (216, "bob@a.org", "bob"),
        (217, "alice+tag@a.org", "bob"),
        (217, "alice+foo@a.org", "alice+foo"),
        (260, "Alice+Ext@a.org", "alice+ext"),
        (0, "alice+@a.org", "alice"),
        (219, "c0@a.org", "524"),
        (219, "c1@a.org", "alice"),
        (221, "u3+tag@v", "carol"),
        (221, "u3+TAG@v", "carol"),
        (221, "u3+oth@v", "dave"),
        (222, "u4+tag@v", "carol"),
        (222, "u4+zz@v", "dave"),
        (223, "u2@v2.org", "bob"),
        (223, "zz@v2.org", "erin"),
        (226, "u5@v", "gina"),
        (227, "zz@x.org", "alice"),
        // as decided: one delivery for each user, action and way
        (240, "dupl@a.org", "alice"),
        (240, "dup2@a.org", "alice"),
        (240, "both@a.org", "alice"),
        (258, "run@a.org", "_smtpd |/bin/cat -n"),
        (0, "file@a.org", "_smtpd /var/log/mail box"),
        // An expanded address comes from this machine, whoever sent the message.
        (175, "out@a.org", "relay Someone@Far.org"),
        (0, "blank@a.org", INVALID),
        // As decided: comments are none of the item, and lines that are wrong are passed over.
        (220, "inclist@a.org", "relay carol@example.net, dave, erin"),
        (0, "incboth@a.org", "gina, relay carol@example.net, dave, erin"),
        // A list that is not there is as good as no entry.
        (212, "carol@a.org", "carol"),
        (235, "empty@a.org", "empty"),
        (235, "remarks@a.org", "remarks"),
        (235, "alice@a.org", "alice"),
        (236, "kim@a.org", "kim, relay x@rdr.org"),
        (236, "kim+ext@a.org", "kim, relay x@rdr.org"),
        (0, "away+ext@a.org", "relay x@rdr.org"),
        (0, "split@a.org", "relay x@rdr.org, split |/bin/cat -n, split /var/mail/copy of mine"),
        (0, "again@a.org", "again"),
        (0, "fromroot@a.org", "root, alice"),
        (0, "toroot@a.org", "root"),
        // Lists are not included from there.
        (0, "lister@a.org", "alice"),
        (240, "pair@a.org", "alice, kim, relay x@rdr.org"),
        (0, "viaalias@a.org", "alice, bob"),
        (237, "out@f.org", "relay Someone@Far.org"),
        (237, "away@f.org", "relay x@rdr.org"),
        (238, "run@e.org", "_smtpd |/bin/cat -n"),
        (238, "out@e.org", "relay Someone@Far.org"),
        (238, "away@e.org", "relay x@rdr.org"),
        (239, "away@p.org", "away"),
        (239, "alice@p.org", "alice"),
    ];
    for (number, recipient, expected) in cases {
        let outcome = outcome(recipient);
        if expected.starts_with('5') {
            assert!(outcome.starts_with(expected), "config case {number}: {outcome}");
        } else {
            assert_eq!(outcome, expected, "config case {number}: {recipient}");
        }
        spec_case::ran("config", number);
    }
}

#[test]
fn addresses_that_one_account_keeps_get_a_copy_each() {
    let methods = [
        ("lmtp \"h:24\" rcpt-to", 2),
        ("lmtp \"/run/%{dest.domain}\"", 2),
        ("maildir \"/mail/%{DEST.user}\"", 2),
        ("mda \"deliver\"", 2),
        ("maildir wrapper each", 2),
        ("maildir \"/mail/%{user.username}\"", 1),
        ("lmtp \"h:24\"", 1),
        ("mbox", 1),
    ];
    for (method, expected) in methods {
        let text = format!(
            "mda wrapper each \"each %{{dest}} %{{mda}}\"\n\
             table people {{ \"list@d\" = \"a@d, b@d\", \"a@d\" = alice, \"b@d\" = alice }}\n\
             action a {method} virtual <people>\nmatch from any for any action a"
        );
        assert_eq!(expand(&text, "list@d").unwrap().len(), expected, "{method}");
    }
}

#[test]
fn the_user_who_delivers_has_a_forward_file_of_its_own() {
    let text = "action a maildir user away\nmatch from any for any action a";
    for (recipient, expected) in [("kim@d", "kim"), ("away@d", "away |/bin/mine")] {
        let (result, _) = expand_with(text, recipient, |_| text_file("|/bin/mine"));
        let deliveries = result.unwrap();
        assert_eq!(deliveries.iter().map(short).collect::<Vec<_>>(), [expected]);
    }
    spec_case::ran("config", 239);
}

#[test]
fn refusals() {
    let cases = [
        (148, "a@nomatch.org", INVALID),
        (209, "err5@a.org", "550 5.1.1 gone away"),
        (210, "err4@a.org", "450 4.2.1 later"),
        (211, "mix@a.org", "550 5.1.1 mixed"),
        (149, "refused@a.org", INVALID),
        (212, "inc@a.org", INVALID),
        (213, "incnone@a.org", LOST),
        (0, "incslow@a.org", LATER),
        (0, "inclarge@a.org", LATER),
        (0, "incmany@a.org", LATER),
        (233, "wrong@a.org", LATER),
        (0, "ring1@a.org", LOST),
        (0, "gone@a.org", INVALID),
        (0, "refuser@a.org", "550 5.1.1 moved"),
        (237, "alice@f.org", LATER),
        (237, "list@f.org", LATER),
        (0, "kim@f.org", LATER),
        (237, "run@f.org", FAILED),
        (237, "file@f.org", FAILED),
        (237, "err5@f.org", FAILED),
        (237, "nobody@f.org", INVALID),
        (238, "alice@e.org", LOST),
        (238, "err5@e.org", "550 5.1.1 gone away"),
        (0, "kim@e.org", LOST),
        (214, "loop1@a.org", LOST),
        (215, "self@a.org", INVALID),
        (218, "bad@a.org", LATER),
        (225, "nobody@v", LOST),
        (228, "u13@v", LOST),
        (229, "u14@v", INVALID),
        (0, "nobody@a.org", INVALID),
        (0, "+tag@a.org", INVALID),
        (0, "unknowable@a.org", FAILED),
        // One bad branch refuses the whole recipient.
        (0, "mixed@a.org", INVALID),
    ];
    for (number, recipient, expected) in cases {
        let expected = format!("{expected}: <{recipient}>");
        assert_eq!(outcome(recipient), expected, "config case {number}: {recipient}");
        spec_case::ran("config", number);
    }
}

#[test]
fn what_a_forward_file_is_decides_what_is_said() {
    let text = format!("{TABLES}{RULES}");
    let failed = |reason: &str| ForwardFile::Failed(reason.to_owned());
    let refused = || ForwardFile::Refused("/home/alice/.forward: insecure file".to_owned());
    let nodes = "forward file expanded too many nodes (user alice)";
    let cases = [
        (230, refused(), LOST, "smtpd: /home/alice/.forward: insecure file"),
        (231, ForwardFile::Refused("a link".to_owned()), LOST, "smtpd: a link"),
        (232, failed("/home/alice: the directory is sticky"), LATER, "sticky"),
        (0, failed("it hangs"), LATER, "it hangs"),
        (233, ForwardFile::TooLarge, LATER, "forward file exceeds max size (user alice)"),
        (233, text_file(&many(101)), LATER, nodes),
        (0, text_file(&many(99)), LATER, nodes),
        (0, text_file(&format!("{}\nbob", many(98))), LATER, nodes),
        (
            233,
            text_file("bob\nbad line here"),
            LATER,
            "parse error in forward file: line 2 (user alice)",
        ),
    ];
    for (number, file, reply, note) in cases {
        let (result, notes) = expand_with(&text, "alice@a.org", |_| file.clone());
        assert_eq!(result.unwrap_err().line(), reply, "config case {number}");
        let [Note::Info(said) | Note::Warning(said)] = &notes[..] else { panic!("{notes:?}") };
        assert!(said.ends_with(note), "config case {number}: {said}");
        spec_case::ran("config", number);
    }
    let (result, notes) = expand_with(&text, "alice@a.org", |_| text_file(&many(98)));
    assert_eq!((result.unwrap().len(), notes), (98, vec![]));
    spec_case::ran("config", 234);
    let (result, notes) = expand_with(&text, "alice@a.org", |_| text_file(""));
    assert_eq!(result.unwrap().len(), 1);
    assert_eq!(notes, [Note::Info("forward file is empty (user alice)".to_owned())]);
    spec_case::ran("config", 235);
}

#[test]
fn lists_that_cannot_be_read_are_named() {
    let text = format!("{TABLES}{RULES}");
    let notes = |recipient| match &expand_with(&text, recipient, forward).1[..] {
        [Note::Warning(said)] => said.clone(),
        notes => panic!("{notes:?}"),
    };
    assert_eq!(notes("carol@a.org"), "failed to open include file \"/missing\". (No such file)");
    assert_eq!(notes("inclist@a.org"), "include file /list: line 2 is no list of recipients");
    assert_eq!(notes("inclarge@a.org"), "include file /large is too large");
    assert_eq!(notes("incslow@a.org"), "include file /slow: it hangs");
}

#[test]
fn nothing_runs_as_root() {
    let text = format!("{TABLES}{RULES}");
    let outcome = |says: &'static str| {
        let (result, _) = expand_with(&text, "root@a.org", |name| match name {
            "root" => text_file(says),
            other => forward(other),
        });
        result.map(|deliveries| deliveries.iter().map(short).collect::<Vec<_>>().join(", "))
    };
    for says in ["|/bin/cat", "/var/mail/other", "alice, |/bin/cat"] {
        assert_eq!(outcome(says).unwrap_err().line(), FAILED, "{says}");
    }
    // Addresses, users and aliases are as good as anyone's.
    assert_eq!(
        outcome("alice, x@rdr.org, run").unwrap(),
        "alice, relay x@rdr.org, _smtpd |/bin/cat -n"
    );
}

#[test]
fn a_failing_table_is_temporary() {
    let aliases = "table t file:/map\naction a mbox alias <t>\nmatch from any for any action a";
    let refusal = expand(aliases, "a@d").unwrap_err();
    assert_eq!(refusal.reply(&address("a@d")), format!("{LATER}: <a@d>"));
    assert!(refusal.is_temporary());
    spec_case::ran("config", 241);
    let userbase = "table t file:/map\naction a maildir userbase <t>\n\
                    match from any for any action a";
    let refusal = expand(userbase, "a@d").unwrap_err();
    assert_eq!(refusal.reply(&address("a@d")), "451 Temporary failure: <a@d>");
    let other = "action a maildir userbase { b = \"1:1:/\" }\nmatch from any for any action a";
    assert_eq!(
        expand(other, "a@d").unwrap_err().reply(&address("a@d")),
        format!("{INVALID}: <a@d>")
    );
    spec_case::ran("config", 242);
    let rules = "table t file:/list\nmatch from any for domain <t> reject";
    let refusal = expand(rules, "a@d").unwrap_err();
    assert_eq!(refusal.reply(&address("a@d")), "451 Temporary failure: <a@d>");
    spec_case::ran("config", 174);
}

#[test]
fn a_virtual_domain_can_have_one_user_for_everything() {
    let text = "action a maildir virtual { \"@\" = frank }\nmatch from any for any action a";
    let deliveries = expand(text, "whoever@d").unwrap();
    assert_eq!(deliveries.iter().map(short).collect::<Vec<_>>(), ["frank"]);
    spec_case::ran("config", 224);
    assert_eq!(deliveries[0].destination, address("whoever@d"));
}

#[test]
fn the_destination_is_the_address_that_led_there() {
    let text = format!("{TABLES}{RULES}");
    let deliveries = expand(&text, "Zz@x.org").unwrap();
    assert_eq!(deliveries[0].destination, address("someone@x.org"));
    let deliveries = expand(&text, "List@a.org").unwrap();
    assert!(deliveries.iter().all(|delivery| delivery.destination == address("List@a.org")));
}

#[test]
fn nodes_and_what_they_came_to_can_be_looked_at() {
    let config = good(&format!("{TABLES}{RULES}"));
    let tables = Tables::new(&config);
    let few = FewTables::new(&config);
    let mut expansion = Expansion::new(address("dupl@a.org"), "_smtpd");
    let mut answer = None;
    loop {
        match expansion.advance(&config, &few, &session(), answer.as_ref()) {
            Step::Ask(question) => {
                answer = Some(tables.answer(&question).unwrap_or_else(|| account(&question)));
            }
            Step::Done(_) => break,
            Step::Read(_) => {
                answer = None;
                expansion.supply(Contents::Forward(ForwardFile::Absent));
            }
        }
    }
    let seen: Vec<_> =
        expansion.nodes().map(|node| (node.item.to_string(), node.parent, node.begun)).collect();
    let expected = [
        ("dupl@a.org", None),
        ("dupl", Some(0)),
        ("alice", Some(1)),
        ("viab", Some(1)),
        ("alice", Some(3)),
    ];
    let expected = expected.map(|(item, parent)| (item.to_owned(), parent, true));
    assert_eq!(seen, expected);
    assert_eq!((expansion.origins(), expansion.position()), (&[2][..], 4));
}

#[test]
fn an_expansion_cannot_grow_without_end() {
    let members = |level: usize| {
        let all: Vec<_> = (0..40).map(|n| format!("m{}x{n}@d", level + 1)).collect();
        all.join(",")
    };
    let entries: Vec<_> = (0..3)
        .flat_map(|level| (0..40).map(move |n| (level, n)))
        .map(|(level, n)| format!("\"m{level}x{n}@d\" = \"{}\"", members(level)))
        .collect();
    let text = format!(
        "table v {{\n{}\n}}\naction a maildir virtual <v>\nmatch from any for any action a",
        entries.join("\n")
    );
    let refusal = expand(&text, "m0x0@d").unwrap_err();
    assert_eq!(refusal.because(), "it comes to too many recipients");
}

proptest::proptest! {
    #[test]
    fn any_recipient_and_any_entry_come_to_an_end(
        local in "[ -~]{0,12}",
        domain in "[ -~]{0,12}",
        value in "[ -~]{0,40}",
        text in proptest::collection::vec(0_u8..=255, 0..60),
    ) {
        let mut config = good("table t { k = v }\naction a mbox alias <t>\n\
                               match from any for any action a");
        let table = config.table_named("t").unwrap();
        let key = local.to_ascii_lowercase();
        let entry = crate::config::TableEntry { key, value: Some(value) };
        config.tables[table.0 as usize].source = crate::config::TableSource::Inline(vec![entry]);
        let tables = Tables::new(&config);
        let few = FewTables::new(&config);
        let mut expansion = Expansion::new(Address::new(&local, &domain), "_smtpd");
        let mut answer = None;
        let mut steps = 0;
        let account = || Account { uid: 1, gid: 1, home: "/h".to_owned() };
        loop {
            match expansion.advance(&config, &few, &session(), answer.as_ref()) {
                Step::Ask(question) => {
                    let other = || Answer::Account(Some(account()));
                    answer = Some(tables.answer(&question).unwrap_or_else(other));
                }
                Step::Done(_) => break,
                Step::Read(Reading::Forward { .. }) => {
                    answer = None;
                    expansion.supply(Contents::Forward(ForwardFile::Text(Blob(text.clone()))));
                }
                Step::Read(Reading::Include { .. }) => {
                    answer = None;
                    expansion.supply(Contents::Include(IncludedList::Text(text.clone())));
                }
            }
            steps += 1;
            proptest::prop_assert!(steps < 20_000);
        }
    }
}
