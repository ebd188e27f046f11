//! What programs decide about phases.

use super::*;

#[test]
fn decisions_of_a_program() {
    use Phase::{Auth, Commit, Connect, Data, Ehlo, MailFrom, Noop, Quit, RcptTo, Rset, StartTls};
    let disconnect = |text: &str| Some(Decision::Disconnect(text.to_owned()));
    let rewrite = |text: &str| Some(Decision::Rewrite(text.as_bytes().to_vec()));
    let (proceed, junk) = (Some(Decision::Proceed), Some(Decision::Junk));
    // Number, phase, parameter as asked, question, answer, decision, end of filter-response.
    let cases = [
        (36, Connect, "", "<unknown>|10.9.8.7", "proceed", proceed.clone(), "proceed"),
        (
            37,
            Connect,
            "",
            "<unknown>|10.9.8.7",
            "reject|550 nope",
            rejected("550 nope"),
            "reject|550 nope",
        ),
        (
            38,
            Connect,
            "",
            "<unknown>|10.9.8.7",
            "reject|421 nope",
            disconnect("421 nope"),
            "disconnect|421 nope",
        ),
        (
            39,
            Connect,
            "",
            "<unknown>|10.9.8.7",
            "disconnect|550 bye",
            disconnect("550 bye"),
            "disconnect|550 bye",
        ),
        (40, Connect, "", "<unknown>|10.9.8.7", "junk", junk.clone(), "junk"),
        (41, MailFrom, "a@b", "a@b", "junk", junk.clone(), "junk"),
        (42, Ehlo, "a.b", "a.b", "rewrite|new.name", rewrite("new.name"), "rewrite|new.name"),
        (43, Ehlo, "a.b", "a.b", "rewrite|bad name", rewrite("bad name"), "rewrite|bad name"),
        (
            44,
            MailFrom,
            "a@b",
            "a@b",
            "rewrite|<new@from> SIZE=1",
            rewrite("<new@from> SIZE=1"),
            "rewrite|<new@from> SIZE=1",
        ),
        (45, MailFrom, "a@b", "a@b", "rewrite|new@from", rewrite("new@from"), "rewrite|new@from"),
        (46, RcptTo, "c@d", "c@d", "rewrite|<x@y>", rewrite("<x@y>"), "rewrite|<x@y>"),
        (
            47,
            RcptTo,
            "c@d",
            "c@d",
            "reject|550 5.1.1 no",
            rejected("550 5.1.1 no"),
            "reject|550 5.1.1 no",
        ),
        (
            48,
            RcptTo,
            "c@d",
            "c@d",
            "disconnect|421 4.7.0 go",
            disconnect("421 4.7.0 go"),
            "disconnect|421 4.7.0 go",
        ),
        (49, Data, "", "", "reject|554 no data", rejected("554 no data"), "reject|554 no data"),
        (
            50,
            Commit,
            "",
            "",
            "reject|554 5.7.1 spam",
            rejected("554 5.7.1 spam"),
            "reject|554 5.7.1 spam",
        ),
        (
            51,
            Commit,
            "",
            "",
            "reject|450 4.7.1 later",
            rejected("450 4.7.1 later"),
            "reject|450 4.7.1 later",
        ),
        (52, Commit, "", "", "disconnect|421 x", disconnect("421 x"), "disconnect|421 x"),
        (53, StartTls, "", "", "reject|454 no tls", rejected("454 no tls"), "reject|454 no tls"),
        (
            54,
            Auth,
            "PLAIN AGFs",
            "PLAIN AGFs",
            "reject|535 5.7.8 no",
            rejected("535 5.7.8 no"),
            "reject|535 5.7.8 no",
        ),
        (55, Quit, "", "", "reject|550 stay", rejected("550 stay"), "reject|550 stay"),
        (56, Noop, "", "", "reject|500 no", rejected("500 no"), "reject|500 no"),
        (56, Rset, "", "", "reject|500 no", rejected("500 no"), "reject|500 no"),
        (
            57,
            Ehlo,
            "a",
            "a",
            "reject|200 ok",
            disconnected(),
            "disconnect|421 Internal server error",
        ),
        (
            57,
            Ehlo,
            "a",
            "a",
            "reject|55 foo",
            disconnected(),
            "disconnect|421 Internal server error",
        ),
        (
            57,
            Ehlo,
            "a",
            "a",
            "reject|550-foo",
            disconnected(),
            "disconnect|421 Internal server error",
        ),
        (
            0,
            Ehlo,
            "a",
            "a",
            "disconnect|nothing",
            disconnected(),
            "disconnect|421 Internal server error",
        ),
        (58, RcptTo, "c@d", "c@d", "report|hello", proceed.clone(), "report|hello"),
        (59, Commit, "", "", "rewrite|foo", proceed.clone(), "proceed"),
        (60, Connect, "", "<unknown>|10.9.8.7", "rewrite|x", proceed.clone(), "proceed"),
        (0, Data, "", "", "rewrite|x", proceed.clone(), "proceed"),
        (0, StartTls, "", "", "rewrite|x", proceed.clone(), "proceed"),
        (0, Auth, "LOGIN", "LOGIN", "rewrite|PLAIN", rewrite("PLAIN"), "rewrite|PLAIN"),
        (
            0,
            Auth,
            "PLAIN AGFs",
            "PLAIN AGFs",
            "rewrite|PLAIN AGJv",
            rewrite("PLAIN AGJv"),
            "rewrite|PLAIN ********",
        ),
        (0, RcptTo, "c@d", "c@d", "rewrite|", rewrite(""), "rewrite|"),
        (63, MailFrom, "@x:u@c", "@x:u@c", "proceed", proceed.clone(), "proceed"),
        (63, MailFrom, "user", "user", "proceed", proceed.clone(), "proceed"),
        (63, MailFrom, "", "", "proceed", proceed, "proceed"),
    ];
    for (number, phase, parameter, question, answer, decision, response) in cases {
        let mut scene = Scene::one(&ALL);
        let process = scene.process("f1");
        scene.begin("f1");
        let asked = scene.ask(phase, parameter);
        let expected = format!("Q|{}|SID|TOK|{question}", phase.name());
        assert_eq!(scene.heard(process), [expected], "case F{number}");
        assert_eq!(scene.decision(asked), None, "case F{number}");
        scene.say(process, &format!("filter-result|SID|TOK|{answer}"));
        assert_eq!(scene.decision(asked), decision, "case F{number}: {answer}");
        let told = scene.heard(process);
        let expected = format!("R|filter-response|SID|{}|{response}", phase.response_name());
        assert_eq!(told, [expected], "case F{number}");
        let ignored = decision == Some(Decision::Proceed) && answer.starts_with("rewrite");
        let notice = format!("f1: rewrite is ignored in phase {}", phase.name());
        assert_eq!(scene.notices, if ignored { vec![notice] } else { Vec::new() });
        ran("filter", number);
    }
}

#[test]
fn what_programs_say_to_clients_and_for_them_has_the_length_of_replies_and_commands() {
    let mut scene = Scene::one(&["filter|smtp-in|helo", "report|smtp-in|filter-response"]);
    scene.begin("f1");
    let long = "x".repeat(60_000);
    let decision = scene.decide(Phase::Helo, "a.b", &format!("reject|550 {long}"));
    assert!(matches!(decision, Some(Decision::Reject(line)) if line.len() == 4095));
    let process = scene.process("f1");
    let told = scene.heard(process);
    assert_eq!(told[0].len(), "R|filter-response|SID|helo|reject|".len() + 4095);
    let longest = &long[..2047];
    let decision = scene.decide(Phase::Helo, "a.b", &format!("rewrite|{longest}"));
    assert_eq!(decision, Some(Decision::Rewrite(longest.as_bytes().to_vec())));
    let decision = scene.decide(Phase::Helo, "a.b", &format!("rewrite|{longest}x"));
    assert_eq!(decision, disconnected());
    assert!(scene.ended.is_empty());
}

#[test]
fn credentials_are_not_in_what_is_written_out_of_a_question() {
    let mut scene = Scene::one(&ALL);
    scene.begin("f1");
    scene.ask(Phase::Auth, "PLAIN AGFs");
    let ask = format!("{:?}", scene.engine.sessions[&SESSION].ask);
    assert!(ask.contains("Auth") && !ask.contains("65, 71, 70, 115"), "{ask}");
}

#[test]
fn phases_that_no_program_decides_proceed_and_are_told_of() {
    let mut scene = Scene::one(&["report|smtp-in|filter-response", "filter|smtp-in|data"]);
    let process = scene.process("f1");
    let wants = scene.begin("f1").unwrap();
    assert_eq!(wants, Wants { events: true, phases: Phase::Data.bit() });
    for (phase, name) in [(Phase::Connect, "connected"), (Phase::Ehlo, "ehlo")] {
        let asked = scene.ask(phase, "a.b");
        assert_eq!(scene.decision(asked), Some(Decision::Proceed));
        assert_eq!(scene.heard(process), [format!("R|filter-response|SID|{name}|proceed")]);
    }
}

#[test]
fn a_program_is_told_what_it_registered_for_as_often_as_it_did() {
    let registered = ["report|smtp-in|timeout", "report|smtp-in|*", "report|smtp-out|tx-begin"];
    let mut scene = Scene::one(&registered);
    let process = scene.process("f1");
    assert_eq!(scene.begin("f1"), Some(Wants { events: true, phases: 0 }));
    scene.event(Event::Timeout);
    scene.event(Event::LinkDisconnect);
    let expected = ["R|timeout|SID", "R|timeout|SID", "R|link-disconnect|SID"];
    assert_eq!(scene.heard(process), expected);
    ran("filter", 5);

    // Later than `register|ready`, events still count; they count for sessions under way, too.
    let mut scene = Scene::one(&["filter|smtp-in|data"]);
    let process = scene.process("f1");
    assert_eq!(scene.begin("f1"), Some(Wants { events: false, phases: Phase::Data.bit() }));
    scene.say(process, "register|report|smtp-in|link-disconnect");
    scene.event(Event::LinkDisconnect);
    assert_eq!(scene.heard(process), ["R|link-disconnect|SID"]);
    scene.begin_session(0xb2, "f1", Direction::In);
    assert_eq!(scene.begin("f1").map(|wants| wants.events), Some(true));
    ran("filter", 10);
    // Phases do not.
    scene.say(process, "register|filter|smtp-in|connect");
    assert_eq!(scene.notices, ["f1: a phase registered after register|ready is ignored"]);
    assert_eq!(scene.begin("f1").map(|wants| wants.phases), Some(Phase::Data.bit()));
}

#[test]
fn outgoing_sessions_are_told_of_and_never_decided() {
    let text = "filter f1 proc-exec \"/f\"\naction r relay filter f1\nlisten on lo filter f1";
    let registered = ["report|smtp-out|tx-reset", "filter|smtp-in|connect", "report|smtp-in|*"];
    let mut scene = Scene::with(text, &registered);
    let asked = scene.begin_session(SESSION, "f1", Direction::Out);
    assert_eq!(scene.wants(asked), Some(Wants { events: true, phases: 0 }));
    let message = crate::model::MessageId::new(0xabc).unwrap();
    scene.event(Event::TxBegin(message));
    scene.event(Event::TxReset(message));
    let process = scene.process("f1");
    assert_eq!(scene.heard(process), ["O|tx-reset|SID|00000abc"]);

    let mut scene = Scene::with(text, &["report|smtp-in|*", "filter|smtp-in|connect"]);
    let asked = scene.begin_session(SESSION, "f1", Direction::Out);
    assert_eq!(scene.wants(asked), Some(Wants::default()));
    scene.event(Event::TxReset(message));
    assert_eq!(scene.heard(process), [""; 0]);
    ran("filter", 109);
}

#[test]
fn answers_for_sessions_that_have_ended_are_ignored() {
    let mut scene = Scene::one(&ALL);
    let process = scene.process("f1");
    scene.begin("f1");
    let asked = scene.ask(Phase::Connect, "");
    scene.heard(process);
    scene.engine.end(scene.moment(), SESSION);
    scene.perform();
    assert_eq!(scene.decision(asked), disconnected());
    scene.say(process, "filter-result|SID|TOK|proceed");
    scene.say(process, "filter-dataline|SID|TOK|x");
    scene.say(process, "report|1.2|smtp-in|SID|hello");
    assert_eq!((scene.notices.len(), scene.ended.len()), (0, 0));
    ran("filter", 62);
}

#[test]
fn a_program_reports_to_all_programs_of_the_session() {
    let text =
        "filter f1 proc-exec \"/f\"\nfilter f2 proc-exec \"/g\"\nlisten on lo filter { f1 f2 }";
    let mut scene = Scene::with(text, &["report|smtp-in|filter-report"]);
    scene.begin_session(SESSION, "<dynchain:00000000>", Direction::In);
    let (first, second) = (scene.process("f1"), scene.process("f2"));
    for line in ["report|1700000000.1|smtp-in|SID|hello", "report|0.7|1.1|smtp-in|SID|hello"] {
        scene.say(first, line);
        for process in [first, second] {
            assert_eq!(scene.heard(process), ["R|filter-report|SID|proc|f1|hello"]);
        }
    }
    scene.say(first, "report|1.1|smtp-out|SID|hello");
    assert_eq!(scene.heard(second), [""; 0]);
    assert!(scene.ended.is_empty());
    ran("filter", 102);
}
