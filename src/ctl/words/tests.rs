//! The words of every command, and beginnings of them.

use super::*;

fn read(line: &str) -> Result<Command, WordsError> {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    parse(&words)
}

fn listed(line: &str) -> Vec<String> {
    match read(line) {
        Err(WordsError::Possibilities(list)) => list,
        other => panic!("{line}: {other:?}"),
    }
}

const FIRST_WORDS: &[&str] = &[
    "discover",
    "pause",
    "resume",
    "show",
    "log",
    "monitor",
    "profile",
    "remove",
    "schedule",
    "trace",
    "unprofile",
    "untrace",
    "update",
    "encrypt",
    "spf",
    "stop",
    "reload",
    "import",
    "export",
    "uncorrupt",
];

// queue cases 157 to 160 in the form of delta-7.9.
#[test]
fn possibilities_list_every_continuation_in_order() {
    assert_eq!(listed(""), FIRST_WORDS);
    assert_eq!(listed("s"), FIRST_WORDS);
    assert_eq!(listed("bogus"), FIRST_WORDS);
    assert_eq!(listed("pause m"), ["pause mta", "pause envelope", "pause mda", "pause smtp"]);
    assert_eq!(listed("schedule zzz"), ["schedule <msgid>", "schedule <evpid>", "schedule all"]);
    assert_eq!(
        listed("sh"),
        [
            "show mta",
            "show envelope",
            "show hoststats",
            "show message",
            "show queue",
            "show hosts",
            "show relays",
            "show routes",
            "show stats",
            "show status"
        ]
    );
    assert_eq!(listed("resume route 0"), ["resume route <routeid>"]);
    assert_eq!(listed("show envelope 01234567"), ["show envelope <evpid>"]);
}

// queue cases 158 and 161.
#[test]
fn command_lines_mean_commands() {
    let envelope: EnvelopeId = "0123456789abcdef".parse().unwrap();
    let message = envelope.message();
    let selection = Selection::Envelope(envelope);
    let cases = [
        ("sh q", Ok(Command::ShowQueue(None))),
        ("show queue 01234567", Ok(Command::ShowQueue(Some(message)))),
        ("sh e 0123456789ABCDEF", Ok(Command::ShowEnvelope(envelope))),
        ("show message 01234567", Ok(Command::ShowMessage(message))),
        ("show message 0123456789abcdef", Ok(Command::ShowMessage(message))),
        ("show stats", Ok(Command::ShowStatistics)),
        ("show statu", Ok(Command::ShowStatus)),
        ("log b", Ok(Command::Log(Verbosity::Brief))),
        ("l v", Ok(Command::Log(Verbosity::Verbose))),
        ("pause mt", Ok(Command::Pause(Service::Mta))),
        ("resu s", Ok(Command::Resume(Service::Smtp))),
        ("pa e all", Ok(Command::Change(Change::Pause, Selection::All))),
        ("remove 0123456789abcdef", Ok(Command::Change(Change::Remove, selection))),
        ("rem a", Ok(Command::Change(Change::Remove, Selection::All))),
        ("sc 01234567", Ok(Command::Change(Change::Schedule, Selection::Message(message)))),
        ("resume route 99", Ok(Command::Unsupported("resume route <routeid>"))),
        ("pause mta from ::1 for x", Ok(Command::Unsupported("pause mta from <addr> for <str>"))),
        ("stop", Ok(Command::Stop)),
        ("rel", Ok(Command::Reload)),
        ("up t aliases", Ok(Command::UpdateTable("aliases".to_owned()))),
        ("encrypt x", Ok(Command::Encrypt(Some("x".to_owned())))),
        ("encrypt a b", Err(WordsError::Invalid)),
        ("show status now", Err(WordsError::Invalid)),
    ];
    for (line, expected) in cases {
        assert_eq!(read(line), expected, "{line}");
    }
}

#[test]
fn a_prefix_that_is_unique_in_the_reference_stays_valid_beside_our_words() {
    // `export` and `stop` are ours; alone, the reference had one word with each of these letters.
    assert_eq!(read("e"), Ok(Command::Encrypt(None)));
    assert_eq!(read("sp w"), Ok(Command::Unsupported("spf walk")));
    assert_eq!(read("st"), Ok(Command::Stop));
    assert_eq!(read("ex dir"), Ok(Command::Unsupported("export <str>")));
    assert_eq!(listed("re"), FIRST_WORDS);
}

// queue case 168.
#[test]
fn unknown_trace_and_profile_words_are_named() {
    for (line, text) in [
        ("trace foo", "invalid trace keyword: foo"),
        ("untrace foo", "invalid trace keyword: foo"),
        ("profile foo", "invalid profile keyword: foo"),
    ] {
        let error = read(line).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert_eq!(error.exit_status(), 1);
    }
    assert_eq!(read("trace smtp"), Ok(Command::Unsupported("trace <str>")));
}

// queue cases 157 and 161: the exit status of a shell's -1.
#[test]
fn syntax_errors_end_with_255() {
    assert_eq!(read("").unwrap_err().exit_status(), 255);
    assert_eq!(read("encrypt a b").unwrap_err().exit_status(), 255);
    let text = read("log").unwrap_err().to_string();
    assert_eq!(text, "possibilities are:\nlog brief\nlog verbose");
}

#[test]
fn addresses_have_no_brackets_and_an_optional_scope() {
    for good in ["127.0.0.1", "::1", "fe80::1%eth0"] {
        assert!(is_address(good), "{good}");
    }
    for bad in ["", "[::1]", "127.0.0.1%eth0", "fe80::1%", "host"] {
        assert!(!is_address(bad), "{bad}");
    }
}
