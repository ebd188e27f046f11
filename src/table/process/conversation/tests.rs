use super::*;

/// A conversation, the time, and what came of it in words.
struct Scene {
    talk: Conversation<u32>,
    now: Duration,
}

const FOUND: Result<Reply, RequestError> = Ok(Reply::Contains(true));
const GONE: Result<Reply, RequestError> = Err(RequestError::Unavailable);

impl Scene {
    fn new() -> Self {
        let mut scene = Self { talk: Conversation::new("t"), now: Duration::from_secs(1) };
        let now = scene.moment();
        scene.talk.tick(now);
        assert_eq!(scene.talk.actions(), [Action::Start]);
        scene
    }

    /// With a program that has registered.
    fn ready() -> Self {
        let mut scene = Self::new();
        scene.start();
        scene
    }

    fn moment(&self) -> Moment {
        Moment { uptime: self.now, wall: Duration::from_secs(9) }
    }

    fn start(&mut self) {
        let now = self.moment();
        self.talk.started(now);
        assert_eq!(self.talk.actions(), [Action::Write(wire::greeting("t"))]);
        assert_eq!(self.said("register|domain\nregister|ready\n"), []);
    }

    fn ask(&mut self, token: u32, key: &str) -> Vec<Action<u32>> {
        let request = Request::Check { service: Service::Domain, key: key.to_owned() };
        self.talk.ask(self.moment(), token, token, request);
        self.talk.actions()
    }

    fn said(&mut self, text: &str) -> Vec<Action<u32>> {
        self.talk.received(self.moment(), text.as_bytes());
        self.talk.actions()
    }

    fn closed(&mut self) -> Vec<Action<u32>> {
        self.talk.closed(self.moment());
        self.talk.actions()
    }

    /// Lets time pass until something is due.
    fn wait(&mut self) -> Vec<Action<u32>> {
        self.now = self.talk.deadline().expect("something is due");
        self.talk.tick(self.moment());
        self.talk.actions()
    }
}

fn question(id: u32, key: &str) -> Action<u32> {
    Action::Write(format!("table|0.1|9.000000|t|check|domain|{id:08x}|{key}\n"))
}

fn given_up(trouble: Trouble, pause: u64, repeated: bool) -> Action<u32> {
    Action::Say(Notice::GivenUp { trouble, pause: Duration::from_millis(pause), repeated })
}

#[test]
fn one_request_at_a_time_is_asked_in_order() {
    let mut scene = Scene::ready();
    assert_eq!(scene.ask(1, "A"), [question(1, "a")]);
    assert_eq!(scene.ask(2, "b"), []);
    assert_eq!(scene.said("check-result|00000001|fo"), []);
    let both = [Action::Answer(1, FOUND), question(2, "b")];
    assert_eq!(scene.said("und\n"), both);
    let absent = Action::Answer(2, Ok(Reply::Contains(false)));
    assert_eq!(scene.said("check-result|00000002|not-found\n"), [absent]);
    assert_eq!(scene.talk.deadline(), None);
}

#[test]
fn what_is_asked_before_the_program_is_ready_waits_for_it() {
    let mut scene = Scene::new();
    assert_eq!(scene.ask(1, "a"), []);
    scene.talk.started(scene.moment());
    scene.talk.actions();
    assert_eq!(scene.said("register|domain\nregister|ready\n"), [question(1, "a")]);
}

#[test]
fn passwords_go_only_to_programs_that_check_them_and_into_no_log() {
    let ask = |scene: &mut Scene, key: &str| {
        let request = Request::Check { service: Service::Auth, key: key.to_owned() };
        scene.talk.ask(scene.moment(), 1, 1, request);
        scene.talk.actions()
    };
    let not_offered = || Action::Answer(1, Err(RequestError::NotOffered));
    let mut scene = Scene::ready();
    assert_eq!(ask(&mut scene, "user:Secret"), [not_offered()]);
    assert_eq!(scene.ask(2, "b"), [question(2, "b")]);
    assert_eq!(ask(&mut scene, "user:Secret"), []);
    let both = [Action::Answer(2, FOUND), not_offered()];
    assert_eq!(scene.said("check-result|00000002|found\n"), both);

    let mut scene = Scene::new();
    // What it can do is known once it has said so.
    assert_eq!(ask(&mut scene, "user:Secret"), []);
    scene.talk.started(scene.moment());
    scene.talk.actions();
    let asked = "table|0.1|9.000000|t|check|auth|00000001|user:Secret\n";
    let said = scene.said("register|auth\nregister|ready\n");
    assert_eq!(said, [Action::Write(asked.to_owned())]);
    for key in ["a".repeat(limits::KEY + 1), "user:pass\nword".to_owned()] {
        assert_eq!(ask(&mut scene, &key), [Action::Answer(1, Err(RequestError::Key))]);
    }
}

#[test]
fn a_program_that_breaks_the_handshake_is_replaced() {
    let unknown = Trouble::UnknownService("none".to_owned());
    let cases = [
        ("hello\n", Trouble::NotRegistered),
        ("register|alias\nregister|none\n", unknown),
        ("register|ready\n", Trouble::NothingRegistered),
    ];
    for (text, trouble) in cases {
        let mut scene = Scene::new();
        scene.talk.started(scene.moment());
        scene.talk.actions();
        assert_eq!(scene.said(text), [given_up(trouble, 100, false), Action::End], "{text}");
        assert_eq!(scene.wait(), [Action::Start], "{text}");
        scene.start();
        assert_eq!(scene.ask(1, "a"), [question(1, "a")], "{text}");
    }
}

#[test]
fn a_program_that_ends_or_cannot_be_started_is_replaced() {
    let mut scene = Scene::new();
    scene.talk.not_started(scene.moment(), "no".to_owned());
    let no = Trouble::NotStarted("no".to_owned());
    assert_eq!(scene.talk.actions(), [given_up(no, 100, false), Action::End]);
    assert_eq!(scene.wait(), [Action::Start]);
    scene.talk.started(scene.moment());
    scene.talk.actions();
    assert_eq!(scene.closed(), [given_up(Trouble::EndedEarly, 200, false), Action::End]);
    assert_eq!(scene.wait(), [Action::Start]);
    scene.start();
    assert_eq!(scene.closed(), [given_up(Trouble::Ended, 400, false), Action::End]);
}

#[test]
fn nonsense_fails_the_request_and_ends_the_program() {
    let cases = [
        ("what?\n", Trouble::Unparseable),
        ("check-result|00000007|found\n", Trouble::Unparseable),
        ("check-result|00000001|\n", Trouble::Empty),
    ];
    for (text, trouble) in cases {
        let mut scene = Scene::ready();
        scene.ask(1, "a");
        let all = [Action::Answer(1, GONE), given_up(trouble, 100, false), Action::End];
        assert_eq!(scene.said(text), all, "{text}");
    }
    let mut unasked = Scene::ready();
    let end = [given_up(Trouble::Unparseable, 100, false), Action::End];
    assert_eq!(unasked.said("check-result|00000001|found\n"), end);
}

#[test]
fn a_line_without_end_is_not_kept_for_ever() {
    let mut scene = Scene::ready();
    let block = "x".repeat(limits::LINE);
    assert_eq!(scene.said(&block), []);
    assert_eq!(scene.said("x"), [given_up(Trouble::TooLong, 100, false), Action::End]);
    scene.wait();
    scene.start();
    let whole = format!("{block}x\n");
    assert_eq!(scene.said(&whole), [given_up(Trouble::TooLong, 200, true), Action::End]);
}

#[test]
fn silence_has_a_limit() {
    let mut scene = Scene::new();
    scene.talk.started(scene.moment());
    scene.talk.actions();
    let silent = Trouble::Silent(limits::HANDSHAKE);
    assert_eq!(scene.wait(), [given_up(silent.clone(), 100, false), Action::End]);
    assert_eq!(silent.to_string(), "no reply within 10 s");
    scene.wait();
    scene.start();
    scene.ask(1, "a");
    let before = scene.now;
    let silent = Trouble::Silent(limits::REQUEST);
    let all = [Action::Answer(1, GONE), given_up(silent, 200, true), Action::End];
    assert_eq!(scene.wait(), all);
    assert_eq!(scene.now - before, limits::REQUEST);
}

#[test]
fn what_waits_is_for_the_successor_until_two_failed_in_a_row() {
    let mut scene = Scene::ready();
    scene.ask(1, "a");
    scene.ask(2, "b");
    let first = given_up(Trouble::Ended, 100, false);
    assert_eq!(scene.closed(), [Action::Answer(1, GONE), first, Action::End]);
    assert_eq!(scene.ask(3, "c"), []);
    assert_eq!(scene.wait(), [Action::Start]);
    scene.talk.started(scene.moment());
    scene.talk.actions();
    let (two, three) = (Action::Answer(2, GONE), Action::Answer(3, GONE));
    let second = given_up(Trouble::EndedEarly, 200, false);
    assert_eq!(scene.closed(), [two, three, second, Action::End]);
    assert_eq!(scene.ask(4, "d"), [Action::Answer(4, GONE)]);
    scene.wait();
    assert_eq!(scene.ask(5, "e"), [Action::Answer(5, GONE)]);
    scene.start();
    assert_eq!(scene.ask(6, "f"), [question(6, "f")]);
    let answers = [Action::Say(Notice::Answers), Action::Answer(6, FOUND)];
    assert_eq!(scene.said("check-result|00000006|found\n"), answers);
}

#[test]
fn pauses_grow_to_two_seconds_and_it_never_gives_up() {
    let mut scene = Scene::new();
    let mut pauses = Vec::new();
    let mut aloud = 0;
    for _ in 0..100 {
        scene.talk.started(scene.moment());
        scene.talk.actions();
        let [Action::Say(Notice::GivenUp { pause, repeated, .. }), Action::End] =
            scene.closed()[..]
        else {
            panic!("not given up");
        };
        pauses.push(pause.as_millis());
        aloud += u32::from(!repeated);
        assert_eq!(scene.wait(), [Action::Start]);
    }
    assert_eq!(pauses[..6], [100, 200, 400, 800, 1600, 2000]);
    assert_eq!(pauses[99], 2000);
    // A little over three minutes.
    assert_eq!(aloud, 4);
}

#[test]
fn a_program_that_served_for_a_while_is_replaced_soon() {
    let mut scene = Scene::ready();
    assert_eq!(scene.closed(), [given_up(Trouble::Ended, 100, false), Action::End]);
    scene.wait();
    scene.start();
    scene.now += limits::SETTLED;
    assert_eq!(scene.closed(), [given_up(Trouble::Ended, 100, true), Action::End]);
}

#[test]
fn an_error_of_the_program_fails_the_request_alone() {
    let mut scene = Scene::ready();
    scene.ask(1, "a");
    let message = b"boom".to_vec();
    let refused = Action::Say(Notice::Refused { operation: "check", message });
    let failed = Action::Answer(1, Err(RequestError::Refused));
    assert_eq!(scene.said("check-result|00000001|error|boom\n"), [refused, failed]);
    scene.ask(2, "a");
    let failed = Action::Answer(2, Err(RequestError::Refused));
    assert_eq!(scene.said("check-result|00000002|error\n"), [failed]);
    assert_eq!(scene.ask(3, "a"), [question(3, "a")]);
}

#[test]
fn keys_that_cannot_be_asked_for_do_not_reach_the_program() {
    let mut scene = Scene::ready();
    for key in ["a\nb", "a\rb", "a\0b"] {
        assert_eq!(scene.ask(1, key), [Action::Answer(1, Err(RequestError::Key))], "{key:?}");
    }
    let long = "x".repeat(1024);
    let said = Action::Say(Notice::LongKey(long.clone()));
    assert_eq!(scene.ask(2, &long), [said, Action::Answer(2, Err(RequestError::Key))]);
    assert_eq!(scene.ask(3, &long[1..]).len(), 1);
}

#[test]
fn what_waits_is_bounded_in_number_and_time() {
    let mut scene = Scene::new();
    for token in 0..limits::WAITING as u32 {
        assert_eq!(scene.ask(token, "a"), []);
    }
    assert_eq!(scene.ask(9999, "a"), [Action::Answer(9999, Err(RequestError::Busy))]);
    let begun = scene.now;
    let late = scene.wait();
    assert_eq!(scene.now - begun, limits::TURN);
    assert_eq!(late.len(), limits::WAITING);
    assert_eq!(late[0], Action::Answer(0, Err(RequestError::Busy)));
}

/// Something that happens to a conversation.
#[derive(Clone, Debug)]
enum Happening {
    Ask(String),
    Closed,
    Line(String),
    NotStarted,
    Pass(u64),
    Registered,
}

fn happening() -> impl proptest::strategy::Strategy<Value = Happening> {
    use proptest::prelude::*;
    prop_oneof![
        "[a-z]{0,3}[\r\n]?".prop_map(Happening::Ask),
        Just(Happening::Closed),
        "(register\\|[a-z]{0,6}|check-result\\|0000000[0-9]\\|(not-)?found|[|a-z]{0,9})\n?"
            .prop_map(Happening::Line),
        Just(Happening::NotStarted),
        (0_u64..12_000).prop_map(Happening::Pass),
        Just(Happening::Registered),
    ]
}

proptest::proptest! {
    #[test]
    fn whatever_a_program_does_each_request_is_answered_once_and_in_time(
        happenings in proptest::collection::vec(happening(), 0..40),
    ) {
        let mut scene = Scene { talk: Conversation::new("t"), now: Duration::ZERO };
        let mut starting = false;
        let mut open = std::collections::BTreeMap::new();
        let mut next = 0;
        // At last time passes, and nothing else happens.
        let end = vec![Happening::Pass(2_000); 40];
        for one in happenings.into_iter().chain(end) {
            match one {
                Happening::Ask(key) => {
                    let request = Request::Check { service: Service::Domain, key };
                    open.insert(next, scene.now);
                    scene.talk.ask(scene.moment(), next, next, request);
                    next += 1;
                }
                Happening::Closed if !starting => scene.talk.closed(scene.moment()),
                Happening::Line(text) if !starting => {
                    scene.talk.received(scene.moment(), text.as_bytes());
                }
                Happening::NotStarted if starting => {
                    starting = false;
                    scene.talk.not_started(scene.moment(), "no".to_owned());
                }
                Happening::Registered => {
                    if std::mem::take(&mut starting) {
                        scene.talk.started(scene.moment());
                    }
                    let text = b"register|domain\nregister|ready\n";
                    scene.talk.received(scene.moment(), text);
                }
                Happening::Pass(milliseconds) => {
                    scene.now += Duration::from_millis(milliseconds);
                    scene.talk.tick(scene.moment());
                }
                Happening::Closed | Happening::Line(_) | Happening::NotStarted => {}
            }
            for action in scene.talk.actions() {
                match action {
                    Action::Answer(token, _) => {
                        let since = open.remove(&token);
                        proptest::prop_assert!(since.is_some(), "answered twice: {}", token);
                    }
                    Action::Start => starting = true,
                    Action::End | Action::Say(_) | Action::Write(_) => {}
                }
            }
            let longest = limits::TURN + limits::REQUEST + Duration::from_secs(12);
            let late = open.values().any(|since| scene.now > *since + longest);
            proptest::prop_assert!(!late, "{:?} at {:?}", open, scene.now);
        }
        proptest::prop_assert!(open.is_empty(), "{:?}", open);
    }
}
