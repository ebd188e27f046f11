//! Sessions: how they begin, what is told about them, how they end or break.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::lines::Stream;
use super::program::Hold;
use super::{Beginning, Engine, Flow, Moment, Reply, Wants};
use crate::config::ProcessId;
use crate::filter::chain::{Chain, Decider};
use crate::filter::registration::EventName;
use crate::filter::wire::{self, Occasion};
use crate::filter::{Decision, Direction, Event, Facts, INTERNAL, Phase, builtin};

#[derive(Debug)]
pub(super) struct Session<T> {
    pub chain: Arc<Chain>,
    pub direction: Direction,
    pub facts: Facts,
    /// For each program of the chain the process that the session relies on; `None` without one.
    generations: Vec<Option<u32>>,
    /// A filter failed it: nothing is asked any more.
    pub broken: bool,
    /// Who waits for the programs to be ready.
    pub beginning: Option<T>,
    pub ask: Option<Ask<T>>,
    pub stream: Option<Stream<T>>,
    /// It is among those whose lines wait for room.
    pub blocked: bool,
    /// Steps whose lines of an earlier message may still come; nobody wants them.
    pub open: Vec<usize>,
}

/// A question under way.
pub(super) struct Ask<T> {
    pub who: T,
    pub serial: u64,
    pub phase: Phase,
    /// Of the phase `auth` it is credentials: it is kept until the last program was asked.
    pub parameter: Zeroizing<Vec<u8>>,
    /// The step whose turn it is.
    pub step: usize,
    /// What it waits for.
    pub awaits: Awaits,
    /// A program has reported on this phase.
    pub reported: bool,
}

impl<T> std::fmt::Debug for Ask<T> {
    /// Without the parameter.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { serial, phase, step, awaits, .. } = self;
        f.debug_struct("Ask")
            .field("serial", serial)
            .field("phase", phase)
            .field("step", step)
            .field("awaits", awaits)
            .finish_non_exhaustive()
    }
}

/// What a question waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Awaits {
    /// Its next step.
    Nothing,
    /// The program of its step.
    Program,
    /// A table.
    Table,
}

impl<T> Session<T> {
    /// The programs of its chain, each with the process that it relies on.
    pub fn processes(&self) -> impl Iterator<Item = (ProcessId, Option<u32>)> {
        self.chain.processes.iter().copied().zip(self.generations.iter().copied())
    }

    /// Whether the end of this process is its end too.
    pub fn relies_on(&self, process: ProcessId, generation: u32) -> bool {
        if self.beginning.is_some() {
            return self.chain.processes.contains(&process);
        }
        self.direction == Direction::In
            && self.processes().any(|relied| relied == (process, Some(generation)))
    }

    /// Whether the question with this number waits for a program.
    pub fn waits_for(&self, serial: u64) -> bool {
        self.ask.as_ref().is_some_and(|ask| ask.serial == serial && ask.awaits == Awaits::Program)
    }
}

impl<T> Engine<T> {
    /// A session begins. It is answered when its programs are ready.
    pub fn begin(&mut self, who: T, number: u64, beginning: Beginning) {
        self.outstanding += 1;
        self.forget(number);
        let Beginning { filter, direction, hostname, fcrdns, source } = beginning;
        let known = self.chains.get(filter).map(Arc::clone);
        let mut session = Session {
            broken: known.is_none(),
            chain: known.unwrap_or_default(),
            direction,
            facts: Facts::new(hostname, fcrdns, source),
            generations: Vec::new(),
            beginning: Some(who),
            ask: None,
            stream: None,
            blocked: false,
            open: Vec::new(),
        };
        let crowded = self.outstanding > self.most_outstanding;
        let mut wait = false;
        for process in &session.chain.processes {
            let Some(program) = self.stage.program(*process) else { continue };
            match direction {
                Direction::In => session.broken |= program.is_away(),
                // Nothing is decided there: what cannot be told is not.
                Direction::Out if program.is_away() => continue,
                Direction::Out => {}
            }
            wait |= !program.is_ready();
        }
        session.broken |= direction == Direction::In && (crowded && wait);
        let waits = wait && !session.broken && !crowded;
        self.sessions.insert(number, session);
        if !waits {
            self.admit(number);
        }
    }

    /// Answers sessions that begin and have waited for this program alone.
    pub(super) fn admit_waiting(&mut self, process: ProcessId) {
        let waiting: Vec<u64> = (self.sessions.iter())
            .filter(|(_, session)| {
                session.beginning.is_some() && session.chain.processes.contains(&process)
            })
            .map(|(number, _)| *number)
            .collect();
        for number in waiting {
            let Some(session) = self.sessions.get(&number) else { continue };
            let outgoing = session.direction == Direction::Out;
            let ready = session.chain.processes.iter().all(|process| {
                let program = self.stage.programs.get(process.0 as usize);
                program.is_none_or(|program| program.is_ready() || outgoing && program.is_away())
            });
            if ready {
                self.admit(number);
            }
        }
    }

    /// Tells the dispatcher what the filters of a session want to know.
    fn admit(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let programs = &self.stage.programs;
        let ready = |process: &ProcessId| {
            let program = programs.get(process.0 as usize)?;
            program.is_ready().then(|| program.generation())
        };
        session.generations = session.chain.processes.iter().map(ready).collect();
        let Some(who) = session.beginning.take() else { return };
        let mut wants = Wants::default();
        let incoming = session.direction == Direction::In;
        for step in &session.chain.steps {
            match &step.decider {
                Decider::BuiltIn(filter) if incoming => {
                    wants.phases |= builtin::needs(filter);
                    wants.events |= builtin::needs_events(filter);
                }
                Decider::BuiltIn(_) => {}
                Decider::Process(process) => {
                    let Some(program) = programs.get(process.0 as usize) else { continue };
                    wants.events |= program.registrations().hears(session.direction);
                    if incoming {
                        wants.phases |= program.registrations().phases();
                    }
                }
            }
        }
        // Those that are never asked.
        wants.phases &= !(Phase::Help.bit() | Phase::Wiz.bit());
        if session.broken && incoming {
            let all = Phase::ALL.iter().fold(0, |bits, phase| bits | phase.bit());
            wants.phases = all & !(Phase::Help.bit() | Phase::Wiz.bit());
        }
        self.answer(who, Reply::Wants(wants));
    }

    /// Events of a session, each with its time in microseconds since 1970.
    pub fn events(&mut self, now: Moment, number: u64, events: &[(u64, Event)]) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        for (time, event) in events {
            session.facts.happened(event);
            let occasion = Occasion { direction: session.direction, session: number, time: *time };
            self.stage.emit(now, session, EventName::of(event), |out| {
                wire::event(out, occasion, event);
            });
        }
    }

    /// A session has ended.
    pub fn end(&mut self, now: Moment, number: u64) {
        self.forget(number);
        self.unblock(now);
    }

    fn forget(&mut self, number: u64) {
        let Some(session) = self.sessions.remove(&number) else { return };
        self.stage.release(Hold::Session(number));
        let Session { beginning, ask, stream, .. } = session;
        if let Some(who) = beginning {
            self.answer(who, Reply::Wants(Wants::default()));
        }
        if let Some(ask) = ask {
            self.answer(ask.who, Reply::Decision(Decision::Disconnect(INTERNAL.to_owned())));
        }
        if let Some(waiting) = stream.and_then(|stream| stream.waiting) {
            let taken = waiting.taken;
            self.answer(
                waiting.who,
                Reply::Lines { taken, output: Vec::new(), flow: Flow::Broken },
            );
        }
    }

    /// A filter has failed a session.
    pub(super) fn break_session(&mut self, now: Moment, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if session.beginning.is_some() {
            session.broken = session.direction == Direction::In;
            return self.admit(number);
        }
        session.broken = true;
        if let Some(Stream { waiting: Some(waiting), .. }) = session.stream.take() {
            let taken = waiting.taken;
            self.answer(
                waiting.who,
                Reply::Lines { taken, output: Vec::new(), flow: Flow::Broken },
            );
        }
        self.stage.release(Hold::Session(number));
        self.advance(now, number);
    }
}
