//! What a complaint looks like on a terminal, and what it suggests.

use super::*;

/// The first complaint about a text that has a hint.
fn hint(main: &str) -> Option<String> {
    let diagnostics = files(main).reading(&[]).diagnostics;
    diagnostics.iter().find_map(|diagnostic| diagnostic.hint().map(str::to_owned))
}

#[test]
fn a_diagnostic_shows_the_line_on_a_terminal() {
    let errors = load_with("match reject\nsmtp limit max-rcpt 9\n", &[]).unwrap_err();
    assert_eq!(errors.render(false), "main:2: invalid session limit: max-rcpt 9\n");
    let shown = errors.render(true);
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], "main:2: invalid session limit: max-rcpt 9");
    assert!(shown.contains("2 | smtp limit max-rcpt 9"), "{shown}");
    assert!(shown.contains("^^^^^^^^ a session must be allowed at least 100"), "{shown}");
    let reserved = load_with("action local mbox\n", &[]).unwrap_err();
    assert!(reserved.render(true).contains("^^^^^ a reserved word: put it in quotes"));
    let unquoted = load_with("table t /path\n", &[]).unwrap_err();
    assert!(unquoted.render(true).contains("^ text that begins with this character"));
}

#[test]
fn hints_say_what_was_probably_meant() {
    let cases = [
        ("Match for local reject", "did you mean `match`?"),
        ("lisen on lo", "did you mean `listen`?"),
        ("match form any reject", "did you mean `from`?"),
        ("match from anyy reject", "did you mean `any`?"),
        ("match for any rejct", "did you mean `reject`?"),
        ("action a maildr", "did you mean `maildir`?"),
        ("action a relay hosts x", "did you mean `host`?"),
        ("action a mbox alais x", "did you mean `alias`?"),
        ("listen on lo hostnam x", "did you mean `hostname`?"),
        ("listen on lo no-pipelinig", "did you mean `no-pipelining`?"),
        ("action relay_out relay\nmatch action relay_uot", "did you mean `relay_out`?"),
        ("table aliases { a = b }\naction a mbox alias <alieses>", "did you mean `aliases`?"),
        ("mda wrapper nice n\naction a maildir wrapper nise", "did you mean `nice`?"),
        ("smtp limit max-rcp 100", "did you mean `max-rcpt`?"),
        ("mta limit max-con-per-host 3", "did you mean `max-conn-per-host`?"),
        ("mda limit max-sesion 3", "did you mean `max-session`?"),
        ("table t fil:/list", "did you mean `file`?"),
        ("table t nope:/list", "there is no program table-nope"),
        ("proc rspamd \"x\"\nfilter f proc rspam", "did you mean `rspamd`?"),
        (
            "pki mx.org cert \"/cert\" key \"/key\"\nlisten on lo tls pki mx.ogr",
            "did you mean `mx.org`?",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(hint(text).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn hints_say_what_is_in_the_way() {
    let pki = "pki x cert \"/cert\" key \"/key\"\n";
    let cases = [
        (format!("{pki}listen on lo tls smtps pki x"), "`tls` and `smtps` exclude each other"),
        (format!("{pki}listen on lo tls tls pki x"), "`tls` is there twice"),
        (
            format!("{pki}listen on lo tls auth auth-optional"),
            "`auth` and `auth-optional` exclude each other",
        ),
        ("listen on lo auth".into(), "passwords are only asked for on encrypted sessions"),
        (
            "table x { a }\naction a mbox alias <x>".into(),
            "table <x> is a list, a mapping is needed here",
        ),
        (
            "table x { a = b }\nmatch for domain <x> reject".into(),
            "table <x> is a mapping, a list is needed here",
        ),
        (
            "match for domain { a = b } reject".into(),
            "table <dynamic:0> is a mapping, a list is needed here",
        ),
        ("table x getpwnam\nmatch for domain <x> reject".into(), "table <x> holds accounts alone"),
        ("match reject\r\n".into(), "the line ends with CR LF; a line must end with LF alone"),
        ("\u{feff}match reject".into(), "a byte order mark: the file must begin without one"),
        ("match for domain { a, } reject".into(), "an entry is missing before the brace"),
        ("action a relay auth x host y".into(), "`auth` must come after `host` or `domain`"),
        ("action a mbox ttl 3w".into(), "a delay is a number of at least 1 and one of s, m, h, d"),
        (
            "action a mbox ttl 0d\nmatch action a".into(),
            "a delay is a number of at least 1 and one of s, m, h, d",
        ),
        (
            "action a\nmatch reject".into(),
            "the line ends where `relay`, `expand-only`, `forward-only`, `lmtp`, `maildir`, `mbox`, `mda` could follow",
        ),
        ("action a mbox\naction a maildir".into(), "it is declared in line 1"),
        ("table a { b }\n\ntable a { b }".into(), "it is declared in line 1"),
        ("table \"<localhost>\" { b }".into(), "it is built in"),
        (
            "listen on socket\nlisten on socket".into(),
            "line 1 is about it; all its options belong there",
        ),
        ("queue encryption abc".into(), "a key has 32 bytes, this one 3"),
        ("pki x cert \"/none\" key \"/key\"".into(), "/none: No such file or directory"),
    ];
    for (text, expected) in &cases {
        assert_eq!(hint(text).as_deref(), Some(*expected), "{text}");
    }
}

#[test]
fn what_follows_from_an_error_says_so() {
    let text = "action a mbox user x\nmatch action a\ntable t file:x\nmatch for domain <t> reject";
    let diagnostics = files(text).reading(&[]).diagnostics;
    let hints: Vec<_> = diagnostics.iter().filter_map(Diagnostic::hint).collect();
    assert_eq!(
        hints,
        [
            "its declaration in line 1 has an error",
            "the path after the colon must begin with /",
            "its declaration in line 3 has an error",
        ]
    );
}

#[test]
fn all_errors_of_a_file_are_found_in_one_run() {
    let text = "foo\nmatch action nope\nlisten on lo port 0\nqueue ttl 0d\nsmtp limit x 1\n";
    let expected = [
        "1: syntax error",
        "2: no such dispatcher: nope",
        "3: invalid port: 0",
        "4: invalid ttl delay: 0",
        "5: invalid session limit keyword: x",
        NO_RULES,
    ];
    assert_eq!(said(text), expected);
}

// What is not supported yet is told last and apart, so that the rest of a file is checked all the
// same.
#[test]
fn what_has_no_effect_yet_comes_after_what_is_wrong() {
    let text = "policy x\nfoo\nqueue compression\nmatch reject\n";
    let all = files(text).reading(&[]).diagnostics;
    assert!(all.has_errors());
    let expected = "main:2: syntax error\nmain:1: policy: not supported yet\n\
                    main:3: queue compression: not supported yet\n";
    assert_eq!(all.to_string(), expected);
    let only = load_with("policy x\nmatch reject\n", &[]).unwrap_err();
    assert!(only.are_fatal() && !only.has_errors());
}

#[test]
fn what_has_no_effect_yet_says_where_it_stands_and_what_can_be_done_without_it() {
    let clear = "this version sends by `smtp://` and `smtp+notls://`, in clear text";
    let kept = "leave the line out: this version keeps messages as they come";
    let cases = [
        ("policy x\n", (1, 1), "leave the line out: this version does without it"),
        ("queue compression\n", (1, 7), kept),
        ("queue encryption stdin\n", (1, 7), kept),
        ("action a relay tls\n", (1, 16), "without `tls`, mail goes out in clear text"),
        ("action a relay host smtps://h\n", (1, 21), clear),
        (
            "action a relay host smtp+tls://l@h auth { l = \"u:p\" }\n",
            (1, 36),
            "without `auth`, mail goes out without logging in",
        ),
    ];
    for (text, position, hint) in cases {
        let diagnostics = files(&format!("{text}match reject\n")).reading(&[]).diagnostics;
        assert!(diagnostics.are_fatal() && !diagnostics.has_errors(), "{text}");
        let told = diagnostics.iter().any(|one| {
            one.position() == Some(position)
                && one.hint() == Some(hint)
                && one.message().ends_with(": not supported yet")
        });
        assert!(told, "{text}: {diagnostics:?}");
    }
}

#[test]
fn what_only_fails_later_is_a_warning() {
    let cases: [(&str, &[&str]); 14] = [
        (
            "action a mbox userbase { bob = x }",
            &["1: warn: \"x\" in table \"<dynamic:0>\" is no account"],
        ),
        ("action a maildir user nosuch", &["1: warn: delivery user \"nosuch\" does not exist"]),
        (
            "match from src { \"10/8x\", ::1, \"[fe80::1%eth0]\", LOCAL } reject",
            &["1: warn: \"10/8x\" never matches the address of a client"],
        ),
        (
            "table n file:/networks\nmatch from src <n> reject",
            &["1: warn: \"example.org\" never matches the address of a client"],
        ),
        ("match for domain { \"a@b.c\" } reject", &["1: warn: \"a@b.c\" never matches a domain"]),
        ("match mail-from \"a b\" reject", &["1: warn: \"a b\" never matches a mail address"]),
        (
            "match helo regex \"(\" reject",
            &["1: warn: invalid regular expression \"(\" never matches"],
        ),
        ("action a relay src \"x\"", &["1: warn: \"x\" is no address to connect from"]),
        (
            "action a relay host \"foo://x\"",
            &["1: warn: relay host \"foo://x\": not a relay URL, mail for it will wait"],
        ),
        (
            "action a relay domain { \"a.org\" = \"x:0\" }",
            &["1: warn: relay host \"x:0\": not a relay URL, mail for it will wait"],
        ),
        (
            "action a relay host \"smtps://l@x\"",
            &[
                "1: warn: relay host \"smtps://l@x\": has a label, but the action has no auth, mail for it will wait",
            ],
        ),
        (
            "action a relay host \"smtp+notls://x\" tls",
            &[
                "1: warn: relay host \"smtp+notls://x\": is never encrypted, but the action says tls, mail for it will wait",
            ],
        ),
        (
            "listen on lo ciphers default",
            &["1: warn: ca, ciphers and protocols have no effect without tls"],
        ),
        ("smtp ciphers \"HIGH:foo:bar\"", &["1: warn: no such ciphers: foo, bar"]),
    ];
    for (text, expected) in cases {
        check_one(0, &format!("{text}\nmatch reject\n"), expected);
    }
    let many = (0..9).map(|n| format!("x{n}")).collect::<Vec<_>>().join(" ");
    let told = said(&format!("match from src {{ {many} }} reject"));
    assert_eq!(told.len(), 6);
    assert_eq!(told[5], "1: warn: 4 more entries of table \"<dynamic:0>\" are like this");
}
