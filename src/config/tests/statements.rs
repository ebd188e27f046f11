//! Cases of actions, rules, listeners and the other statements.

use super::*;

#[test]
fn actions() {
    const AL: &str = "table al { root = bob }\n";
    let already = "2: alias mapping already specified for this dispatcher";
    let cases: &[(u32, &str, &[&str])] = &[
        (
            71,
            "action a maildir\naction a mbox",
            &["3: dispatcher already declared with that name: a"],
        ),
        (72, "action a mbox user bob", &["2: user may not be specified for this dispatcher"]),
        (73, "action a forward-only user bob", &["2: user may not be specified for forward-only"]),
        (73, "action a expand-only user bob", &["2: user may not be specified for expand-only"]),
        (74, "action a maildir alias <al> virtual <al>", &[already]),
        (
            74,
            "action a maildir virtual <al> alias <al>",
            &["2: virtual mapping already specified for this dispatcher"],
        ),
        (75, "action a maildir \"~/Mail\" junk", &[]),
        (75, "action a maildir junk \"~/Mail\"", &["2: syntax error"]),
        (76, "action a mda /bin/cat", &["2: syntax error"]),
        (76, "action a mda", &["2: syntax error"]),
        (76, "action a lmtp", &["2: syntax error"]),
        (77, "action a lmtp localhost:24", &[]),
        (77, "action a lmtp \"/sock\" rcpt-to", &[]),
        (78, "action a maildir wrapper w", &["2: no mda wrapper with that name: w"]),
        (79, "action a mbox ttl 0s", &["2: ttl delay \"0\" is invalid"]),
        (79, "action a mbox ttl 1w", &["2: ttl delay \"1w\" is invalid"]),
        (79, "action a mbox ttl 60", &["2: syntax error"]),
        (79, "action a mbox ttl 1.5h", &["2: ttl delay \"1.5\" is invalid"]),
        (79, "action a mbox ttl 24856d", &["2: ttl delay \"24856\" is invalid"]),
        (80, "action a mbox ttl 24855d", &[]),
        (81, "action a mbox ttl 1h alias <al>", &["2: syntax error"]),
        (81, "action a mbox alias <al> ttl 1h", &[]),
        (82, "action a mbox ttl 1h ttl 2h", &["2: ttl already specified for this dispatcher"]),
        (83, "action a relay backup host x", &["2: backup and host are mutually exclusive"]),
        (83, "action a relay host x backup", &["2: backup and host are mutually exclusive"]),
        (84, "action a relay backup domain <al>", &["2: backup and domain are mutually exclusive"]),
        (84, "action a relay domain <al> backup", &["2: backup and host are mutually exclusive"]),
        (
            85,
            "action a relay host x domain <al>",
            &["2: host mapping already specified for this dispatcher"],
        ),
        (86, "action a relay tls tls no-verify", &["2: tls already specified for this dispatcher"]),
        (
            87,
            "action a relay auth <al> host x",
            &["2: auth may not be specified without host on a dispatcher"],
        ),
        (
            88,
            "action a relay host x auth foo",
            &["2: table \"<dynamic:1>\" may not be used for auth lookups"],
        ),
        (
            89,
            "action a relay srs\nsrs key k",
            &["2: an srs key is required for srs to be specified in an action"],
        ),
        (89, "srs key k\naction a relay srs", &[]),
        (0, "srs key k\naction a relay srs srs", &["3: srs already specified for this dispatcher"]),
        (
            90,
            "action a relay host \"foo://x\"",
            &["2: warn: relay host \"foo://x\": not a relay URL, mail for it will wait"],
        ),
        // Unknown names stop the start, so that they are errors here.
        (91, "action a relay ca nope", &["2: ca name not found: nope"]),
        (92, "action a relay pki nope", &["2: client pki \"nope\" not found"]),
        (0, "action a relay pki x pki x", &["2: pki already specified for this dispatcher"]),
        (0, "action a relay ca X\nca x cert \"/cert\"", &[]),
        (0, "action a relay pki X\npki x cert \"/cert\" key \"/key\"", &[]),
        (0, "action a relay helo a helo b", &["2: helo already specified for this dispatcher"]),
        (
            0,
            "action a relay src a src b",
            &["2: source mapping already specified for this dispatcher"],
        ),
        (
            0,
            "action a relay helo-src <al> helo-src <al>",
            &["2: helo-source mapping already specified for this dispatcher"],
        ),
        (
            0,
            "action a relay mail-from a mail-from b",
            &["2: mail-from already specified for this dispatcher"],
        ),
        (0, "action a relay backup backup", &["2: backup already specified for this dispatcher"]),
        (
            0,
            "action a relay host x auth <al> auth <al>",
            &["2: auth mapping already specified for this dispatcher"],
        ),
        (
            0,
            "action a relay ciphers default ciphers default",
            &["2: ciphers already specified for this dispatcher"],
        ),
        (
            0,
            "action a relay protocols default protocols default",
            &["2: protocols already specified for this dispatcher"],
        ),
        (0, "action a relay filter x", &["2: no filter exist with that name: x"]),
        (0, "action a maildir user a user b", &["2: user already specified for this dispatcher"]),
        (
            0,
            "action a mbox userbase <al> userbase <al>",
            &["2: userbase mapping already specified for this dispatcher"],
        ),
        (
            256,
            "mda wrapper w x\naction a mbox wrapper w",
            &["3: wrapper may not be specified for this dispatcher"],
        ),
        (
            0,
            "mda wrapper w x\nmda wrapper w x",
            &["3: mda wrapper already declared with that name: w"],
        ),
    ];
    for (number, text, expected) in cases {
        check_one(*number, &format!("{AL}{text}\nmatch reject\n"), expected);
    }
    let long = "x".repeat(256);
    let name = &long[1..];
    check_with_rule(&[
        (0, &format!("action {name} mbox"), &[]),
        (0, &format!("action {long} mbox"), &["1: dispatcher name too long"]),
    ]);
}

#[test]
fn rules() {
    let for_twice: &[&str] = &["1: for already specified for this rule", NO_RULES];
    let from_twice: &[&str] = &["1: from already specified for this rule", NO_RULES];
    check(&[
        (93, "match action nope", &["1: no such dispatcher: nope", NO_RULES]),
        (94, "match for local", &["1: syntax error", NO_RULES]),
        (94, "match for local\nmatch reject", &["1: syntax error"]),
        (95, "match ! for local reject", &[]),
        (95, "match !for local reject", &[]),
        (95, "match !!for local reject", &["1: syntax error", NO_RULES]),
        (96, "match for local for any reject", for_twice),
        (96, "match from local from any reject", from_twice),
        (96, "match tag a tag b reject", &["1: tag already specified for this rule", NO_RULES]),
        (97, "match from auth auth reject", &["1: auth already specified for this rule", NO_RULES]),
        (97, "match auth from auth reject", &[]),
        (
            98,
            "match from mail-from \"c@d\" mail-from \"a@b\" reject",
            &["1: mail-from already specified for this rule", NO_RULES],
        ),
        (98, "match mail-from \"c@d\" from mail-from \"a@b\" reject", &[]),
        (
            99,
            "match from auth { a = b } reject",
            &["1: table \"<dynamic:0>\" may not be used for from lookups", NO_RULES],
        ),
        (99, "match auth { a = b } reject", &[]),
        (
            100,
            "match tag { a = b } reject",
            &["1: table \"<dynamic:0>\" may not be used for tag lookups", NO_RULES],
        ),
        (101, "match from 127.0.0.1 reject", &["1: syntax error", NO_RULES]),
        (101, "match for example.org reject", &["1: syntax error", NO_RULES]),
        (
            102,
            "match from src example.org reject",
            &["1: warn: \"example.org\" never matches the address of a client"],
        ),
        (0, "match auth regex a from auth regex b reject", &[]),
        (0, "match from rdns regex reject", &["1: syntax error", NO_RULES]),
        (0, "match from rdns for rcpt-to a reject", &[]),
        (0, "match ! reject", &["1: syntax error", NO_RULES]),
        (103, "match reject action a", &["1: syntax error", NO_RULES]),
        (104, "match tls reject", &[]),
    ]);
}

#[test]
fn combined_criteria_negate_only_their_second_half() {
    let rule = good("match !from auth \"a\" !for rcpt-to \"b\" reject").rules.remove(0);
    assert_eq!(rule.from, Criterion { negated: false, test: Source::Any });
    assert_eq!(rule.to, Criterion { negated: false, test: Destination::Any });
    assert!(rule.auth.unwrap().negated);
    assert!(rule.rcpt_to.unwrap().negated);
}

#[test]
fn a_rule_says_local_where_it_says_nothing() {
    let rule = good("match reject").rules.remove(0);
    assert_eq!(rule.from, Criterion { negated: false, test: Source::Local });
    assert_eq!(rule.to, Criterion { negated: false, test: Destination::Local });
}

#[test]
fn listeners() {
    let long = "x".repeat(33);
    check_with_rule(&[
        (105, "listen on 127.0.0.1 port 0", &["1: invalid port: 0"]),
        (105, "listen on 127.0.0.1 port 65536", &["1: invalid port: 65536"]),
        (105, "listen on 127.0.0.1 port -1", &["1: invalid port: -1"]),
        (105, "listen on 127.0.0.1 port nosuchsvc", &["1: invalid port: nosuchsvc"]),
        (105, "listen on 127.0.0.1 port", &["1: syntax error"]),
        (106, "listen on 127.0.0.1 port 25 port 26", &["1: port already specified"]),
        (107, "listen on 127.0.0.1 tls", &["1: invalid listen option: pki required for tls/smtps"]),
        (108, "listen on 127.0.0.1 pki x", &["1: invalid listen option: pki requires tls/smtps"]),
        (108, "listen on 127.0.0.1 auth", &["1: invalid listen option: auth requires tls/smtps"]),
        (111, "listen on 127.0.0.1 tls smtps", &["1: TLS mode already specified"]),
        (112, "listen on 127.0.0.1 auth auth-optional", &["1: auth already specified"]),
        (113, "listen on 127.0.0.1 inet6", &["1: invalid virtual ip or interface: 127.0.0.1"]),
        (114, "listen on egress", &["1: invalid virtual ip or interface: egress"]),
        (114, "listen on broken", &["1: invalid virtual ip or interface: broken"]),
        (115, "listen on lo tag abcdefghijklmnopqrstuvwxyz012345", &[]),
        (115, &format!("listen on lo tag {long}"), &["1: tag name too long"]),
        (
            116,
            "listen on socket\nlisten on socket tag a",
            &["2: socket listener already configured"],
        ),
        (117, "listen on socket port 25", &["1: syntax error"]),
        (
            118,
            "listen on lo hostnames { \"127.0.0.1\" }",
            &["1: invalid use of table \"<dynamic:0>\" as HOSTNAMES parameter"],
        ),
        (
            119,
            "listen on lo senders { a }",
            &["1: invalid use of table \"<dynamic:0>\" as SENDERS parameter"],
        ),
        (0, "listen on lo mask-src mask-src", &["1: mask-source already specified"]),
        (0, "listen on lo no-dsn no-dsn", &["1: no-dsn already specified"]),
        (0, "listen on lo tag a tag a", &["1: tag already specified"]),
        (0, "listen on lo hostname a hostname a", &["1: hostname already specified"]),
        (0, "listen on lo proxy-v2 proxy-v2", &["1: proxy-v2 already specified"]),
        (0, "listen on lo received-auth received-auth", &["1: received-auth already specified"]),
        (0, "listen on lo inet4 inet6", &["1: address family already specified"]),
        (0, "listen on lo no-chunking no-chunking", &["1: no-chunking already specified"]),
        (0, "listen on lo no-chunking no-limits no-smtputf8 no-pipelining", &[]),
        (0, "listen on lo filter x", &["1: no filter exist with that name: x"]),
        (270, "listen on lo\nlisten on localhost", &["2: 127.0.0.1:25: Address already in use"]),
        (0, "listen on lo port smtp\nlisten on lo port 26", &[]),
    ]);
}

#[test]
fn a_listener_has_one_entry_for_each_address() {
    let config = good(
        "listen on lo port submission tag in hostname h no-dsn mask-src no-pipelining \
         no-chunking no-smtputf8 no-limits\n\
         listen on localhost inet4\nlisten on ::1\nlisten on socket tag here\nmatch reject",
    );
    let endpoints: Vec<_> = config.listeners.iter().map(|listener| &listener.endpoint).collect();
    let address = |text: &str| LocalAddress::from(text.parse::<IpAddr>().unwrap());
    let network = |text, port| Endpoint::Network { address: address(text), port };
    let expected = [
        Endpoint::Socket,
        network("127.0.0.1", 587),
        network("::1", 587),
        network("127.0.0.1", 25),
        network("::1", 25),
    ];
    assert_eq!(endpoints, expected.iter().collect::<Vec<_>>());
    assert_eq!(config.listeners[0].tag, "here");
    let first = &config.listeners[1];
    assert_eq!((first.tag.as_str(), first.hostname.as_deref()), ("in", Some("h")));
    assert!(!first.dsn && first.mask_source && !first.pipelining);
    assert!(!first.chunking && !first.smtputf8 && !first.limits);
    assert!(config.listeners[3].dsn && config.listeners[3].pipelining);
}

#[test]
fn other_statements() {
    check_with_rule(&[
        (126, "queue ttl 0d", &["1: invalid ttl delay: 0"]),
        (126, "queue ttl forever", &["1: invalid ttl delay: forever"]),
        (126, "queue ttl 86400", &["1: syntax error"]),
        (127, "smtp max-message-size 35M", &[]),
        (127, "smtp max-message-size 1024", &[]),
        (127, "smtp max-message-size 1.5G", &[]),
        (127, "smtp max-message-size 0", &[]),
        (128, "smtp max-message-size -1", &["1: invalid size: -1"]),
        (128, "smtp max-message-size 10MB", &["1: invalid size: 10MB"]),
        (128, "smtp max-message-size 9E", &["1: invalid size: 9E"]),
        (0, "smtp max-message-size", &["1: syntax error"]),
        (129, "smtp sub-addr-delim \"++\"", &["1: subaddressing-delimiter must be one character"]),
        (129, "smtp sub-addr-delim \"@\"", &["1: sub-addr-delim uses invalid character"]),
        (129, "smtp sub-addr-delim +", &["1: syntax error"]),
        (129, "smtp sub-addr-delim x", &[]),
        (130, "smtp limit max-foo 1", &["1: invalid session limit keyword: max-foo"]),
        (0, "smtp limit max-rcpt 99", &["1: invalid session limit: max-rcpt 99"]),
        (0, "smtp limit max-rcpt 100 max-mails -1", &[]),
        (131, "mda limit foo 4", &["1: invalid scheduler limit keyword: foo"]),
        (132, "mta limit foo 4", &["1: invalid mta limit keyword: foo"]),
        (132, "mta limit for domain x inet4 max-conn-per-host 3", &[]),
        (
            133,
            "bounce warn-interval 1h, 2h, 3h, 4h, 5h",
            &["1: warn: only the first four delays of warn-interval count"],
        ),
        (133, "bounce warn-interval 1h 2h", &["1: syntax error"]),
        (133, "bounce warn-interval 1x", &["1: invalid bounce delay: 1x"]),
        (134, "srs ttl 1h", &["1: ttl delay \"1\" is too short"]),
        (134, "srs ttl 36h", &[]),
        (0, "srs ttl 1w", &["1: ttl delay \"1w\" is invalid"]),
        (139, "admd \"a\tb\"", &["1: not a valid admd"]),
        (0, "log = x", &[]),
        (0, "log x", &[]),
    ]);
    assert_eq!(good("srs ttl 36h\nmatch reject").srs.days, 1, "config case 134");
}

#[test]
fn what_has_no_effect_yet_is_refused_with_its_position() {
    let cases = [
        ("queue compression", "queue compression"),
        ("queue encryption 0123456789abcdef0123456789abcdef", "queue encryption"),
        ("log json", "log"),
        ("metrics on lo", "metrics"),
        ("policy x", "policy"),
        ("sandbox required", "sandbox"),
        ("action a relay domain { a = \"smtps://x\" }", "relay domain smtps://x"),
        ("action a relay tls no-verify", "relay tls"),
        ("action a relay host x auth { a = b }", "relay auth"),
        ("action a relay host \"smtps://x\"", "relay host smtps://x"),
        ("action a relay ciphers default", "relay ciphers"),
        ("action a relay protocols default", "relay protocols"),
    ];
    for (text, what) in cases {
        let main = format!("match reject\n{text}\n");
        assert_eq!(said(&main), [""; 0], "{text}");
        assert_eq!(unsupported(&main), [format!("2: {what}: not supported yet")], "{text}");
    }
    let several = "pki x cert \"/cert\" key \"/key\"\nfilter f proc-exec x\nsrs key k\n\
        listen on lo tls pki x auth filter f\n\
        action a relay pki x filter { f } srs\nmatch reject\n";
    let expected = ["5: relay pki"];
    assert_eq!(unsupported(several), expected.map(|line| format!("{line}: not supported yet")));
}

#[test]
fn the_tree_says_what_the_file_says() {
    let config = good(
        "table aliases { root = bob }\n\
         mda wrapper w \"nice %{mda}\"\n\
         action l maildir \"~/M\" junk alias <aliases> user vmail wrapper w ttl 1h\n\
         action r relay host smart src \"10.0.0.1\" helo h mail-from \"@d\"\n\
         queue ttl 2d\nbounce warn-interval 1h, 2h, 3h, 4h, 5h\n\
         smtp limit max-mails 3 max-rcpt -1\n\
         mta limit for domain d max-failures-per-session 0\n\
         mta limit inet6 conn-delay-host 7\n\
         mda limit task-hiwat 9\nscheduler limit max-inflight 8\n\
         match for any action r",
    );
    let aliases = config.table_named("aliases").unwrap();
    let local = Action {
        name: "l".into(),
        span: Span { file: 0, line: 3, column: 1, length: 6 },
        ttl: Some(Duration::from_secs(3600)),
        kind: ActionKind::Local(LocalAction {
            method: Method::Maildir { path: Some("%{user.directory}/M".into()), junk: true },
            user: Some("vmail".into()),
            mapping: Some(Mapping::Alias(aliases)),
            userbase: TableId::GETPWNAM,
            wrapper: Some(WrapperId(0)),
        }),
    };
    assert_eq!(config.actions[0], local);
    let ActionKind::Relay(relay) = &config.actions[1].kind else { panic!("not a relay") };
    let rewrite = SenderRewrite { local: None, domain: Some("d".into()) };
    assert_eq!((relay.helo.as_deref(), &relay.mail_from), (Some("h"), &Some(rewrite)));
    assert!(relay.host.is_some() && relay.source.is_some());
    assert_eq!(config.queue.ttl, Duration::from_secs(2 * 86_400));
    assert_eq!(config.bounce.warn_intervals.len(), 4);
    assert_eq!((config.smtp.max_mails, config.smtp.max_recipients), (Limit::new(3), Limit::NONE));
    let (name, domain) = &config.mta.domains[0];
    assert_eq!((name.as_str(), domain.max_failures_per_session), ("d", Limit::NONE));
    // A copy of the defaults as they were when the domain was first named.
    assert_eq!((domain.family, config.mta.limits.family), (None, Some(Family::Inet6)));
    assert_eq!(config.mta.limits.connection_delay_host, Duration::from_secs(7));
    assert_eq!(config.mda.tasks.high, Limit::new(9));
    assert_eq!(config.scheduler.max_inflight, Limit::new(8));
    assert_eq!(config.rules[0].decision, Decision::Action(ActionId(1)));
}

#[test]
fn durations_and_limits_begin_at_their_defaults() {
    let config = good("match reject");
    assert_eq!(config.queue.ttl, Duration::from_secs(345_600));
    assert_eq!(config.bounce.warn_intervals, [Duration::from_secs(14_400)]);
    assert_eq!(config.smtp.max_message_size, 36_700_160);
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].endpoint, Endpoint::Socket);
}
