//! How programs begin, and begin again.

use super::*;

const ONE: &str = "filter f1 proc-exec \"/f\"\nlisten on lo filter f1";

#[test]
fn a_program_is_greeted_and_waited_for() {
    let mut scene = Scene::new(ONE);
    let process = scene.process("f1");
    assert_eq!(scene.starting, [process]);
    let asked = scene.begin_session(SESSION, "f1", Direction::In);
    scene.run(process);
    let greeting = [
        "config|smtpd-version|7.9.0-pillarbox",
        "config|protocol|0.7",
        "config|smtp-session-timeout|300",
        "config|subsystem|smtp-in",
        "config|admd|mx.example.org",
        "config|ready",
    ];
    assert_eq!(scene.heard(process), greeting);
    ran("filter", 1);
    scene.pass(Duration::from_secs(5));
    scene.say(process, "register|filter|smtp-in|connect");
    assert_eq!(scene.wants(asked), None);
    scene.say(process, "register|ready");
    let wants = Wants { events: false, phases: Phase::Connect.bit() };
    assert_eq!(scene.wants(asked), Some(wants));
    ran("filter", 4);
}

#[test]
fn a_program_is_told_which_sessions_it_sees_and_for_whom() {
    let relay = "filter f1 proc-exec \"/f\"\naction r relay filter f1\nmatch for any action r";
    let cases = [
        (2, relay.to_owned(), vec!["config|subsystem|smtp-out", "config|admd|mx.example.org"]),
        (
            2,
            format!("{relay}\nlisten on lo filter f1"),
            vec![
                "config|subsystem|smtp-in",
                "config|subsystem|smtp-out",
                "config|admd|mx.example.org",
            ],
        ),
        (
            3,
            format!("admd example.net\n{ONE}"),
            vec!["config|subsystem|smtp-in", "config|admd|example.net"],
        ),
        (0, "proc p \"/p\"".to_owned(), vec!["config|admd|mx.example.org"]),
        (
            0,
            "filter f1 proc-exec \"/f\"\nlisten on socket filter f1".to_owned(),
            vec!["config|subsystem|smtp-in", "config|admd|mx.example.org"],
        ),
    ];
    for (number, text, expected) in cases {
        let mut scene = Scene::new(&text);
        let process = scene.starting[0];
        scene.run(process);
        let told = scene.heard(process);
        assert_eq!(told[3..told.len() - 1], expected, "case F{number}");
        ran("filter", number);
    }
}

#[test]
fn what_is_no_registration_is_the_end_of_a_program_that_begins() {
    let cases = [
        (7, "hello", "Non-register message before register|ready: hello"),
        (6, "register|filter|smtp-in|data-lines", "Unrecognized report name: data-lines"),
        (8, "register|filter|smtp-out|connect", "Invalid message direction: smtp-out|connect"),
        (9, "register|filter|smtp-in|*", "Unrecognized report name: *"),
        (0, "register|hello", "Invalid register line received: register|hello"),
        (
            0,
            "filter-result|a|b|proceed",
            "Non-register message before register|ready: filter-result|a|b|proceed",
        ),
    ];
    for (number, line, expected) in cases {
        let mut scene = Scene::new(ONE);
        let process = scene.process("f1");
        let asked = scene.begin_session(SESSION, "f1", Direction::In);
        scene.run(process);
        scene.say(process, line);
        assert_eq!(scene.notices, [format!("f1: {expected}, 100 ms")], "case F{number}");
        assert!(scene.wants(asked).is_some_and(|wants| wants.phases & Phase::Connect.bit() != 0));
        let asked = scene.ask(Phase::Connect, "");
        assert_eq!(scene.decision(asked), disconnected(), "case F{number}");
        ran("filter", number);
    }
}

#[test]
fn a_program_that_is_not_ready_in_a_minute_is_replaced() {
    let mut scene = Scene::new(ONE);
    let process = scene.process("f1");
    let asked = scene.begin_session(SESSION, "f1", Direction::In);
    scene.run(process);
    scene.pass(Duration::from_secs(59));
    assert_eq!(scene.wants(asked), None);
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.notices, ["f1: no register|ready within 60 s, 100 ms"]);
    assert!(scene.wants(asked).is_some());
    let asked = scene.ask(Phase::Connect, "");
    assert_eq!(scene.decision(asked), disconnected());
}

#[test]
fn pauses_grow_to_two_seconds_and_never_end() {
    let mut scene = Scene::new(ONE);
    let process = scene.process("f1");
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let began = scene.moment().uptime;
        scene.starting.clear();
        scene.engine.not_started(scene.moment(), process, "no such file".to_owned());
        scene.perform();
        while scene.starting.is_empty() {
            scene.pass(Duration::from_millis(100));
        }
        pauses.push((scene.moment().uptime - began).as_millis());
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
    // The same is said aloud once.
    assert_eq!(scene.notices.iter().filter(|notice| !notice.ends_with(" again")).count(), 1);
    let counters = scene.engine.counters();
    let expected = [("failures", 8), ("requests", 0), ("restarts", 8)];
    assert_eq!(counters, expected.map(|(what, count)| (format!("filter.f1.{what}"), count)));
    // One that serves for a while begins with short pauses again.
    scene.ready(process, &ALL);
    scene.pass(limits::SETTLED);
    scene.starting.clear();
    scene.engine.closed(scene.moment(), process);
    scene.engine.closed(scene.moment(), process);
    scene.perform();
    scene.pass(Duration::from_millis(100));
    assert_eq!(scene.starting, [process]);
}

#[test]
fn with_many_waiting_for_a_program_that_begins_more_are_refused() {
    let mut scene = Scene::new(ONE);
    let asked: Vec<u32> =
        (1..=5).map(|session| scene.begin_session(session, "f1", Direction::In)).collect();
    let answered: Vec<bool> = asked.iter().map(|asked| scene.wants(*asked).is_some()).collect();
    assert_eq!(answered, [false, false, false, false, true]);
    let asked = scene.ask_in(5, Phase::Connect, "");
    assert_eq!(scene.decision(asked), disconnected());
}

#[test]
fn questions_of_unknown_sessions_are_refused() {
    let mut scene = Scene::one(&ALL);
    let asked = scene.ask(Phase::Noop, "");
    assert_eq!(scene.decision(asked), disconnected());
    let asked = scene.lines("x\n");
    assert_eq!(scene.out(asked), Some((2, String::new(), Flow::Broken)));
    scene.engine.end(scene.moment(), SESSION);
    assert!(scene.engine.actions().is_empty());
}

#[test]
fn lines_of_any_cut_are_heard_whole() {
    let mut scene = Scene::new(ONE);
    let process = scene.process("f1");
    scene.run(process);
    let asked = scene.begin_session(SESSION, "f1", Direction::In);
    for byte in b"register|filter|smtp-in|noop\nregister|ready\nregister|report|smtp-in|*\n" {
        scene.say_bytes(process, &[*byte]);
    }
    assert!(scene.wants(asked).is_some_and(|wants| wants.phases == Phase::Noop.bit()));
    assert!(scene.notices.is_empty());
}
