//! Lines of messages.

use super::*;

const LINES: [&str; 1] = ["filter|smtp-in|data-line"];

/// A program that takes lines, in the middle of a session.
fn scene() -> (Scene, ProcessId) {
    let mut scene = Scene::one(&LINES);
    let wants = Wants { events: false, phases: Phase::DataLine.bit() };
    assert_eq!(scene.begin("f1"), Some(wants));
    let process = scene.process("f1");
    (scene, process)
}

/// Gives lines, and has the program say these about them.
fn filtered(number: u32, given: &str, said: &[&str], expected: &str) {
    let (mut scene, process) = scene();
    let asked = scene.lines(given);
    assert_eq!(scene.out(asked), Some((given.len(), String::new(), Flow::More)));
    let questions: Vec<_> =
        given.lines().map(|line| format!("Q|data-line|SID|TOK|{line}")).collect();
    assert_eq!(scene.heard(process), questions, "case F{number}");
    let asked = scene.lines("");
    assert_eq!(scene.out(asked), None);
    let mut text = String::new();
    for line in said {
        let said = format!("filter-dataline|{SESSION:016x}|TOK|{line}");
        scene.say(process, &said);
    }
    let mut asked = asked;
    loop {
        let (taken, output, flow) = scene.out(asked).unwrap();
        text.push_str(&output);
        assert_eq!(taken, 0);
        if flow == Flow::Ended {
            break;
        }
        asked = scene.lines("");
    }
    assert_eq!(text, expected, "case F{number}");
    assert!(scene.notices.is_empty() && scene.ended.is_empty(), "{:?}", scene.notices);
    ran("filter", number);
}

#[test]
fn what_a_program_makes_of_lines_comes_out() {
    let message = "Received: from x\n\tby y\nSubject: s\n\nbody\n.\n";
    let echo: Vec<&str> = message.lines().collect();
    filtered(64, message, &echo, "Received: from x\n\tby y\nSubject: s\n\nbody\n");
    filtered(65, "..dot\n.\n", &["..dot", "."], "..dot\n");
    filtered(66, "b|c\n.\n", &["b|c", "."], "b|c\n");
    filtered(
        67,
        "A: 1\n\nx\n.\n",
        &["A: 1", "", "X-Added: 1", "x", "."],
        "A: 1\n\nX-Added: 1\nx\n",
    );
    filtered(
        67,
        "A: 1\n\nx\n.\n",
        &["X-Added: 1", "A: 1", "", "x", "."],
        "X-Added: 1\nA: 1\n\nx\n",
    );
    filtered(68, message, &["."], "");
    filtered(71, message, &["hello", "."], "hello\n");
    filtered(72, "x\n.\n", &[".x", "."], ".x\n");
    filtered(0, ".\n", &["\u{e9}\0\r\r", "."], "\u{e9}\0\r\n");
    // Programs may end their lines as clients do, the last one too.
    filtered(0, "x\n.\n", &["x\r", "\r", ".\r"], "x\n\n");
}

#[test]
fn a_message_may_come_out_at_its_end() {
    let (mut scene, process) = scene();
    for line in ["A: 1\n", "\n", "x\n"] {
        let asked = scene.lines(line);
        assert_eq!(scene.out(asked), Some((line.len(), String::new(), Flow::More)));
    }
    let asked = scene.lines(".\n");
    assert_eq!(scene.out(asked), Some((2, String::new(), Flow::More)));
    let asked = scene.lines("");
    scene.heard(process);
    let begin = format!("filter-dataline|{SESSION:016x}|");
    let token = {
        let chain = scene.engine.chains.get(scene.filter("f1")).unwrap();
        format!("{:016x}|", chain.steps[0].token)
    };
    let whole: String =
        ["A: 1", "", "x", "."].iter().map(|line| format!("{begin}{token}{line}\n")).collect();
    scene.say_bytes(process, whole.as_bytes());
    assert_eq!(scene.out(asked), Some((0, "A: 1\n\nx\n".to_owned(), Flow::Ended)));
    ran("filter", 69);
    // The next message begins anew.
    let asked = scene.lines("y\n");
    assert_eq!(scene.out(asked), Some((2, String::new(), Flow::More)));
    assert_eq!(scene.heard(process), ["Q|data-line|SID|TOK|y"]);
}

#[test]
fn a_final_dot_that_never_comes_is_not_waited_for_longer_than_five_minutes() {
    let (mut scene, process) = scene();
    scene.lines("x\n.\n");
    scene.heard(process);
    scene.say(process, "filter-dataline|SID|TOK|x");
    let asked = scene.lines("");
    assert_eq!(scene.out(asked), Some((0, "x\n".to_owned(), Flow::More)));
    let asked = scene.lines("");
    scene.pass(Duration::from_secs(299));
    assert_eq!(scene.out(asked), None);
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.out(asked), Some((0, String::new(), Flow::Broken)));
    let asked = scene.ask(Phase::Quit, "");
    assert_eq!(scene.decision(asked), disconnected());
    assert!(scene.ended.is_empty(), "the program goes on");
    ran("filter", 70);
}

#[test]
fn the_longest_line_passes() {
    let (mut scene, process) = scene();
    let line = "x".repeat(65_534);
    let (first, second) = line.split_at(MAX);
    const MAX: usize = 32 * 1024;
    scene.lines(first);
    assert_eq!(scene.heard(process), [""; 0]);
    let asked = scene.lines(&format!("{second}\n"));
    assert!(scene.out(asked).is_some());
    assert_eq!(scene.heard(process), [format!("Q|data-line|SID|TOK|{line}")]);
    scene.lines(".\n");
    scene.heard(process);
    for piece in [&line[..], "."] {
        scene.say(process, &format!("filter-dataline|SID|TOK|{piece}"));
    }
    let mut text = String::new();
    loop {
        let asked = scene.lines("");
        let (_, output, flow) = scene.out(asked).unwrap();
        assert!(output.len() <= MAX);
        text.push_str(&output);
        if flow == Flow::Ended {
            break;
        }
    }
    assert_eq!(text, format!("{line}\n"));
    ran("filter", 74);
}

#[test]
fn a_line_that_is_too_long_ends_a_program_and_its_sessions_only() {
    let (mut scene, process) = scene();
    let other = scene.begin_session(0xb2, "f1", Direction::In);
    assert!(scene.wants(other).is_some());
    let asked = scene.lines("x\n");
    assert!(scene.out(asked).is_some());
    let asked = scene.lines("");
    scene.heard(process);
    scene.say_bytes(process, "x".repeat(66_000).as_bytes());
    assert_eq!(scene.ended, [process]);
    assert_eq!(scene.out(asked), Some((0, String::new(), Flow::Broken)));
    assert_eq!(scene.notices, ["f1: line too long, 100 ms"]);
    // A line of a client is never so long, but who knows.
    let (mut scene, _) = self::scene();
    let asked = scene.lines(&"x".repeat(66_000));
    assert!(matches!(scene.out(asked), Some((_, _, Flow::Broken))));
    assert!(scene.ended.is_empty());
}

#[test]
fn a_program_gets_what_the_one_before_it_made() {
    let text = "filter a proc-exec \"/a\"\nfilter b proc-exec \"/b\"\nlisten on lo filter { a b }";
    let mut scene = Scene::with(text, &LINES);
    let (a, b) = (scene.process("a"), scene.process("b"));
    scene.begin("<dynchain:00000000>");
    scene.lines("hello\n.\n");
    assert_eq!(scene.heard(a), ["Q|data-line|SID|TOK|hello", "Q|data-line|SID|TOK|."]);
    assert_eq!(scene.heard(b), [""; 0]);
    scene.say(a, "filter-dataline|SID|TOK|HELLO");
    assert_eq!(scene.heard(b), ["Q|data-line|SID|TOK2|HELLO"]);
    scene.say(a, "filter-dataline|SID|TOK|.");
    assert_eq!(scene.heard(b), ["Q|data-line|SID|TOK2|."]);
    scene.say(b, "filter-dataline|SID|TOK2|<HELLO>");
    scene.say(b, "filter-dataline|SID|TOK2|.");
    let asked = scene.lines("");
    assert_eq!(scene.out(asked), Some((0, "<HELLO>\n".to_owned(), Flow::Ended)));
    ran("filter", 75);
}

#[test]
fn a_later_program_may_end_a_message_before_an_earlier_one() {
    let text = "filter a proc-exec \"/a\"\nfilter b proc-exec \"/b\"\nlisten on lo filter { a b }";
    let mut scene = Scene::with(text, &LINES);
    let (a, b) = (scene.process("a"), scene.process("b"));
    scene.begin("<dynchain:00000000>");
    scene.lines("hello\n.\n");
    scene.heard(a);
    scene.say(a, "filter-dataline|SID|TOK|x");
    scene.heard(b);
    scene.say(b, "filter-dataline|SID|TOK2|.");
    let asked = scene.lines("");
    assert_eq!(scene.out(asked), Some((0, String::new(), Flow::Ended)));
    // Until the earlier one has ended too, its lines would be taken for those of another message.
    let asked = scene.lines("next\n");
    assert_eq!(scene.out(asked), Some((5, String::new(), Flow::Broken)));
    scene.say(a, "filter-dataline|SID|TOK|y");
    scene.say(a, "filter-dataline|SID|TOK|.");
    assert!(scene.ended.is_empty());
    let asked = scene.lines("next\n");
    assert_eq!(scene.out(asked), Some((5, String::new(), Flow::More)));
    assert_eq!(scene.heard(b), [""; 0]);
}

#[test]
fn no_more_is_taken_than_a_program_reads() {
    let (mut scene, process) = scene();
    let piece = format!("{}\n", "x".repeat(1023)).repeat(31);
    let mut given = 0;
    let asked = loop {
        let asked = scene.lines(&piece);
        match scene.out(asked) {
            Some((taken, _, Flow::More)) => given += taken,
            Some(other) => panic!("{other:?}"),
            None => break asked,
        }
        assert!(given < 2 * limits::UNREAD);
    };
    assert!(given > limits::UNREAD / 2);
    assert_eq!(scene.out(asked), None);
    scene.heard(process);
    let (taken, _, flow) = scene.out(asked).unwrap();
    assert!(taken > 0 && flow == Flow::More);
    // One that reads nothing more is given up.
    loop {
        let asked = scene.lines(&piece);
        if scene.out(asked).is_none() {
            break;
        }
    }
    for _ in 0..300 {
        assert!(scene.ended.is_empty());
        scene.pass(Duration::from_secs(1));
    }
    assert_eq!(scene.ended, [process]);
}

#[test]
fn a_program_is_not_read_while_its_lines_wait_but_for_a_while() {
    let (mut scene, process) = scene();
    scene.lines("x\n");
    scene.heard(process);
    let line = format!("filter-dataline|SID|TOK|{}", "y".repeat(60_000));
    for _ in 0..5 {
        assert!(scene.engine.may_read(process));
        scene.say(process, &line);
    }
    assert!(!scene.engine.may_read(process));
    // Collected, it is read again.
    for _ in 0..4 {
        let asked = scene.lines("");
        assert!(scene.out(asked).is_some_and(|(_, output, _)| !output.is_empty()));
    }
    assert!(scene.engine.may_read(process));
    for _ in 0..5 {
        scene.say(process, &line);
    }
    assert!(!scene.engine.may_read(process));
    // Others need it: who does not collect cannot hold it up for ever.
    scene.pass(limits::HELD);
    assert!(scene.engine.may_read(process));
    scene.say(process, &line);
    assert!(scene.engine.may_read(process));
    scene.engine.end(scene.moment(), SESSION);
    assert!(scene.engine.may_read(process));
}

#[test]
fn all_that_nobody_collects_has_a_bound_and_breaks_who_has_most_of_it() {
    let (mut scene, process) = scene();
    let sessions = [SESSION, 0xb2];
    scene.begin_session(0xb2, "f1", Direction::In);
    let line = |session: u64| {
        let token = scene.engine.chains.get(scene.filter("f1")).unwrap().steps[0].token;
        format!("filter-dataline|{session:016x}|{token:016x}|{}\n", "y".repeat(60_000))
    };
    let made = sessions.map(line);
    for session in sessions {
        scene.lines_in(session, "x\n");
    }
    scene.heard(process);
    let mut said = 0;
    // The first one has half as much again as the other.
    let turns = [&made[0], &made[1], &made[0]];
    let broken = 'said: loop {
        for line in turns {
            scene.say_bytes(process, line.as_bytes());
            said += line.len();
            if !scene.engine.may_read(process) {
                scene.pass(limits::HELD);
            }
            if let Some((broken, _)) = scene.engine.sessions.iter().find(|(_, it)| it.broken) {
                break 'said *broken;
            }
        }
        assert!(said < 2 * limits::MOST_UNCOLLECTED);
    };
    assert!(said > limits::MOST_UNCOLLECTED / 2);
    assert_eq!(broken, SESSION);
    let asked = scene.lines_in(broken, "");
    assert_eq!(scene.out(asked), Some((0, String::new(), Flow::Broken)));
    // The program and its other session go on.
    assert!(scene.ended.is_empty() && scene.engine.may_read(process));
    let asked = scene.lines_in(0xb2, "");
    assert!(matches!(scene.out(asked), Some((0, output, Flow::More)) if !output.is_empty()));
}

#[test]
fn a_program_that_is_in_a_chain_twice_does_not_wait_for_itself() {
    let text = "proc p \"/p\"\nfilter a proc p\nfilter b proc p\nlisten on lo filter { a b }";
    let mut scene = Scene::with(text, &LINES);
    let process = scene.process("p");
    scene.begin("<dynchain:00000000>");
    scene.lines("x\n");
    scene.heard(process);
    let line = format!("filter-dataline|SID|TOK|{}", "y".repeat(60_000));
    for _ in 0..10 {
        scene.say(process, &line);
        assert!(scene.engine.may_read(process));
    }
    assert_eq!(scene.heard(process).len(), 10);
}

#[test]
fn programs_do_not_wait_for_one_another_in_a_ring() {
    let text = "filter a proc-exec \"/a\"\nfilter b proc-exec \"/b\"\n\
                filter ab chain { a b }\nfilter ba chain { b a }\n\
                listen on lo filter ab\nlisten on lo port 26 filter ba";
    let mut scene = Scene::with(text, &LINES);
    let (a, b) = (scene.process("a"), scene.process("b"));
    for (session, filter) in [(0xb2, "ab"), (0xc3, "ba")] {
        scene.begin_session(session, filter, Direction::In);
        scene.lines_in(session, "x\n");
    }
    let made = |session: u64, filter: &str| {
        let token = scene.engine.chains.get(scene.filter(filter)).unwrap().steps[0].token;
        format!("filter-dataline|{session:016x}|{token:016x}|{}\n", "y".repeat(60_000))
    };
    let (by_a, by_b) = (made(0xb2, "ab"), made(0xc3, "ba"));
    for _ in 0..5 {
        scene.say_bytes(a, by_a.as_bytes());
    }
    assert!(!scene.engine.may_read(a));
    for _ in 0..5 {
        scene.say_bytes(b, by_b.as_bytes());
    }
    assert!(scene.engine.may_read(b));
    // One that keeps up again lets the other go on.
    scene.heard(b);
    assert!(scene.engine.may_read(a) && scene.engine.may_read(b));
}

#[test]
fn sessions_that_wait_for_room_are_in_line_once() {
    let (mut scene, process) = scene();
    let piece = format!("{}\n", "x".repeat(1023)).repeat(31);
    loop {
        let asked = scene.lines(&piece);
        if scene.out(asked).is_none() {
            break;
        }
    }
    for session in 0xb2..0xc2 {
        scene.begin_session(session, "f1", Direction::In);
        let asked = scene.lines_in(session, &piece);
        assert_eq!(scene.out(asked), None);
        // What was made of earlier lines comes out all the same, and the rest is given again.
        let asked = scene.lines_in(session, &piece);
        assert_eq!(scene.out(asked), None);
    }
    assert_eq!(scene.engine.blocked.len(), 17);
    scene.engine.end(scene.moment(), 0xb2);
    scene.perform();
    assert_eq!(scene.engine.blocked.len(), 16);
    while !scene.heard(process).is_empty() {}
    assert!(scene.engine.blocked.is_empty());
}

#[test]
fn a_program_that_makes_too_many_lines_is_given_up() {
    let text = "smtp max-message-size 1K\nfilter f1 proc-exec \"/f\"\nlisten on lo filter f1";
    let mut scene = Scene::with(text, &LINES);
    let process = scene.process("f1");
    scene.begin("f1");
    scene.lines("x\n");
    scene.heard(process);
    let line = format!("filter-dataline|SID|TOK|{}", "y".repeat(65_000));
    for _ in 0..400 {
        scene.say(process, &line);
    }
    assert_eq!(scene.ended, [process]);
    assert_eq!(scene.notices, ["f1: it makes too many lines of a message, 100 ms"]);
}

#[test]
fn lines_that_no_program_takes_come_out_as_they_are() {
    let mut scene = Scene::one(&["filter|smtp-in|data"]);
    scene.begin("f1");
    let asked = scene.lines("x\n.\n");
    assert_eq!(scene.out(asked), Some((4, "x\n".to_owned(), Flow::Ended)));
}
