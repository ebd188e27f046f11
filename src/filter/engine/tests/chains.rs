//! Several filters, and those that need no program.

use super::*;

const TWO: &str =
    "filter a proc-exec \"/a\"\nfilter b proc-exec \"/b\"\nlisten on lo filter { a b }";
const BOTH: &str = "<dynchain:00000000>";

#[test]
fn each_program_of_a_chain_is_asked_until_one_decides() {
    let mut scene = Scene::with(TWO, &["filter|smtp-in|connect", "filter|smtp-in|rcpt-to"]);
    let (a, b) = (scene.process("a"), scene.process("b"));
    scene.begin(BOTH);
    let asked = scene.ask(Phase::Connect, "");
    assert_eq!(scene.heard(a), ["Q|connect|SID|TOK|<unknown>|10.9.8.7"]);
    assert_eq!(scene.heard(b), [""; 0]);
    scene.say(a, "filter-result|SID|TOK|proceed");
    assert_eq!(scene.heard(b), ["Q|connect|SID|TOK2|<unknown>|10.9.8.7"]);
    assert_eq!(scene.decision(asked), None);
    scene.say(b, "filter-result|SID|TOK2|proceed");
    assert_eq!(scene.decision(asked), Some(Decision::Proceed));
    ran("filter", 77);

    let asked = scene.ask(Phase::RcptTo, "c@d");
    scene.heard(a);
    scene.say(a, "filter-result|SID|TOK|reject|550 no");
    assert_eq!(scene.decision(asked), rejected("550 no"));
    assert_eq!(scene.heard(b), [""; 0]);
    ran("filter", 78);
    // What has no effect does not end the phase either.
    for answer in ["report|x", "rewrite|x"] {
        let asked = scene.ask(Phase::Connect, "");
        scene.heard(a);
        scene.say(a, &format!("filter-result|SID|TOK|{answer}"));
        assert_eq!(scene.heard(b).len(), 1, "{answer}");
        scene.say(b, "filter-result|SID|TOK2|reject|550 no");
        assert_eq!(scene.decision(asked), rejected("550 no"), "{answer}");
    }
}

#[test]
fn a_program_is_told_of_decisions_of_all() {
    let text = "filter a phase helo match !rdns report \"seen\"\nfilter b proc-exec \"/b\"\n\
                listen on lo filter { a b }";
    let mut scene = Scene::with(text, &["report|smtp-in|*", "filter|smtp-in|helo"]);
    let b = scene.process("b");
    scene.begin(BOTH);
    let asked = scene.ask(Phase::Helo, "x");
    let expected = ["R|filter-report|SID|builtin|a|seen", "Q|helo|SID|TOK|x"];
    assert_eq!(scene.heard(b), expected);
    scene.say(b, "filter-result|SID|TOK|reject|550 no");
    assert_eq!(scene.decision(asked), rejected("550 no"));
    assert_eq!(scene.heard(b), ["R|filter-response|SID|helo|reject|550 no"]);
    ran("filter", 35);
}

#[test]
fn built_in_filters_decide_one_after_the_other() {
    let connect = |scene: &mut Scene| {
        let asked = scene.ask(Phase::Connect, "");
        scene.decision(asked)
    };
    let chain = |first: &str, second: &str| {
        let text = format!(
            "filter a phase {first}\nfilter b phase {second}\nlisten on lo filter {{ a b }}"
        );
        let mut scene = Scene::with(&text, &[]);
        assert!(scene.begin(BOTH).is_some_and(|wants| wants.phases & Phase::Connect.bit() != 0));
        scene
    };
    let junk = "connect match !fcrdns junk";
    let mut scene = chain(junk, "connect match !rdns reject \"550 x\"");
    assert_eq!(connect(&mut scene), Some(Decision::Junk));
    ran("filter", 79);

    let bypass = "connect match src \"10.0.0.0/8\" bypass";
    let mut scene = chain(bypass, "connect match !rdns reject \"550 x\"");
    assert_eq!(connect(&mut scene), Some(Decision::Proceed));
    let mut scene = chain(bypass, "helo match src \"10.0.0.0/8\" reject \"550 src\"");
    assert_eq!(connect(&mut scene), Some(Decision::Proceed));
    let asked = scene.ask(Phase::Helo, "a.b");
    assert_eq!(scene.decision(asked), rejected("550 src"));
    ran("filter", 80);
    // HELO alone is meant.
    let asked = scene.ask(Phase::Ehlo, "a.b");
    assert_eq!(scene.decision(asked), Some(Decision::Proceed));
    ran("filter", 83);

    let ends = Some(Decision::Disconnect("550 x".to_owned()));
    let mut scene = chain(
        "connect match rdns disconnect \"550 y\"",
        "connect match !rdns disconnect \"550 x\"",
    );
    assert_eq!(connect(&mut scene), ends);
    ran("filter", 81);
    let mut scene = chain("connect match fcrdns junk", "connect match !rdns reject \"hello\"");
    assert_eq!(connect(&mut scene), disconnected());
    ran("filter", 91);
    ran("config", 275);
    let mut scene =
        chain("connect match !rdns rewrite \"x\"", "connect match !rdns reject \"550 x\"");
    assert_eq!(connect(&mut scene), rejected("550 x"));
    assert_eq!(scene.notices, ["a: rewrite is ignored in phase connect"]);
    let mut scene = chain("connect match rdns junk", "ehlo match !rdns rewrite \"x.y\"");
    assert_eq!(connect(&mut scene), Some(Decision::Proceed));
    let asked = scene.ask(Phase::Ehlo, "a.b");
    assert_eq!(scene.decision(asked), Some(Decision::Rewrite(b"x.y".to_vec())));
}

#[test]
fn a_condition_knows_who_has_logged_in() {
    let text = "filter a phase mail-from match !auth reject \"550 login\"\nlisten on lo filter a";
    let mut scene = Scene::with(text, &[]);
    let wants = Wants { events: true, phases: Phase::MailFrom.bit() };
    assert_eq!(scene.begin("a"), Some(wants));
    let asked = scene.ask(Phase::MailFrom, "a@b");
    assert_eq!(scene.decision(asked), rejected("550 login"));
    scene.event(Event::LinkAuth { result: AuthResult::Pass, user: b"alice".to_vec() });
    let asked = scene.ask(Phase::MailFrom, "a@b");
    assert_eq!(scene.decision(asked), Some(Decision::Proceed));
    ran("filter", 88);
}

#[test]
fn a_question_waits_for_a_table_that_takes_its_time() {
    let text =
        "filter a phase mail-from match mail-from \"@b\" reject \"550 x\"\nlisten on lo filter a";
    let mut scene = Scene::with(text, &[]);
    scene.tables_answer = false;
    scene.begin("a");
    for (answer, expected) in [
        (crate::table::Answer::Contains(true), rejected("550 x")),
        (crate::table::Answer::Contains(false), Some(Decision::Proceed)),
        (crate::table::Answer::Failed, Some(Decision::Proceed)),
    ] {
        let asked = scene.ask(Phase::MailFrom, "a@b");
        assert_eq!(scene.decision(asked), None);
        let (ticket, _) = scene.looks.pop().unwrap();
        scene.engine.looked_up(scene.moment(), ticket, &answer);
        scene.perform();
        assert_eq!(scene.decision(asked), expected);
        // An answer that nobody waits for.
        scene.engine.looked_up(scene.moment(), ticket, &answer);
        scene.perform();
    }
}

#[test]
fn two_filters_may_share_a_program() {
    let text = "proc p \"/p\"\nfilter a proc p\nfilter b proc p\nlisten on lo filter { a b }";
    let mut scene = Scene::with(text, &["filter|smtp-in|quit", "report|smtp-in|filter-response"]);
    let p = scene.process("p");
    scene.begin(BOTH);
    let asked = scene.ask(Phase::Quit, "");
    assert_eq!(scene.heard(p), ["Q|quit|SID|TOK|"]);
    scene.say(p, "filter-result|SID|TOK|proceed");
    assert_eq!(scene.heard(p), ["Q|quit|SID|TOK2|"]);
    scene.say(p, "filter-result|SID|TOK2|proceed");
    assert_eq!(scene.decision(asked), Some(Decision::Proceed));
    assert_eq!(scene.heard(p), ["R|filter-response|SID|quit|proceed"]);
}
