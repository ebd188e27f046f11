//! Lines of messages on their way through the programs of a session.
//!
//! Lines go to the first program that has registered for them, what it says to the next, and so on.
//! Nothing holds a message: no more lines are taken than programs read, and programs are not read
//! while their lines wait to be collected, for a while each time.

use std::sync::Arc;
use std::time::Duration;

use super::program::{Hold, Program};
use super::session::Session;
use super::{Engine, Flow, Moment, Reply, Stage, Trouble, limits, micros};
use crate::config::ProcessId;
use crate::filter::chain::{Chain, Decider};
use crate::filter::said::MAX_LINE;
use crate::filter::{Phase, wire};
use crate::model::limits::FILTER_LINES;

/// The lines of one message.
#[derive(Debug)]
pub(super) struct Stream<T> {
    /// The steps of the chain that take lines, and whether their final dot has come.
    steps: Vec<(usize, bool)>,
    /// What came of a line whose end did not.
    cut: Vec<u8>,
    /// The final dot went in.
    input_ended: bool,
    /// What came out and was not collected yet, from `collected` on.
    output: Vec<u8>,
    collected: usize,
    /// The final dot came out.
    output_ended: bool,
    /// Bytes that came out.
    emitted: u64,
    /// Nobody collects: its program is read all the same, for the sake of others.
    unpaced: bool,
    /// Bytes to be collected when it was last seen how many there are in all sessions together.
    looked: usize,
    /// Who waits.
    pub waiting: Option<Waiting<T>>,
    /// When something last went in or came out.
    progress: Duration,
}

/// Lines that were given, and who waits for what comes out.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub who: T,
    lines: Vec<u8>,
    /// Bytes of the lines that were passed on.
    pub taken: usize,
}

impl<T> Waiting<T> {
    fn has_more(&self) -> bool {
        self.taken < self.lines.len()
    }
}

impl<T> Stream<T> {
    fn new(now: Moment, steps: Vec<(usize, bool)>) -> Self {
        Self {
            steps,
            cut: Vec::new(),
            input_ended: false,
            output: Vec::new(),
            collected: 0,
            output_ended: false,
            emitted: 0,
            unpaced: false,
            looked: 0,
            waiting: None,
            progress: now.uptime,
        }
    }

    /// Whether lines are expected from this step.
    pub fn awaits(&self, step: usize) -> bool {
        self.steps.contains(&(step, false))
    }

    fn uncollected(&self) -> usize {
        self.output.len() - self.collected
    }

    fn is_over(&self) -> bool {
        self.input_ended && self.output_ended && self.uncollected() == 0
    }

    /// What is to be collected next.
    fn collect(&mut self) -> Vec<u8> {
        let rest = self.output.get(self.collected..).unwrap_or_default();
        let piece = rest.get(..rest.len().min(FILTER_LINES)).unwrap_or_default().to_vec();
        self.collected += piece.len();
        self.looked = self.looked.min(self.uncollected());
        if self.collected == self.output.len() {
            self.output.clear();
            self.collected = 0;
        } else if self.collected > limits::UNCOLLECTED && self.collected >= self.uncollected() {
            self.output.drain(..self.collected);
            self.collected = 0;
        }
        piece
    }
}

impl<T> Engine<T> {
    /// Gives lines of a message to the filters of a session, and collects what comes out. Lines are
    /// dot-stuffed and have a line feed each; one may be cut between two calls. None waits for
    /// what comes out.
    pub fn lines(&mut self, now: Moment, who: T, number: u64, lines: Vec<u8>) {
        self.outstanding += 1;
        let session = self.sessions.get_mut(&number);
        let Some(session) = session.filter(|session| !session.broken && session.open.is_empty())
        else {
            let (taken, output) = (lines.len(), Vec::new());
            return self.answer(who, Reply::Lines { taken, output, flow: Flow::Broken });
        };
        if session.stream.is_none() {
            let programs = &self.stage.programs;
            let takes_lines = |decider: &Decider| match decider {
                Decider::BuiltIn(_) => false,
                Decider::Process(process) => (programs.get(process.0 as usize))
                    .is_some_and(|p| p.registrations().phases() & Phase::DataLine.bit() != 0),
            };
            let steps = session.chain.steps.iter().enumerate();
            let steps = steps.filter(|(_, step)| takes_lines(&step.decider));
            let steps = steps.map(|(index, _)| (index, false)).collect();
            session.stream = Some(Stream::new(now, steps));
        }
        let Some(stream) = &mut session.stream else { return };
        let earlier = stream.waiting.replace(Waiting { who, lines, taken: 0 });
        if let Some(Waiting { who, taken, .. }) = earlier {
            self.answer(who, Reply::Lines { taken, output: Vec::new(), flow: Flow::More });
        }
        self.take(now, number);
        self.settle(number);
    }

    /// Passes on as many of the lines given as there is room for.
    fn take(&mut self, now: Moment, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let chain = Arc::clone(&session.chain);
        let Some(stream) = &mut session.stream else { return };
        let Some(waiting) = &mut stream.waiting else { return };
        let lines = std::mem::take(&mut waiting.lines);
        let mut rest = lines.get(waiting.taken..).unwrap_or_default();
        let mut whole = Vec::new();
        while !rest.is_empty() && !stream.input_ended {
            if !has_room(&self.stage, &chain, stream) {
                if !std::mem::replace(&mut session.blocked, true) {
                    self.blocked.push_back(number);
                }
                break;
            }
            let Some(end) = memchr::memchr(b'\n', rest) else {
                stream.cut.extend_from_slice(rest);
                rest = &[];
                break;
            };
            let (mut line, after) = (rest.get(..end).unwrap_or_default(), rest.get(end + 1..));
            rest = after.unwrap_or_default();
            if !stream.cut.is_empty() {
                whole = std::mem::take(&mut stream.cut);
                whole.extend_from_slice(line);
                line = &whole;
            }
            stream.input_ended = line == b".";
            pass(&mut self.stage, now, number, &chain, stream, 0, line);
            stream.progress = now.uptime;
            if !whole.is_empty() {
                whole.clear();
                std::mem::swap(&mut whole, &mut stream.cut);
            }
        }
        let too_long = stream.cut.len() > MAX_LINE;
        // Nothing follows the final dot.
        let left = if stream.input_ended { &[][..] } else { rest };
        if let Some(waiting) = &mut stream.waiting {
            waiting.taken = lines.len() - left.len();
            waiting.lines = lines;
        }
        if too_long {
            self.break_session(now, number);
        }
    }

    /// Answers who waits for lines, if there is something to say.
    pub(super) fn settle(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let Some(stream) = &mut session.stream else { return };
        let Some(waiting) = &stream.waiting else { return };
        let over = stream.input_ended && stream.output_ended;
        if stream.uncollected() == 0 && waiting.taken == 0 && !over {
            return;
        }
        let Some(Waiting { who, taken, .. }) = stream.waiting.take() else { return };
        let output = stream.collect();
        let has_room = stream.uncollected() < limits::UNCOLLECTED;
        let flow = if stream.is_over() { Flow::Ended } else { Flow::More };
        if flow == Flow::Ended {
            let steps = session.stream.take().map_or(Vec::new(), |stream| stream.steps);
            session.open =
                steps.iter().filter(|(_, ended)| !ended).map(|(step, _)| *step).collect();
        }
        if has_room {
            self.stage.release(Hold::Session(number));
        }
        self.answer(who, Reply::Lines { taken, output, flow });
    }

    /// A program has made a line; true if the session is to be settled.
    pub(super) fn made(
        &mut self,
        now: Moment,
        process: ProcessId,
        (number, token): (u64, u64),
        line: &[u8],
    ) -> Result<bool, Trouble> {
        // Sessions may end in the middle of a message.
        let Some(session) = self.sessions.get_mut(&number) else { return Ok(false) };
        let step = session.chain.step(process, token).ok_or(Trouble::Misbehaving)?;
        if session.broken {
            return Ok(false);
        }
        if let Some(place) = session.open.iter().position(|open| *open == step) {
            if line == b"." {
                session.open.remove(place);
            }
            return Ok(false);
        }
        let chain = Arc::clone(&session.chain);
        let Some(stream) = &mut session.stream else { return Err(Trouble::LineOutside) };
        let position = stream.steps.iter().position(|place| *place == (step, false));
        let position = position.ok_or(Trouble::LineOutside)?;
        stream.emitted += line.len() as u64 + 1;
        if stream.emitted > self.most_lines {
            return Err(Trouble::Flood);
        }
        if line == b"."
            && let Some((_, ended)) = stream.steps.get_mut(position)
        {
            *ended = true;
        }
        stream.progress = now.uptime;
        pass(&mut self.stage, now, number, &chain, stream, position + 1, line);
        if let Some(next) = program_of(&chain, stream, position + 1) {
            let is_full = self.stage.program(next).is_some_and(|program| !program.has_room());
            // Two that wait for each other would both stand still.
            if is_full && !self.stage.waits_for(next, process) {
                self.stage.hold(now, process, Hold::Program(next));
            }
        } else if stream.unpaced {
            let uncollected = stream.uncollected();
            if uncollected >= stream.looked + limits::UNCOLLECTED {
                stream.looked = uncollected;
                return Ok(self.has_room_for_output(now, number));
            }
        } else if stream.uncollected() >= limits::UNCOLLECTED && stream.waiting.is_none() {
            self.stage.hold(now, process, Hold::Session(number));
        }
        Ok(true)
    }

    /// Breaks the session that collects least, if what is not collected is too much; false if it is
    /// this one.
    fn has_room_for_output(&mut self, now: Moment, number: u64) -> bool {
        let mut total = 0;
        let mut most = (0, number);
        for (other, session) in &self.sessions {
            let Some(stream) = session.stream.as_ref().filter(|it| it.unpaced) else { continue };
            total += stream.uncollected();
            most = most.max((stream.uncollected(), *other));
        }
        if total < limits::MOST_UNCOLLECTED {
            return true;
        }
        let (_, late) = most;
        self.break_session(now, late);
        late != number
    }

    /// Goes on with sessions whose lines wait for room.
    pub(super) fn unblock(&mut self, now: Moment) {
        for _ in 0..self.blocked.len() {
            let Some(number) = self.blocked.pop_front() else { return };
            let Some(session) = self.sessions.get_mut(&number) else { continue };
            session.blocked = false;
            self.take(now, number);
            self.settle(number);
        }
    }

    /// Lines of a session were not collected for a while.
    pub(super) fn unpace(&mut self, number: u64) {
        let stream = self.sessions.get_mut(&number).and_then(|session| session.stream.as_mut());
        if let Some(stream) = stream {
            stream.unpaced = true;
        }
    }

    /// Breaks sessions whose lines wait for too long.
    pub(super) fn expire_lines(&mut self, now: Moment) {
        let late = |session: &Session<T>| {
            session.stream.as_ref().is_some_and(|stream| {
                let owed = stream.input_ended && !stream.output_ended
                    || stream.waiting.as_ref().is_some_and(Waiting::has_more);
                owed && stream.progress + limits::ANSWER <= now.uptime
            })
        };
        let late: Vec<u64> = (self.sessions.iter())
            .filter(|(_, session)| late(session))
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            self.time_out(now, number);
        }
    }
}

/// Hands a line to the program at this position among those that take lines, or out.
fn pass<T>(
    stage: &mut Stage<T>,
    now: Moment,
    number: u64,
    chain: &Chain,
    stream: &mut Stream<T>,
    position: usize,
    line: &[u8],
) {
    let Some((place, ended)) = stream.steps.get(position).copied() else {
        if line == b"." {
            stream.output_ended = true;
        } else if !stream.output_ended {
            stream.output.extend_from_slice(line);
            stream.output.push(b'\n');
        }
        return;
    };
    // It has said the final dot: whatever it thought of the rest, there is no place for it.
    if ended {
        return;
    }
    let Some(step) = chain.steps.get(place) else { return };
    let Decider::Process(process) = step.decider else { return };
    stage.write(now, process, |out| {
        wire::question(out, micros(now), Phase::DataLine, number, step.token);
        out.extend_from_slice(line);
        out.push(b'\n');
    });
}

fn program_of<T>(chain: &Chain, stream: &Stream<T>, position: usize) -> Option<ProcessId> {
    let (place, _) = stream.steps.get(position)?;
    match chain.steps.get(*place)?.decider {
        Decider::Process(process) => Some(process),
        Decider::BuiltIn(_) => None,
    }
}

/// Whether another line may be taken.
fn has_room<T>(stage: &Stage<T>, chain: &Chain, stream: &Stream<T>) -> bool {
    stream.uncollected() < limits::UNCOLLECTED
        && (0..stream.steps.len()).all(|position| {
            let process = program_of(chain, stream, position);
            let program = process.and_then(|process| stage.programs.get(process.0 as usize));
            program.is_none_or(Program::has_room)
        })
}
