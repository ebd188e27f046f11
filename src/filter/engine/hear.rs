//! What programs say: lines, one after the other.

use super::program::Program;
use super::{Action, Engine, Ignored, Moment, Notice, Trouble, micros};
use crate::config::ProcessId;
use crate::filter::Direction;
use crate::filter::registration::{EventName, Registered};
use crate::filter::said::{self, MAX_LINE, Said};
use crate::filter::wire::{self, Occasion, Reporter};

impl<T> Engine<T> {
    /// A program said this.
    pub fn received(&mut self, now: Moment, process: ProcessId, bytes: &[u8]) {
        let Some(program) = self.stage.program(process) else { return };
        // One that was given up: its successor must not begin with its words.
        if !program.is_registering() && !program.is_ready() {
            return;
        }
        let mut input = std::mem::take(&mut program.input);
        let generation = program.generation();
        let mut touched: Vec<u64> = Vec::new();
        let mut rest = bytes;
        let mut trouble = None;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = (rest.get(..end).unwrap_or_default(), rest.get(end + 1..));
            rest = after.unwrap_or_default();
            let heard = if input.len() + line.len() > MAX_LINE {
                Err(Trouble::TooLong)
            } else if input.is_empty() {
                self.hear(now, process, line, &mut touched)
            } else {
                input.extend_from_slice(line);
                let heard = self.hear(now, process, &input, &mut touched);
                input.clear();
                heard
            };
            if let Err(error) = heard {
                trouble = Some(error);
                break;
            }
        }
        if trouble.is_none() && input.len() + rest.len() > MAX_LINE {
            trouble = Some(Trouble::TooLong);
        }
        for number in touched {
            self.settle(number);
        }
        match trouble {
            Some(trouble) => self.give_up(now, process, trouble),
            None => {
                input.extend_from_slice(rest);
                let program = self.stage.program(process);
                if let Some(program) = program.filter(|p| p.generation() == generation) {
                    program.input = input;
                }
            }
        }
    }

    fn hear(
        &mut self,
        now: Moment,
        process: ProcessId,
        line: &[u8],
        touched: &mut Vec<u64>,
    ) -> Result<(), Trouble> {
        // Some programs end their lines as clients do.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(program) = self.stage.program(process) else { return Ok(()) };
        if program.is_registering() {
            return self.register(now, process, line);
        }
        if !program.is_ready() {
            return Ok(());
        }
        match said::parse(line)? {
            Said::Line { session, token, line } => {
                let settle = self.made(now, process, (session, token), line)?;
                if settle && touched.last() != Some(&session) {
                    touched.push(session);
                }
            }
            Said::Register(rest) => self.register_late(now, process, rest)?,
            Said::Report { direction, session, message } => {
                self.report(now, process, direction, session, message)?;
            }
            Said::Result { session, token, directive } => {
                self.result(now, process, (session, token), directive)?;
            }
        }
        Ok(())
    }

    fn register(&mut self, now: Moment, process: ProcessId, line: &[u8]) -> Result<(), Trouble> {
        let Some(program) = self.stage.program(process) else { return Ok(()) };
        let Some(rest) = line.strip_prefix(b"register|") else {
            return Err(Trouble::NotRegistered(String::from_utf8_lossy(line).into_owned()));
        };
        if program.registrations_mut().register(rest)? == Registered::More {
            return Ok(());
        }
        if program.ready(now.uptime) {
            let name = program.name.clone();
            self.stage.actions.push(Action::Say(Notice::Back { name }));
        }
        self.admit_waiting(process);
        Ok(())
    }

    /// Events count also now; phases do not, for sessions may be past them.
    fn register_late(
        &mut self,
        now: Moment,
        process: ProcessId,
        rest: &[u8],
    ) -> Result<(), Trouble> {
        let Some(program) = self.stage.program(process) else { return Ok(()) };
        if rest.starts_with(b"report|") {
            program.registrations_mut().register(rest)?;
            return Ok(());
        }
        let mut nowhere = program.registrations().clone();
        nowhere.register(rest)?;
        let name = program.name.clone();
        self.stage.say_ignored(now, Some(process), &name, Ignored::LatePhase);
        Ok(())
    }

    /// Tells all programs of a session what one of them reports, as long as they read what they are
    /// told: clients wait for answers, whoever reports waits for nothing.
    fn report(
        &mut self,
        now: Moment,
        process: ProcessId,
        direction: Direction,
        number: u64,
        message: &[u8],
    ) -> Result<(), Trouble> {
        let Some(session) = self.sessions.get(&number) else { return Ok(()) };
        let Some(name) = session.chain.name_of(process) else { return Ok(()) };
        if session.direction != direction {
            return Ok(());
        }
        let programs = &self.stage.programs;
        let is_behind = |process: &ProcessId| {
            programs.get(process.0 as usize).is_some_and(Program::is_far_behind)
        };
        if is_behind(&process) {
            return Err(Trouble::Unread);
        }
        if session.chain.processes.iter().any(is_behind) {
            self.stage.say_ignored(now, Some(process), name, Ignored::Report);
            return Ok(());
        }
        let occasion = Occasion { direction, session: number, time: micros(now) };
        self.stage.emit(now, session, EventName::FilterReport, |out| {
            wire::report(out, occasion, Reporter::Process, name, message);
        });
        Ok(())
    }
}
