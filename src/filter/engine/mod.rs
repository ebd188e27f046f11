//! All sessions that have filters, and all filter programs.
//!
//! The engine does no I/O: it is told what the dispatcher asks, what programs say and what time it
//! is, and has [`Action`]s done in their order. Whoever asked is a token `T` that comes back with the
//! answer.
//!
//! A program that breaks the protocol, ends or stalls is replaced after a pause, for ever. Sessions
//! that it was part of are broken from then on: every question of theirs is answered with
//! [`INTERNAL`](crate::filter::INTERNAL), so that nothing goes on unfiltered. No session waits longer than
//! [`limits::ANSWER`].
//!
//! Sources: sections 5 and 9 (D1 to D5, D10, D19, D20, D23) of the SMTP page.

mod decide;
mod hear;
mod lines;
mod program;
mod session;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::config::{Config, FilterId, ProcessId};
use crate::filter::chain::Chains;
use crate::filter::registration::EventName;
use crate::filter::{Decision, Direction, Fcrdns, Phase, wire};
use crate::model::envelope::Source;
use crate::table::Question;
pub use crate::table::process::Moment;

pub use self::program::Trouble;
use self::program::{Hold, Program};
use self::session::Session;

/// How long is waited, and how much is kept.
pub mod limits {
    use std::time::Duration;

    /// From the start of a program to its `register|ready`.
    pub const HANDSHAKE: Duration = Duration::from_secs(60);
    /// For an answer to a question, for what comes out of lines, and for a program to read on.
    pub const ANSWER: Duration = Duration::from_secs(300);
    /// Pause before a program is started again; it doubles with each failure in a row …
    pub const FIRST_PAUSE: Duration = Duration::from_millis(100);
    /// … up to this, and there it stays.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(2);
    /// A program that was ready this long and then fails, has not failed in a row with its
    /// predecessors.
    pub const SETTLED: Duration = Duration::from_secs(10);
    /// The same about the same program is said aloud once in this time.
    pub const SAY_AGAIN: Duration = Duration::from_secs(60);
    /// Bytes that wait for a program to read them, above which no more lines of messages are taken.
    pub const UNREAD: usize = 256 * 1024;
    /// Bytes that wait for a program to read them, above which it is given up.
    pub const MOST_UNREAD: usize = 64 * 1024 * 1024;
    /// Bytes that wait for a program to read them, above which it is not told what others report.
    pub const FAR_BEHIND: usize = MOST_UNREAD / 2;
    /// Bytes of lines that wait for the dispatcher, above which the program is not read.
    pub const UNCOLLECTED: usize = 256 * 1024;
    /// Bytes of lines of all sessions together that have held a program up for [`HELD`], above which
    /// the session with most of them breaks.
    pub const MOST_UNCOLLECTED: usize = 64 * 1024 * 1024;
    /// How long a program is not read for the sake of one session or of another program.
    pub const HELD: Duration = Duration::from_secs(2);
    /// With many waiting, more are refused at once if the first of them waits for this long.
    pub const STALLED: Duration = Duration::from_secs(2);
    /// How often deadlines of sessions are looked at.
    pub const TICK: Duration = Duration::from_secs(1);
}

/// What holds for an engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this server, for programs where no `admd` is configured.
    pub server_name: String,
    /// Where tokens are drawn from.
    pub seed: u64,
    /// How many may wait for answers before those that would be added are refused, as soon as
    /// answers are slow.
    pub waiting: usize,
}

/// What is to be done, in this order.
#[derive(Debug, PartialEq)]
pub enum Action<T> {
    /// Answer who asked.
    Answer(T, Reply),
    /// Close the channel to a program: it is given up.
    End(ProcessId),
    /// Ask a table; to be followed by [`Engine::looked_up`].
    Look(Ticket, Question),
    /// Read again what a program says.
    Read(ProcessId),
    /// Tell the administrator.
    Say(Notice),
    /// Start a program; to be followed by [`Engine::started`] or [`Engine::not_started`].
    Start(ProcessId),
    /// There is something to send to a program: [`Engine::take_output`].
    Write(ProcessId),
}

/// The answer to the dispatcher.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reply {
    /// To [`Engine::ask`].
    Decision(Decision),
    /// To [`Engine::lines`].
    Lines {
        /// Bytes of the lines given that were taken.
        taken: usize,
        /// What came out.
        output: Vec<u8>,
        /// What comes next.
        flow: Flow,
    },
    /// To [`Engine::begin`].
    Wants(Wants),
}

/// What the filters of a session want to know.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Wants {
    /// Any event at all.
    pub events: bool,
    /// Phases that a filter decides, as in [`Phase::bit`]. While [`Self::events`] is set all phases are
    /// to be asked: `filter-response` is told for each.
    pub phases: u16,
}

/// How the lines of a message come out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flow {
    /// A filter broke off.
    Broken,
    /// That was all.
    Ended,
    /// More comes.
    More,
}

/// Which question a table is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ticket {
    session: u64,
    serial: u64,
}

/// What an administrator should know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice {
    /// After trouble, a program is ready.
    Back {
        /// The program.
        name: String,
    },
    /// A program was given up.
    GivenUp {
        /// The program.
        name: String,
        /// Why.
        trouble: Trouble,
        /// When the next one is started.
        pause: Duration,
        /// Something was said about it a short time ago.
        repeated: bool,
    },
    /// Something that a filter said has no effect.
    Ignored {
        /// The filter.
        name: String,
        /// What it was.
        what: Ignored,
        /// As in [`Self::GivenUp`].
        repeated: bool,
    },
}

/// What has no effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Ignored {
    /// A second answer to a question.
    #[error("an answer that nothing asked for is ignored")]
    Answer,
    /// A registration that comes too late.
    #[error("a phase registered after register|ready is ignored")]
    LatePhase,
    /// A `report` to programs one of which does not keep up.
    #[error("a report is ignored, for a filter of its session does not read what it is sent")]
    Report,
    /// A `rewrite` where there is nothing to rewrite.
    #[error("rewrite is ignored in phase {}", .0.name())]
    Rewrite(Phase),
}

/// How a session with filters begins.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// Its filter or chain.
    pub filter: FilterId,
    /// Incoming or outgoing.
    pub direction: Direction,
    /// The client's name, `<unknown>` without one.
    pub hostname: String,
    /// Whether the name leads back to the address.
    pub fcrdns: Fcrdns,
    /// Where it connected from.
    pub source: Source,
}

/// All sessions and programs.
#[derive(Debug)]
pub struct Engine<T> {
    chains: Chains,
    sessions: HashMap<u64, Session<T>>,
    stage: Stage<T>,
    /// Sessions whose lines wait for room, in this order; each once.
    blocked: VecDeque<u64>,
    /// The next question's number.
    serial: u64,
    /// How many wait for an answer.
    outstanding: usize,
    most_outstanding: usize,
    /// Most bytes of lines that a program may make of one message.
    most_lines: u64,
    ticked: Duration,
}

/// The programs, and what is to be done.
#[derive(Debug)]
struct Stage<T> {
    /// By [`ProcessId`].
    programs: Vec<Program>,
    actions: Vec<Action<T>>,
    /// A line that is written once and sent to many.
    line: Vec<u8>,
}

impl<T> Engine<T> {
    /// For the filters of `config`; the first [`Self::tick`] has all programs started.
    #[must_use]
    pub fn new(config: &Config, settings: &Settings) -> Self {
        let chains = Chains::new(config, settings.seed);
        let admd = config.admd.as_deref().unwrap_or(&settings.server_name);
        let programs = config.processes.iter().zip(chains.subsystems(config));
        let program = |(process, subsystems): (&crate::config::Process, _)| {
            Program::new(process.name.clone(), wire::greeting(subsystems, admd))
        };
        Self {
            stage: Stage {
                programs: programs.map(program).collect(),
                actions: Vec::new(),
                line: Vec::new(),
            },
            chains,
            sessions: HashMap::new(),
            blocked: VecDeque::new(),
            serial: 0,
            outstanding: 0,
            most_outstanding: settings.waiting.max(1),
            most_lines: config.smtp.max_message_size.saturating_mul(4).saturating_add(16 << 20),
            ticked: Duration::ZERO,
        }
    }

    /// What is to be done by now.
    pub fn actions(&mut self) -> Vec<Action<T>> {
        std::mem::take(&mut self.stage.actions)
    }

    /// When [`Self::tick`] is due; `None` while there is nothing to wait for.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let programs = self.stage.programs.iter().filter_map(Program::deadline);
        let waiting = self.outstanding > 0 || self.stage.programs.iter().any(Program::is_pressed);
        let sessions = waiting.then(|| self.ticked + limits::TICK);
        programs.chain(sessions).min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Moment) {
        self.ticked = now.uptime;
        for index in 0..self.stage.programs.len() {
            let process = ProcessId(u32::try_from(index).unwrap_or(u32::MAX));
            let Some(program) = self.stage.program(process) else { continue };
            let due = program.tick(now.uptime);
            for number in due.unpaced {
                self.unpace(number);
            }
            if due.read {
                self.stage.actions.push(Action::Read(process));
            }
            if due.start {
                self.stage.actions.push(Action::Start(process));
            }
            if let Some(trouble) = due.trouble {
                self.give_up(now, process, trouble);
            }
        }
        self.expire_questions(now);
        self.expire_lines(now);
    }

    /// Counters by name: `filter.NAME.requests`, `.failures`, `.restarts`.
    #[must_use]
    pub fn counters(&self) -> Vec<(String, i64)> {
        let mut all = Vec::with_capacity(3 * self.stage.programs.len());
        for program in &self.stage.programs {
            let name = program.name.to_ascii_lowercase();
            for (what, count) in program.counters() {
                all.push((format!("filter.{name}.{what}"), count));
            }
        }
        all
    }

    /// A program runs.
    pub fn started(&mut self, now: Moment, process: ProcessId) {
        let Some(program) = self.stage.program(process) else { return };
        program.started(now.uptime);
        self.stage.actions.push(Action::Write(process));
    }

    /// A program could not be started, for this reason.
    pub fn not_started(&mut self, now: Moment, process: ProcessId, reason: String) {
        self.give_up(now, process, Trouble::NotStarted(reason));
    }

    /// A program has closed its end, or cannot be written to.
    pub fn closed(&mut self, now: Moment, process: ProcessId) {
        self.give_up(now, process, Trouble::Ended);
    }

    /// Whether what a program says may be read now; otherwise [`Action::Read`] tells when.
    #[must_use]
    pub fn may_read(&self, process: ProcessId) -> bool {
        self.stage.programs.get(process.0 as usize).is_none_or(Program::may_read)
    }

    /// Takes what is to be sent to a program, in place of `buffer`, which is empty.
    pub fn take_output(&mut self, process: ProcessId, buffer: &mut Vec<u8>) {
        if let Some(program) = self.stage.program(process) {
            program.take_output(buffer);
        }
    }

    /// A program has read so many bytes of what was taken.
    pub fn sent(&mut self, now: Moment, process: ProcessId, count: usize) {
        let Some(program) = self.stage.program(process) else { return };
        let had_room = program.has_room();
        program.sent(now.uptime, count);
        if !program.has_room() {
            return;
        }
        self.stage.release(Hold::Program(process));
        if !had_room {
            self.unblock(now);
        }
    }

    /// Ends a program, breaks its sessions, and has another one started after a pause.
    fn give_up(&mut self, now: Moment, process: ProcessId, trouble: Trouble) {
        let Some(program) = self.stage.program(process) else { return };
        let generation = program.generation();
        let Some(given_up) = program.give_up(now.uptime, &trouble) else { return };
        let name = program.name.clone();
        let (pause, repeated) = (given_up.pause, given_up.repeated);
        self.stage.actions.push(Action::Say(Notice::GivenUp { name, trouble, pause, repeated }));
        self.stage.actions.push(Action::End(process));
        self.stage.release(Hold::Program(process));
        let affected: Vec<u64> = (self.sessions.iter())
            .filter(|(_, session)| session.relies_on(process, generation))
            .map(|(number, _)| *number)
            .collect();
        for session in affected {
            self.break_session(now, session);
        }
        self.unblock(now);
    }

    fn answer(&mut self, who: T, reply: Reply) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.stage.actions.push(Action::Answer(who, reply));
    }

    /// Whether so many wait already, for so long, that more should not.
    fn is_overloaded(&mut self, now: Moment) -> bool {
        if self.outstanding <= self.most_outstanding {
            return false;
        }
        let sessions = &self.sessions;
        self.stage.programs.iter_mut().any(|program| {
            let oldest = program.oldest_question(|session, serial| {
                sessions.get(&session).is_some_and(|session| session.waits_for(serial))
            });
            oldest.is_some_and(|since| since + limits::STALLED <= now.uptime)
        })
    }
}

impl<T> Stage<T> {
    fn program(&mut self, process: ProcessId) -> Option<&mut Program> {
        self.programs.get_mut(process.0 as usize)
    }

    /// Appends to what a program is sent.
    fn write(&mut self, now: Moment, process: ProcessId, line: impl FnOnce(&mut Vec<u8>)) {
        let Some(program) = self.programs.get_mut(process.0 as usize) else { return };
        if program.write(now.uptime, line) {
            self.actions.push(Action::Write(process));
        }
    }

    /// Does not read a program for a while, for this reason.
    fn hold(&mut self, now: Moment, process: ProcessId, hold: Hold) {
        if let Some(program) = self.program(process) {
            program.hold(now.uptime, hold);
        }
    }

    /// Whether a program is another one, or is not read for the sake of it.
    fn waits_for(&self, process: ProcessId, other: ProcessId) -> bool {
        // There are no rings: whoever would close one is read on.
        let waits = |next| self.waits_for(next, other);
        let program = self.programs.get(process.0 as usize);
        process == other || program.is_some_and(|program| program.held_for().any(waits))
    }

    /// The reason is gone.
    fn release(&mut self, hold: Hold) {
        for (index, program) in (0..).zip(&mut self.programs) {
            if program.release(hold) {
                self.actions.push(Action::Read(ProcessId(index)));
            }
        }
    }

    /// Tells the programs of a session that want to know.
    fn emit(
        &mut self,
        now: Moment,
        session: &Session<T>,
        name: EventName,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut write = Some(write);
        for (process, generation) in session.processes() {
            let Some(program) = self.programs.get_mut(process.0 as usize) else { continue };
            if generation != Some(program.generation()) {
                continue;
            }
            let times = program.registrations().times(session.direction, name);
            if times == 0 {
                continue;
            }
            if let Some(write) = write.take() {
                self.line.clear();
                write(&mut self.line);
            }
            let line = &self.line;
            let first = program.write(now.uptime, |out| {
                (0..times).for_each(|_| out.extend_from_slice(line));
            });
            if first {
                self.actions.push(Action::Write(process));
            }
        }
    }

    fn say_ignored(&mut self, now: Moment, process: Option<ProcessId>, name: &str, what: Ignored) {
        let program = process.and_then(|process| self.program(process));
        let repeated = program.is_some_and(|program| program.repeats(now.uptime));
        let name = name.to_owned();
        self.actions.push(Action::Say(Notice::Ignored { name, what, repeated }));
    }
}

/// Microseconds since 1970.
fn micros(now: Moment) -> u64 {
    u64::try_from(now.wall.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod rehearsal;
#[cfg(test)]
mod tests;
