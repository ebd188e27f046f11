//! Programs that break the protocol, end, or say nothing.

use super::*;

/// What a program says in the middle of a question, and what the administrator is told.
fn breaks(number: u32, phase: Phase, said: &str, expected: &str) {
    let mut scene = Scene::one(&ALL);
    let process = scene.process("f1");
    scene.begin("f1");
    let other = scene.begin_session(0xb2, "f1", Direction::In);
    assert!(scene.wants(other).is_some());
    let asked = scene.ask(phase, "x");
    scene.heard(process);
    scene.say(process, said);
    assert_eq!(scene.notices.len(), 1, "case F{number}: {said}");
    let session = format!("{SESSION:016x}");
    let notice = scene.notices[0].replace(&session, "SID");
    assert_eq!(notice, format!("f1: {expected}, 100 ms"), "case F{number}");
    assert_eq!(scene.ended, [process], "case F{number}");
    assert_eq!(scene.decision(asked), disconnected(), "case F{number}");
    // So it is for its other sessions, and those that begin now.
    let asked = scene.ask_in(0xb2, Phase::Noop, "");
    assert_eq!(scene.decision(asked), disconnected(), "case F{number}");
    let late = scene.begin_session(0xc3, "f1", Direction::In);
    assert!(scene.wants(late).is_some_and(|wants| wants.phases & Phase::Connect.bit() != 0));
    let asked = scene.ask_in(0xc3, Phase::Connect, "");
    assert_eq!(scene.decision(asked), disconnected(), "case F{number}");
    // Another one is started, and serves.
    scene.pass(Duration::from_millis(100));
    assert_eq!(scene.starting, [process]);
    scene.ready(process, &ALL);
    assert_eq!(scene.notices[1..], ["f1 is back"]);
    let next = scene.begin_session(0xd4, "f1", Direction::In);
    assert!(scene.wants(next).is_some());
    let asked = scene.ask_in(0xd4, Phase::Connect, "");
    assert_eq!(scene.decision(asked), None);
    let asked = scene.ask_in(0xb2, Phase::Noop, "");
    assert_eq!(scene.decision(asked), disconnected(), "old sessions stay refused");
    ran("filter", number);
}

#[test]
fn what_breaks_the_protocol_breaks_the_program_and_its_sessions() {
    let token = "1234567890abcdef";
    let misbehaving = format!("filter-result|SID|{token}|proceed");
    let rejecting = format!("filter-result|SID|{token}|reject|550 x");
    let lines = format!("filter-dataline|SID|{token}|x");
    let cases = [
        (95, Phase::Noop, "hello world", "Invalid filter message type: hello world"),
        (98, Phase::Noop, "filter-result|zz|TOK|proceed", ""),
        (99, Phase::Noop, misbehaving.as_str(), "misbehaving filter"),
        (99, Phase::Noop, rejecting.as_str(), "misbehaving filter"),
        (0, Phase::Noop, lines.as_str(), "misbehaving filter"),
        (61, Phase::Commit, "filter-result|SID|TOK|junk", "filter-reponse junk after DATA"),
        (0, Phase::Noop, "filter-dataline|SID|TOK|x", "filter-dataline out of dataline phase"),
        (0, Phase::Noop, "register|x", "Invalid register line received: register|x"),
        (0, Phase::Noop, "report|1|x|SID|y", "unexpected direction: x"),
    ];
    for (number, phase, said, expected) in cases {
        match expected {
            "" => {
                let mut scene = Scene::one(&ALL);
                scene.begin("f1");
                scene.ask(phase, "");
                let process = scene.process("f1");
                scene.heard(process);
                scene.say(process, said);
                assert!(scene.notices[0].starts_with("f1: Invalid reqid: filter-result|zz|"));
                ran("filter", number);
            }
            expected => breaks(number, phase, said, expected),
        }
    }
    for (number, directive, word) in
        [(96, "foo|bar", "Invalid directive"), (97, "reject", "Missing parameter")]
    {
        let mut scene = Scene::one(&ALL);
        scene.begin("f1");
        let asked = scene.ask(Phase::Noop, "");
        let process = scene.process("f1");
        scene.heard(process);
        scene.say(process, &format!("filter-result|SID|TOK|{directive}"));
        assert_eq!(scene.decision(asked), disconnected());
        assert!(scene.notices[0].starts_with(&format!("f1: {word}: filter-result|")));
        ran("filter", number);
    }
}

#[test]
fn the_end_of_a_program_is_the_end_of_its_sessions() {
    let mut scene = Scene::one(&ALL);
    let process = scene.process("f1");
    scene.begin("f1");
    let asked = scene.ask(Phase::Commit, "");
    scene.engine.closed(scene.moment(), process);
    scene.perform();
    assert_eq!(scene.decision(asked), disconnected());
    assert_eq!(scene.notices, ["f1: it has ended, 100 ms"]);
    ran("filter", 94);

    // In the middle of a message, too, and that one is not taken.
    let mut scene = Scene::one(&ALL);
    scene.begin("f1");
    scene.lines("x\n.\n");
    let asked = scene.lines("");
    scene.engine.closed(scene.moment(), process);
    scene.perform();
    assert_eq!(scene.out(asked), Some((0, String::new(), Flow::Broken)));
    let asked = scene.lines("y\n");
    assert_eq!(scene.out(asked), Some((2, String::new(), Flow::Broken)));
    let asked = scene.ask(Phase::Commit, "");
    assert_eq!(scene.decision(asked), disconnected());
}

#[test]
fn results_and_lines_have_their_phases() {
    let mut scene = Scene::one(&ALL);
    let process = scene.process("f1");
    scene.begin("f1");
    scene.lines("x\n");
    scene.heard(process);
    scene.say(process, "filter-result|SID|TOK|proceed");
    assert_eq!(scene.notices, ["f1: filter-result in dataline phase, 100 ms"]);
    ran("filter", 76);
}

#[test]
fn a_second_answer_is_ignored() {
    let mut scene = Scene::one(&ALL);
    let process = scene.process("f1");
    scene.begin("f1");
    assert_eq!(scene.decide(Phase::Noop, "", "proceed"), Some(Decision::Proceed));
    scene.say(process, "filter-result|SID|TOK|reject|550 x");
    assert_eq!(scene.notices, ["f1: an answer that nothing asked for is ignored"]);
    assert_eq!(scene.decide(Phase::Noop, "", "proceed"), Some(Decision::Proceed));
    assert!(scene.ended.is_empty());
    ran("filter", 100);
}

#[test]
fn no_answer_ends_one_session_after_five_minutes() {
    let mut scene = Scene::one(&ALL);
    let process = scene.process("f1");
    scene.begin("f1");
    scene.begin_session(0xb2, "f1", Direction::In);
    let asked = scene.ask(Phase::Commit, "");
    scene.heard(process);
    scene.pass(Duration::from_secs(299));
    assert_eq!(scene.decision(asked), None);
    let other = scene.ask_in(0xb2, Phase::Noop, "");
    scene.heard(process);
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.decision(asked), disconnected());
    let told =
        ["R|timeout|SID", "R|filter-response|SID|commit|disconnect|421 Internal server error"];
    assert_eq!(scene.heard(process), told);
    // A late answer is for nobody; others go on.
    scene.say(process, "filter-result|SID|TOK|proceed");
    assert_eq!(scene.decision(other), None);
    assert!(scene.notices.is_empty() && scene.ended.is_empty());
    ran("filter", 101);
}

#[test]
fn many_questions_that_wait_do_not_use_up_all_room() {
    let mut scene = Scene::one(&ALL);
    for session in 1..20 {
        let asked = scene.begin_session(session, "f1", Direction::In);
        assert!(scene.wants(asked).is_some());
    }
    let asked: Vec<u32> = (1..10).map(|session| scene.ask_in(session, Phase::Noop, "")).collect();
    assert!(asked.iter().all(|asked| scene.decision(*asked).is_none()), "a burst is no trouble");
    scene.pass(limits::STALLED);
    let late = scene.ask_in(15, Phase::Noop, "");
    assert_eq!(scene.decision(late), disconnected());
}

#[test]
fn a_program_that_reports_without_end_and_does_not_read_is_given_up_at_once() {
    let mut scene = Scene::one(&["report|smtp-in|filter-report"]);
    let process = scene.process("f1");
    scene.begin("f1");
    let report = format!("report|1.1|smtp-in|SID|{}", "x".repeat(60_000));
    let mut said = 0;
    while scene.ended.is_empty() {
        scene.say(process, &report);
        said += report.len();
        assert!(said < limits::MOST_UNREAD);
    }
    assert_eq!(scene.notices, ["f1: it does not read what it is sent, 100 ms"]);
}

#[test]
fn a_program_that_does_not_read_is_not_told_more_and_more_of_what_another_reports() {
    let text =
        "filter f1 proc-exec \"/f\"\nfilter f2 proc-exec \"/g\"\nlisten on lo filter { f1 f2 }";
    let mut scene = Scene::with(text, &["report|smtp-in|filter-report"]);
    scene.begin_session(SESSION, "<dynchain:00000000>", Direction::In);
    let (first, second) = (scene.process("f1"), scene.process("f2"));
    let report = format!("report|1.1|smtp-in|SID|{}", "x".repeat(60_000));
    for _ in 0..2 * limits::MOST_UNREAD / report.len() {
        scene.say(first, &report);
        scene.heard(first);
    }
    assert!(scene.ended.is_empty(), "neither has broken anything yet: {:?}", scene.notices);
    let ignored =
        "f1: a report is ignored, for a filter of its session does not read what it is sent";
    assert_eq!(scene.notices[0], ignored);
    let mut waiting = Vec::new();
    scene.engine.take_output(second, &mut waiting);
    assert!((limits::FAR_BEHIND..limits::MOST_UNREAD).contains(&waiting.len()));
}

#[test]
fn that_a_program_is_back_is_said_after_what_was_said_of_its_end() {
    let mut scene = Scene::one(&ALL);
    let process = scene.process("f1");
    for _ in 0..3 {
        scene.starting.clear();
        scene.engine.closed(scene.moment(), process);
        scene.perform();
        scene.pass(limits::LONGEST_PAUSE);
        scene.ready(process, &ALL);
    }
    let back = scene.notices.iter().filter(|notice| *notice == "f1 is back").count();
    assert_eq!(back, 1, "{:?}", scene.notices);
}

#[test]
fn what_a_program_says_after_it_was_given_up_is_not_taken_for_words_of_the_next() {
    let mut scene = Scene::one(&ALL);
    let process = scene.process("f1");
    scene.say(process, "hello world");
    assert_eq!(scene.ended, [process]);
    scene.say_bytes(process, b"a line that was cut");
    scene.pass(Duration::from_millis(100));
    scene.ready(process, &ALL);
    assert_eq!(scene.notices[1..], ["f1 is back"]);
}
