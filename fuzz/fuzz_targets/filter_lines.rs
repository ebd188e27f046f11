//! What a filter program says, line by line, while a session asks it: no bytes may break the engine,
//! every question has exactly one answer in the end, and replies are replies.

#![no_main]

use std::collections::HashMap;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pillarbox::config::rehearsal::Files;
use pillarbox::config::{FilterId, ProcessId};
use pillarbox::filter::engine::{Action, Beginning, Engine, Moment, Reply, Settings};
use pillarbox::filter::{Decision, Direction, Fcrdns, Phase, reply};
use pillarbox::model::envelope::Source;

const SESSION: u64 = 0xa1;
const PROGRAM: ProcessId = ProcessId(0);
const CONFIG: &str = "filter f proc-exec \"/f\"\nlisten on lo filter f\nmatch reject\n";

struct Scene {
    engine: Engine<u32>,
    answered: HashMap<u32, u32>,
    asked: u32,
    now: Moment,
}

impl Scene {
    fn new() -> Self {
        let config = Files::main(CONFIG).reading(&[]).config;
        let settings = Settings { server_name: "x.example".to_owned(), seed: 1, waiting: 100 };
        let now = Moment { uptime: Duration::from_secs(1), wall: Duration::from_secs(1) };
        let engine = Engine::new(&config, &settings);
        Self { engine, answered: HashMap::new(), asked: 0, now }
    }

    fn who(&mut self) -> u32 {
        self.asked += 1;
        self.asked
    }

    fn perform(&mut self) {
        for action in self.engine.actions() {
            match action {
                Action::Answer(who, answer) => {
                    *self.answered.entry(who).or_default() += 1;
                    if let Reply::Decision(Decision::Reject(text) | Decision::Disconnect(text)) =
                        answer
                    {
                        assert_eq!(reply(text.as_bytes()).as_deref(), Some(text.as_str()));
                    }
                }
                Action::Start(process) => self.engine.started(self.now, process),
                _ => {}
            }
        }
        let mut output = Vec::new();
        self.engine.take_output(PROGRAM, &mut output);
        self.engine.sent(self.now, PROGRAM, output.len());
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut scene = Scene::new();
    scene.engine.tick(scene.now);
    scene.perform();
    let who = scene.who();
    let source = Source::Local;
    let (direction, fcrdns) = (Direction::In, Fcrdns::Pass);
    let hostname = "x".to_owned();
    let beginning = Beginning { filter: FilterId(0), direction, hostname, fcrdns, source };
    scene.engine.begin(who, SESSION, beginning);
    // After each line the session says something, in turn.
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        scene.engine.received(scene.now, PROGRAM, line);
        scene.perform();
        let who = scene.who();
        match index % 4 {
            0 => scene.engine.ask(scene.now, who, SESSION, Phase::MailFrom, b"a@b".to_vec()),
            1 => scene.engine.lines(scene.now, who, SESSION, b"x\n.\n".to_vec()),
            2 => scene.engine.lines(scene.now, who, SESSION, Vec::new()),
            _ => scene.engine.ask(scene.now, who, SESSION, Phase::Commit, Vec::new()),
        }
        scene.now.uptime += Duration::from_secs(1);
        scene.engine.tick(scene.now);
        scene.perform();
    }
    scene.engine.end(scene.now, SESSION);
    scene.perform();
    for who in 1..=scene.asked {
        assert_eq!(scene.answered.get(&who), Some(&1), "question {who}");
    }
});
