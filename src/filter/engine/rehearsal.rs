//! Filters that follow a script, for tests: what they are told is read in short forms.
//!
//! In lines, `R|` stands for `report|0.7|TIME|smtp-in|`, `O|` for the same of `smtp-out`, `Q|` for
//! `filter|0.7|TIME|smtp-in|`; `SID` is the session, `TOK` the first token that was seen, `TOK2` the
//! second.

use super::*;
use crate::config::tests::good;
use crate::config::{Config, FilterId};
use crate::filter::Event;
use crate::table::Tables;

/// The session of most tests.
pub const SESSION: u64 = 0xa1;
/// Where the clock begins.
const BEGIN: Duration = Duration::new(1_700_000_000, 42_000);

/// An engine with its programs, which are played by the test.
pub struct Scene {
    pub engine: Engine<u32>,
    pub config: Config,
    tables: Tables,
    now: Duration,
    asked: u32,
    pub replies: HashMap<u32, Reply>,
    pub notices: Vec<String>,
    /// Programs that were given up, and those to be started.
    pub ended: Vec<ProcessId>,
    pub starting: Vec<ProcessId>,
    tokens: Vec<String>,
    /// Whether tables answer at once.
    pub tables_answer: bool,
    pub looks: Vec<(Ticket, Question)>,
}

impl Scene {
    /// The filters of this configuration; programs do not run yet.
    pub fn new(text: &str) -> Self {
        let config = good(&format!("{text}\nmatch reject\n"));
        let settings = Settings { server_name: "mx.example.org".into(), seed: 1, waiting: 4 };
        let mut scene = Self {
            engine: Engine::new(&config, &settings),
            tables: Tables::new(&config),
            config,
            now: Duration::from_secs(5),
            asked: 0,
            replies: HashMap::new(),
            notices: Vec::new(),
            ended: Vec::new(),
            starting: Vec::new(),
            tokens: Vec::new(),
            tables_answer: true,
            looks: Vec::new(),
        };
        scene.pass(Duration::ZERO);
        scene
    }

    /// As [`Self::new`]; all programs run and have registered these, each `report|…` or `filter|…`.
    pub fn with(text: &str, registrations: &[&str]) -> Self {
        let mut scene = Self::new(text);
        for process in scene.starting.clone() {
            scene.ready(process, registrations);
        }
        scene
    }

    /// One filter `f1`, a program that has registered these.
    pub fn one(registrations: &[&str]) -> Self {
        Self::with("filter f1 proc-exec \"/f\"\nlisten on lo filter f1", registrations)
    }

    pub fn process(&self, name: &str) -> ProcessId {
        self.config.process_named(name).unwrap()
    }

    pub fn filter(&self, name: &str) -> FilterId {
        self.config.filter_named(name).unwrap()
    }

    /// A program runs.
    pub fn run(&mut self, process: ProcessId) {
        self.starting.retain(|starting| *starting != process);
        self.engine.started(self.moment(), process);
        self.perform();
    }

    /// A program runs, registers and is ready.
    pub fn ready(&mut self, process: ProcessId, registrations: &[&str]) {
        self.run(process);
        for registration in registrations {
            self.say(process, &format!("register|{registration}"));
        }
        self.say(process, "register|ready");
        self.heard(process);
    }

    pub fn moment(&self) -> Moment {
        Moment { uptime: self.now, wall: BEGIN }
    }

    /// Lets time go by.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.engine.tick(self.moment());
        self.perform();
    }

    /// A program says a line, in which `SID` and `TOK` are written out.
    pub fn say(&mut self, process: ProcessId, line: &str) {
        let mut line = line.replace("SID", &format!("{SESSION:016x}"));
        for (index, token) in self.tokens.iter().enumerate().rev() {
            line = line.replace(&token_name(index), token);
        }
        self.say_bytes(process, format!("{line}\n").as_bytes());
    }

    pub fn say_bytes(&mut self, process: ProcessId, bytes: &[u8]) {
        self.engine.received(self.moment(), process, bytes);
        self.perform();
    }

    /// What a program was told since the last time, in short forms.
    pub fn heard(&mut self, process: ProcessId) -> Vec<String> {
        let mut bytes = Vec::new();
        self.engine.take_output(process, &mut bytes);
        self.engine.sent(self.moment(), process, bytes.len());
        self.perform();
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(|line| self.short(line)).collect()
    }

    fn short(&mut self, line: &str) -> String {
        let session = format!("{SESSION:016x}");
        let time = format!("0.7|{}.{:06}|", BEGIN.as_secs(), BEGIN.subsec_micros());
        let mut line = line.replacen(&format!("report|{time}smtp-in|"), "R|", 1);
        line = line.replacen(&format!("report|{time}smtp-out|"), "O|", 1);
        line = line.replacen(&format!("filter|{time}smtp-in|"), "Q|", 1);
        line = line.replacen(&session, "SID", 1);
        if line.starts_with("Q|") {
            let token = line.split('|').nth(3).unwrap().to_owned();
            let known = self.tokens.iter().position(|known| *known == token);
            let index = known.unwrap_or_else(|| {
                self.tokens.push(token.clone());
                self.tokens.len() - 1
            });
            line = line.replacen(&token, &token_name(index), 1);
        }
        line
    }

    /// Begins the session with this filter; what its filters want to know, if it is answered.
    pub fn begin(&mut self, filter: &str) -> Option<Wants> {
        let asked = self.begin_session(SESSION, filter, Direction::In);
        self.wants(asked)
    }

    pub fn begin_session(&mut self, session: u64, filter: &str, direction: Direction) -> u32 {
        let beginning = Beginning {
            filter: self.filter(filter),
            direction,
            hostname: "<unknown>".into(),
            fcrdns: Fcrdns::Fail,
            source: Source::Ip("10.9.8.7".parse().unwrap()),
        };
        let who = self.who();
        self.engine.begin(who, session, beginning);
        self.perform();
        who
    }

    pub fn wants(&self, asked: u32) -> Option<Wants> {
        match self.replies.get(&asked)? {
            Reply::Wants(wants) => Some(*wants),
            other => panic!("{other:?}"),
        }
    }

    /// Asks about a phase; the number of the question.
    pub fn ask(&mut self, phase: Phase, parameter: &str) -> u32 {
        self.ask_in(SESSION, phase, parameter)
    }

    pub fn ask_in(&mut self, session: u64, phase: Phase, parameter: &str) -> u32 {
        let who = self.who();
        self.engine.ask(self.moment(), who, session, phase, parameter.as_bytes().to_vec());
        self.perform();
        who
    }

    pub fn decision(&self, asked: u32) -> Option<Decision> {
        match self.replies.get(&asked)? {
            Reply::Decision(decision) => Some(decision.clone()),
            other => panic!("{other:?}"),
        }
    }

    /// Asks, and has the program answer `filter-result|SID|TOK|` and this.
    pub fn decide(&mut self, phase: Phase, parameter: &str, answer: &str) -> Option<Decision> {
        let process = self.process("f1");
        let asked = self.ask(phase, parameter);
        self.heard(process);
        self.say(process, &format!("filter-result|SID|TOK|{answer}"));
        self.decision(asked)
    }

    pub fn event(&mut self, event: Event) {
        let time = u64::try_from(BEGIN.as_micros()).unwrap();
        self.engine.events(self.moment(), SESSION, &[(time, event)]);
        self.perform();
    }

    /// Gives lines of a message; the number of the request.
    pub fn lines(&mut self, lines: &str) -> u32 {
        self.lines_in(SESSION, lines)
    }

    pub fn lines_in(&mut self, session: u64, lines: &str) -> u32 {
        let who = self.who();
        self.engine.lines(self.moment(), who, session, lines.as_bytes().to_vec());
        self.perform();
        who
    }

    /// What came out: bytes taken, output, flow.
    pub fn out(&self, asked: u32) -> Option<(usize, String, Flow)> {
        match self.replies.get(&asked)? {
            Reply::Lines { taken, output, flow } => {
                Some((*taken, String::from_utf8(output.clone()).unwrap(), *flow))
            }
            other => panic!("{other:?}"),
        }
    }

    fn who(&mut self) -> u32 {
        self.asked += 1;
        self.asked
    }

    pub fn perform(&mut self) {
        loop {
            let actions = self.engine.actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Answer(who, reply) => {
                        assert_eq!(self.replies.insert(who, reply), None, "answered twice");
                    }
                    Action::End(process) => self.ended.push(process),
                    Action::Look(ticket, question) if self.tables_answer => {
                        let answer = self.tables.answer(&question).unwrap();
                        self.engine.looked_up(self.moment(), ticket, &answer);
                    }
                    Action::Look(ticket, question) => self.looks.push((ticket, question)),
                    Action::Read(_) | Action::Write(_) => {}
                    Action::Say(notice) => self.notices.push(words(&notice)),
                    Action::Start(process) => self.starting.push(process),
                }
            }
        }
    }
}

fn token_name(index: usize) -> String {
    if index == 0 { "TOK".to_owned() } else { format!("TOK{}", index + 1) }
}

fn words(notice: &Notice) -> String {
    match notice {
        Notice::Back { name } => format!("{name} is back"),
        Notice::GivenUp { name, trouble, pause, repeated } => {
            let repeated = if *repeated { " again" } else { "" };
            format!("{name}: {trouble}, {} ms{repeated}", pause.as_millis())
        }
        Notice::Ignored { name, what, .. } => format!("{name}: {what}"),
    }
}
