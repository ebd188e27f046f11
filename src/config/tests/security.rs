//! Cases of what protects sessions and of what they go through: certificates, encryption,
//! authentication, filters.

use super::*;

/// A certificate for listeners.
const P: &str = "pki t cert \"/cert\"\npki t key \"/key\"\n";

#[test]
fn encrypted_listeners() {
    let cases: &[(u32, &str, &[&str])] = &[
        (109, "tls pki nosuch", &["3: pki name not found: nosuch"]),
        (111, "tls smtps", &["3: TLS mode already specified"]),
        (0, "tls pki T", &[]),
        (0, "tls verify pki t", &["3: syntax error"]),
        (0, "tls-require verify pki t", &[]),
        (0, "smtps verify pki t pki t", &[]),
        (112, "tls pki t auth auth-optional", &["3: auth already specified"]),
        (119, "tls pki t auth senders { a = b } masquerade", &[]),
        (
            119,
            "tls pki t auth senders { a }",
            &["3: invalid use of table \"<dynamic:0>\" as SENDERS parameter"],
        ),
        // A list holds no passwords, which only shows when somebody logs in.
        (
            120,
            "tls auth { a, b } pki t",
            &["3: warn: nobody can log in with table \"<dynamic:0>\""],
        ),
        (0, "tls auth { a = b } pki t", &[]),
        (0, "tls pki t auth no-pipelining auth-optional", &["3: auth already specified"]),
        (0, "tls pki t auth no-pipelining", &[]),
        (121, "tls pki t ca nosuch", &["3: ca name not found: nosuch"]),
        // What stops the start is an error of the check too.
        (122, "tls pki t protocols bogus", &["3: failed to parse protocols \"bogus\""]),
        (122, "tls pki t protocols \"tlsv1.2,tlsv1.3\"", &[]),
        (0, "tls pki t protocols default protocols default", &["3: protocols already specified"]),
        (0, "tls pki t ciphers default ciphers default", &["3: ciphers already specified"]),
        (0, "tls pki t ciphers RC4", &["3: no ciphers for 'RC4'"]),
        (0, "tls pki t senders { a = b } senders { a = b }", &["3: senders already specified"]),
    ];
    for (number, options, expected) in cases {
        check_one(*number, &format!("{P}listen on lo {options}\nmatch reject\n"), expected);
    }
    let many = format!("{P}listen on lo tls{}\nmatch reject", " pki t".repeat(33));
    check_one(0, &many, &["3: too many pki specified"]);
    // Names are declared in lower case and found in any.
    let upper = "pki mail.x cert \"/cert\" key \"/key\"\nlisten on lo tls pki MAIL.x\nmatch reject";
    check_one(110, upper, &[]);
    let authority = "ca mail.x cert \"/cert\"\nlisten on lo tls pki t ca MAIL.x\nmatch reject";
    check_one(0, &format!("{P}{authority}"), &[]);
}

#[test]
fn a_listener_carries_what_it_was_told() {
    let config = good(&format!(
        "{P}pki u key \"/key\" dhe Auto\nca c cert \"/old\"\npki u cert \"/cert\"\n\
         ca C cert \"/cert\"\n\
         listen on lo smtps verify pki U pki t ca c ciphers CHACHA20 protocols tlsv1.3 \
         auth-optional {{ a = b }} senders {{ a = c }} masquerade received-auth proxy-v2\n\
         listen on lo port 25 tls-require pki t auth\nmatch reject"
    ));
    let ids: Vec<_> = config.pki.iter().map(|pki| (pki.name.as_str(), pki.dhe)).collect();
    assert_eq!(ids, [("t", Dhe::None), ("u", Dhe::Auto)]);
    assert_eq!(config.authorities.len(), 1);
    assert_eq!(config.authorities[0].certificate, "/cert");
    let first = &config.listeners[1];
    assert!(matches!(first.endpoint, Endpoint::Network { port: 465, .. }), "{first:?}");
    let tls = first.tls.as_ref().unwrap();
    assert_eq!((tls.mode, tls.verify), (TlsMode::Immediate, true));
    assert_eq!(tls.pki, [PkiId(1), PkiId(0)]);
    assert_eq!(tls.authority, Some(AuthorityId(0)));
    assert_eq!(tls.protocols, Some(Protocols { tls_1_2: false, tls_1_3: true }));
    assert_eq!(tls.ciphers.as_ref().unwrap().iter().count(), 2);
    let auth = first.auth.unwrap();
    assert!(!auth.required && auth.table.is_some());
    assert!(first.senders.unwrap().masquerade && first.received_auth && first.proxy);
    let second = config.listeners.last().unwrap();
    assert_eq!(second.tls.as_ref().unwrap().mode, TlsMode::Required);
    assert_eq!(second.auth, Some(ListenerAuth { required: true, table: None }));
}

#[test]
fn a_relay_carries_what_it_was_told() {
    let config = good(&format!(
        "{P}ca c cert \"/cert\"\nsrs key s3cret\nsrs key backup older\nfilter f proc-exec x\n\
         action a relay domain {{ a.org = \"smtps://l@b\" }} auth {{ l = \"u:p\" }} tls no-verify \
         pki t ca c ciphers AES256 protocols tlsv1.2 helo-src {{ \"::1\" = b }} srs filter f\n\
         action b relay backup mx \"m.org\"\naction c relay backup tls\nmatch reject"
    ));
    let relays: Vec<_> = config
        .actions
        .iter()
        .filter_map(|action| match &action.kind {
            ActionKind::Relay(relay) => Some(relay),
            ActionKind::Local(_) => None,
        })
        .collect();
    let [a, b, c] = relays[..] else { panic!("{relays:?}") };
    assert!(a.domain.is_some() && a.auth.is_some() && a.helo_source.is_some() && a.srs);
    assert_eq!(a.tls, Some(RelayTls::Unverified));
    assert_eq!((a.pki, a.authority), (Some(PkiId(0)), Some(AuthorityId(0))));
    assert_eq!(a.filter, Some(FilterId(0)));
    assert_eq!(a.protocols, Some(Protocols { tls_1_2: true, tls_1_3: false }));
    assert_eq!(a.ciphers.as_ref().unwrap().iter().count(), 2);
    assert_eq!(b.backup, Some(Backup { name: Some("m.org".into()) }));
    assert_eq!((&c.backup, c.tls), (&Some(Backup::default()), Some(RelayTls::Verified)));
    assert_eq!(config.srs.key.as_ref().unwrap().reveal(), "s3cret");
    assert_eq!(config.srs.backup_key.as_ref().unwrap().reveal(), "older");
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn keys_and_certificates() {
    check_with_rule(&[
        (135, "pki x cert \"/missing\"", &["1: load_pki_tree: missing key file"]),
        (0, "pki x key \"/key\"", &["1: load_pki_tree: missing certificate file"]),
        (
            0,
            "pki x cert \"/missing\" key \"/key\"",
            &["1: load_pki_tree: failed to load certificate file"],
        ),
        (
            136,
            "pki x cert \"/cert\" key \"/open-key\"",
            &[
                "warn:  /open-key: insecure permissions: must be at most rwxr-----",
                "1: load_pki_keys: failed to load key file",
            ],
        ),
        (
            0,
            "pki x cert \"/foreign-cert\" key \"/key\"",
            &[
                "warn:  /foreign-cert: not owned by uid 0",
                "1: load_pki_tree: failed to load certificate file",
            ],
        ),
        (0, "ca x cert \"/missing\"", &["1: load_pki_tree: failed to load CA file"]),
        (0, "pki x cert \"/missing\"\npki x cert \"/cert\" key \"/key\"", &[]),
        (
            0,
            "pki x cert \"/cert\" key \"/key\" dhe auto\npki y cert \"/cert\" key \"/key\" dhe legacy",
            &["1: warn: dhe has no effect: key exchange over finite fields is not offered"],
        ),
        (137, "pki x dhe foo", &["1: invalid DHE keyword: foo"]),
        (137, "pki \"-a.c\" cert \"x\"", &["1: not a valid domain name: -a.c"]),
        (0, "pki \"*\" cert \"/cert\" key \"/key\"", &[]),
        (138, "ca x", &["1: syntax error"]),
    ]);
}

#[test]
fn keys_of_the_spool() {
    let invalid: &[&str] = &["1: crypto_setup:invalid key for queue encryption"];
    let key = "0123456789abcdef0123456789abcdef";
    check_with_rule(&[
        (123, "queue encryption abc", invalid),
        (124, &format!("queue encryption {key}"), &[]),
        // The key is not known before the start, and is not looked for.
        (125, "queue encryption stdin", &[]),
        (0, "queue encryption \"-\"", &[]),
        (0, "queue encryption\nqueue compression", &[]),
    ]);
    let config = good(&format!("queue encryption {key}\nqueue compression\nmatch reject"));
    assert_eq!(config.queue.encryption, Some(QueueKey::Written(Secret::from(key.to_owned()))));
    assert!(config.queue.compression);
    let sent = postcard::to_stdvec(&config).unwrap();
    assert!(!sent.windows(key.len()).any(|bytes| bytes == key.as_bytes()));
}

/// The cases of filters that a configuration decides.
#[test]
fn filters_that_cannot_be() {
    let wrong = "1: syntax error";
    let cases = [
        (92, "filter x phase data-line match rdns junk", wrong),
        (92, "filter x phase rset match rdns junk", wrong),
        (92, "filter x phase starttls match rdns junk", wrong),
        (92, "filter x phase connect match rdns fcrdns junk", wrong),
        (92, "filter x phase connect rdns junk", wrong),
        (92, "filter x phase connect match helo \"a\" junk", wrong),
        (92, "filter x phase commit match rdns junk", wrong),
        (92, "filter x phase commit match rdns bypass", wrong),
        (92, "filter x chain { }", wrong),
        (
            93,
            "filter a proc-exec a\nfilter b chain { a }\nfilter c chain { b }",
            "3: no filter chain allowed within a filter chain: b",
        ),
        (
            93,
            "filter a proc-exec a\nfilter b chain { a, a }",
            "2: no filter allowed twice within a filter chain: a",
        ),
        (93, "filter b chain { zzz }", "1: no filter exist with that name: zzz"),
        (0, "listen on lo filter zzz", "1: no filter exist with that name: zzz"),
    ];
    for (number, text, expected) in cases {
        let found = said(&format!("{text}\nmatch reject\n"));
        assert_eq!(found, [expected], "case F{number}: {text}");
        ran("filter", number);
    }
    // That its text is no reply shows when it is given.
    let text = "filter x phase connect match rdns reject \"hello\"\nmatch reject\n";
    assert_eq!((said(text), unsupported(text)), (Vec::new(), Vec::new()));
    ran("filter", 91);
}

#[test]
fn filters() {
    let twice = "no filter allowed twice within a filter chain: x";
    let nested = "no filter chain allowed within a filter chain: c";
    check_with_rule(&[
        (140, "filter x phase connect match fcrdns rdns junk", &["1: syntax error"]),
        (141, "filter x phase connect match helo { a } junk", &["1: syntax error"]),
        (141, "filter x phase data match rcpt-to { a } junk", &["1: syntax error"]),
        (141, "filter x phase commit match auth junk", &["1: syntax error"]),
        (0, "filter x phase commit match auth reject \"550 x\"", &[]),
        // At AUTH nothing is asked, so that such a filter could only deceive.
        (
            142,
            "filter x phase auth match auth reject \"550 x\"",
            &["1: phase auth may not be used"],
        ),
        (143, "filter x proc-exec x\nfilter c chain { x, x }", &[&format!("2: {twice}")]),
        (
            143,
            "filter x proc-exec x\nfilter c chain { x }\nfilter d chain { x, c }",
            &[&format!("3: {nested}")],
        ),
        (143, "filter x chain { }", &["1: syntax error"]),
        (0, "filter c chain { x }", &["1: no filter exist with that name: x"]),
        (144, "proc p x\nfilter a proc p\nfilter b proc p\nfilter c chain { a, b }", &[]),
        (145, "filter a proc p", &["1: no processor exist with that name: p"]),
        (146, "proc p \"/bin/p\" user a user b", &["1: user already specified for this processor"]),
        (0, "proc p x group a group b", &["1: group already specified for this processor"]),
        (0, "proc p x chroot a chroot b", &["1: chroot already specified for this processor"]),
        (0, "proc p x\nproc p y", &["2: processor already exists with that name: p"]),
        (
            0,
            "filter x proc-exec a\nfilter x proc-exec b",
            &["2: filter already exists with that name: x"],
        ),
        (0, "proc p x\nfilter p proc-exec y", &["2: warn: this replaces the processor p"]),
        (
            0,
            "proc p x\nfilter a proc p\nfilter p proc-exec y\nfilter b proc p",
            &["3: warn: this replaces the processor p"],
        ),
        (147, "filter x proc-exec x\nfilter y proc-exec y\nlisten on lo filter {\n x\n\n y }", &[]),
        (0, "filter x proc-exec x\nlisten on socket filter { x }", &[]),
        (
            269,
            "proc p \"/bin/p\" user nosuch group nosuch",
            &["1: getpwnam: no such user: nosuch", "1: getgrnam: no such group: nosuch"],
        ),
        (0, "filter x phase connect match ! src { 10.0.0.0/8 } disconnect \"421 x\"", &[]),
        (0, "filter x phase helo match rdns regex { \"x$\" } report x", &[]),
        (0, "filter x phase ehlo match helo { a } bypass", &[]),
        (0, "filter x phase mail-from match mail-from <\"<localnames>\"> rewrite \"\"", &[]),
        (0, "filter x phase rcpt-to match auth { a = b } junk", &[]),
        (0, "filter x phase noop match auth junk", &["1: syntax error"]),
        // That the reply is none shows when it is to be given.
        (0, "filter x phase connect match fcrdns reject foo", &[]),
    ]);
}

#[test]
fn filters_carry_what_they_were_told() {
    let config = good(
        "proc p \"rspamd -x\" user a group b chroot \"/c\"\nfilter a proc p\n\
         filter b phase rcpt-to match !rcpt-to regex \"x\" reject \"550 no\"\n\
         filter c proc-exec \"f\"\nfilter d chain { b, a }\nlisten on lo filter { c\nb }\n\
         match reject",
    );
    let kinds: Vec<_> = config.filters.iter().map(|filter| &filter.kind).collect();
    let built_in = |kind: &FilterKind| match kind {
        FilterKind::BuiltIn(filter) => filter.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(kinds[0], &FilterKind::Process(ProcessId(0)));
    let filter = built_in(kinds[1]);
    assert_eq!((filter.phase, filter.negated), (FilterPhase::RcptTo, true));
    assert!(matches!(filter.condition, FilterCondition::RcptTo(test) if test.regex));
    assert_eq!(filter.decision, FilterDecision::Reject("550 no".into()));
    assert_eq!(kinds[2], &FilterKind::OwnProcess(ProcessId(1)));
    assert_eq!(kinds[3], &FilterKind::Chain(vec![FilterId(1), FilterId(0)]));
    assert_eq!(config.filters[4].name, "<dynchain:00000000>");
    assert_eq!(kinds[4], &FilterKind::Chain(vec![FilterId(2), FilterId(1)]));
    assert_eq!(config.listeners[1].filter, Some(FilterId(4)));
    let process = &config.processes[0];
    assert_eq!(process.command, "rspamd -x");
    let options = [&process.user, &process.group, &process.chroot].map(Option::as_deref);
    assert_eq!(options, [Some("a"), Some("b"), Some("/c")]);
}
