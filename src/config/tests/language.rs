//! Cases of the language itself: words, macros, includes, tables.

use super::*;

#[test]
fn lexical_rules() {
    check(&[
        (1, "", &[NO_RULES]),
        (2, "match reject", &[]),
        (3, "action a maildir\nmatch for local action a", &[]),
        (4, "foo", &["1: syntax error", NO_RULES]),
        (5, "Match for local reject", &["1: syntax error", NO_RULES]),
        (6, "match for local reject\r\n", &["1: syntax error", NO_RULES]),
        (7, "\u{feff}match reject", &["1: syntax error", NO_RULES]),
        (8, "match for \\\n local reject", &[]),
        (9, "# x \\\nmatch reject", &[NO_RULES]),
        (10, "match for local reject # c", &[]),
        (
            11,
            "match tag \"abc reject",
            &["1: reached end of file while parsing quoted string", "1: syntax error", NO_RULES],
        ),
        (12, "match tag \"a\nb\" reject", &[]),
        (13, "match tag 'abc' reject", &[]),
        (14, "match for domain 'it''s' reject", &["1: syntax error", NO_RULES]),
        (
            15,
            "match tag \\\"abc\\\" reject",
            &["1: reached end of file while parsing quoted string", "1: syntax error", NO_RULES],
        ),
        (16, "match tag /abc reject", &["1: syntax error", NO_RULES]),
        (17, "match tag abc/def reject", &[]),
        (18, "match tag 123 reject", &["1: syntax error", NO_RULES]),
        (18, "match tag \"123\" reject", &[]),
        (18, "match tag 12a reject", &[]),
        (19, "match tag a$b reject", &[]),
        (20, "match from src 10/8 reject", &["1: syntax error", NO_RULES]),
        (20, "match from src \"10/8\" reject", &[]),
        (20, "match from src 10.0.0.0/8 reject", &[]),
        (21, "match from src ::1 reject", &[]),
        (21, "match from src [::1] reject", &["1: syntax error", NO_RULES]),
        (21, "match from src \"[::1]\" reject", &[]),
        (22, "match mail-from @example.org reject", &["1: syntax error", NO_RULES]),
        (22, "match mail-from \"@example.org\" reject", &[]),
        (23, "match for domain *.example.org reject", &["1: syntax error", NO_RULES]),
        (23, "match for domain \"*.example.org\" reject", &[]),
        (24, "match tag local reject", &["1: syntax error", NO_RULES]),
        (24, "match tag \"local\" reject", &[]),
        (47, "match reject ; match reject", &["1: syntax error", NO_RULES]),
    ]);
}

#[test]
fn macros_and_numbers() {
    check(&[
        (25, "foo = bar\nmatch reject", &[]),
        (26, "p = 25\nmatch reject", &["1: syntax error"]),
        (27, "p = \"25\"\nlisten on lo port $p\nmatch reject", &[]),
        (28, "listen on lo port \"25\"\nmatch reject", &["1: invalid port: 25"]),
        (29, "x = \"for local\"\nmatch $x reject", &[]),
        (
            30,
            "match $nope reject\nmatch reject",
            &["1: macro 'nope' not defined", "1: syntax error", NO_RULES],
        ),
        (31, "x = \"1\"\ny = \"$x\"\nmatch tag $y reject", &["3: syntax error", NO_RULES]),
        (32, "a = \"abc\"\nb = $a\nmatch tag $b reject", &[]),
        (34, "\"a b\" = \"x\"\nmatch reject", &["1: macro name cannot contain whitespace"]),
        (35, "match tag $ reject", &["1: macro '' not defined", "1: syntax error", NO_RULES]),
        (
            44,
            "smtp limit max-rcpt 99999999999999999999\n\nmatch reject",
            &["1: \"99999999999999999999\" invalid number: too large", "1: syntax error"],
        ),
    ]);
    for quote in ["", "\""] {
        let text = format!("match tag {quote}{}{quote} reject", "x".repeat(8200));
        let expected = ["1: string too long", "1: syntax error", NO_RULES];
        check_one(43, &text, &expected);
    }
}

/// The only entry of the table that the only rule's tag is looked for in.
fn tag_of(config: &Config) -> &str {
    let tag = config.rules[0].tag.as_ref().unwrap();
    match &config.table(tag.test.table).unwrap().source {
        TableSource::Inline(entries) => &entries[0].key,
        other => panic!("{other:?}"),
    }
}

#[test]
fn strings_have_these_values() {
    let cases = [
        (12, "match tag \"a\nb\" reject", "ab"),
        (19, "match tag a$b reject", "a$b"),
        (32, "a = \"abc\"\nb = $a\nmatch tag $b reject", "abc"),
        (13, "match tag 'abc' reject", "abc"),
        (33, "a = \"mail\"\nmatch tag $a.example.org reject", "mail.example.org"),
        (46, r#"match tag "a\\b" reject"#, r"a\\b"),
    ];
    for (number, text, expected) in cases {
        assert_eq!(tag_of(&good(text)), expected, "config case {number}");
        ran("config", number);
    }
}

#[test]
fn macros_of_the_command_line_cannot_be_changed() {
    let define = |argument: &str| parse_define(argument).unwrap();
    let text = "foo = \"zz\"\nmatch tag $foo reject";
    let loaded = load_with(text, &[define("foo=bar")]).unwrap();
    assert_eq!(tag_of(&loaded.config), "bar", "config case 36");
    assert_eq!(parse_define("foobar"), None, "config case 37");
    load_with("match $foo reject", &[define("foo=for local")]).expect("config case 38");
    assert_eq!(define("a=b=c"), ("a=b".into(), "c".into()), "config case 273");
    let twice = [define("a=b"), define("a=}")];
    let loaded = load_with("match tag $a reject", &twice).unwrap();
    assert_eq!(tag_of(&loaded.config), "b", "config case 274");
    for number in [36, 37, 38] {
        ran("config", number);
    }
}

#[test]
fn includes() {
    check(&[
        (
            39,
            "include \"/missing\"\nmatch reject",
            &[
                "pushfile: /missing: No such file or directory",
                "1: failed to include file /missing",
            ],
        ),
        (40, "include /abs/path\nmatch reject", &["1: syntax error"]),
        (41, "include \"/bad\"\nmatch reject\nfoo\n", &["/bad:1: syntax error", "3: syntax error"]),
        (42, "include \"rel.conf\"", &[]),
    ]);
    let missing = load("/none", &mut Files::default(), &mut Loopback, &[]).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "pushfile: /none: No such file or directory\n",
        "config case 45"
    );
    ran("config", 45);
    let endless = said("include \"/loop\"\nmatch reject");
    assert_eq!(
        endless,
        [
            "pushfile: /loop: too many files inside one another",
            "/loop:1: failed to include file /loop"
        ]
    );
    let mut doubling = files("include \"main\"\ninclude \"main\"\nmatch reject");
    let told = doubling.reading(&[]).diagnostics;
    assert!(told.iter().any(|told| told.message() == "pushfile: main: too many files"));
    let config = good("include \"rel.conf\"\nmatch reject");
    assert_eq!(config.sources, ["main", "rel.conf"]);
    assert_eq!(config.rules.iter().map(|rule| rule.span.file).collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn tables() {
    check(&[
        (48, "match for domain { a.org, b.org } reject", &[]),
        (48, "match for domain { a.org b.org } reject", &[]),
        (48, "match for domain {\n a.org\n\n b.org\n} reject", &[]),
        (49, "match for domain { a.org, b.org, } reject", &["1: syntax error", NO_RULES]),
        (49, "match for domain { } reject", &["1: syntax error", NO_RULES]),
        (50, "match for domain a.org b.org reject", &["1: syntax error", NO_RULES]),
        (
            51,
            "match for domain { a.org = b } reject",
            &["1: table \"<dynamic:0>\" may not be used for 'for' lookups", NO_RULES],
        ),
        (52, "table t { a = 1 }\nmatch reject", &["1: syntax error"]),
        (53, "table t { a = b, c }\nmatch reject", &["1: syntax error"]),
        (54, "table t { a => b }\nmatch reject", &[]),
        (55, "table t { a = b; c = d }\nmatch reject", &[]),
        (
            56,
            "table t { a }\ntable t { a }\nmatch reject",
            &["2: table_create: table \"t\" already defined"],
        ),
        (57, "match for domain <zz> reject", &["1: no such table: zz", NO_RULES]),
        (58, "table local { a }\nmatch reject", &["1: syntax error"]),
        (58, "table \"local\" { a }\nmatch for domain <\"local\"> reject", &[]),
        (
            59,
            "table t relative/path\nmatch reject",
            &["1: table_create: backend \"relative/path\" does not exist"],
        ),
        (60, "table t file:relative\nmatch reject", &["1: invalid backend parameter for table: t"]),
        (60, "table t file:\nmatch reject", &["1: invalid backend parameter for table: t"]),
        (
            61,
            "table t \"/missing\"\nmatch reject",
            &[
                "/missing: fopen: No such file or directory",
                "1: invalid configuration file /missing for table t",
            ],
        ),
        (62, "table t /path\nmatch reject", &["1: syntax error"]),
        (0, "table t db\nmatch reject", &["1: invalid backend parameter for table: t"]),
        (0, "table t passwd:/x\naction a mbox alias <t> userbase <t>\nmatch reject", &[]),
        (0, "table t passwd\nmatch tag regex <t> reject", &[]),
        (0, "table t proc:/x\nmatch reject", &["1: table_create: backend \"proc\" does not exist"]),
        (
            0,
            "table \"<dynamic:0>\" { a }\nmatch reject",
            &["1: table_create: table \"<dynamic:0>\" already defined"],
        ),
        (63, "table t foo:/x\nmatch reject", &["1: table_create: backend \"foo\" does not exist"]),
        (64, "table t getpwnam\nmatch reject", &[]),
        (
            64,
            "table t getpwnam:/x\nmatch reject",
            &["1: invalid configuration file /x for table t"],
        ),
        (
            65,
            "table t static\naction a mbox alias <t>\nmatch reject",
            &["2: table \"t\" may not be used for alias lookups"],
        ),
        (
            66,
            "table t file:/list\naction a mbox alias <t>\nmatch reject",
            &["2: table \"t\" may not be used for alias lookups"],
        ),
        (
            67,
            "table t file:/urls\naction a relay host <t>\nmatch reject",
            &["2: table \"t\" may not be used for host lookups"],
        ),
        (
            68,
            "table t file:/empty\nmatch for domain <t> reject",
            &["2: table \"t\" may not be used for 'for' lookups", NO_RULES],
        ),
        (68, "table t file:/empty\naction a mbox alias <t>\nmatch reject", &[]),
        (
            69,
            "table t file:/malformed\nmatch reject",
            &[
                "/malformed:1 invalid map entry",
                "1: invalid configuration file /malformed for table t",
            ],
        ),
        (0, "table t db:/map.db\nmatch for domain <t> reject", &[]),
        (
            0,
            "table t db:/bad\nmatch reject",
            &["/bad: not a map file", "1: invalid configuration file /bad for table t"],
        ),
        (
            0,
            "table t db:/none.db\nmatch reject",
            &[
                "/none.db: No such file or directory",
                "1: invalid configuration file /none.db for table t",
            ],
        ),
        (
            0,
            "table t db:/old.db\nmatch reject",
            &[
                "/old.db: a Berkeley DB file, which is not read: make a map of its text source with \
                 makemap(8): makemap /old, or for aliases makemap -t aliases /old",
                "1: invalid configuration file /old.db for table t",
            ],
        ),
        (70, "match for domain <localnames> reject", &["1: no such table: localnames", NO_RULES]),
        (70, "match for domain <\"<localnames>\"> reject", &[]),
    ]);
    let comma_after_newline = "match for domain { a.org\n, b.org } reject\nmatch reject";
    check_one(49, comma_after_newline, &["2: syntax error"]);
    let table = good("table t { a = b; c = d }\nmatch reject").tables.pop().unwrap();
    let TableSource::Inline(entries) = table.source else { panic!("{table:?}") };
    assert_eq!(entries[0].value.as_deref(), Some("b;"), "config case 55");
}
