//! One filter program, and its successors: whether it runs, what it is sent, what it has registered.

use std::collections::VecDeque;
use std::time::Duration;

use super::limits;
use crate::config::ProcessId;
use crate::filter::registration::{RegisterError, Registrations};
use crate::filter::said::SaidError;

/// Why a program is given up. The texts are those that administrators know, where there are any;
/// what a program said is in there as it came, to be escaped where it is shown.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Trouble {
    /// It has ended, or has closed its output.
    #[error("it has ended")]
    Ended,
    /// It makes far too many lines of a message.
    #[error("it makes too many lines of a message")]
    Flood,
    /// It marks as spam at the end of a message.
    #[error("filter-reponse junk after DATA")]
    JunkAtCommit,
    /// Lines of a message where there is none.
    #[error("filter-dataline out of dataline phase")]
    LineOutside,
    /// A token that is none.
    #[error("misbehaving filter")]
    Misbehaving,
    /// Something else than a registration, before it is ready.
    #[error("Non-register message before register|ready: {0}")]
    NotRegistered(String),
    /// It could not be started.
    #[error("{0}")]
    NotStarted(String),
    /// A registration of what is not known.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// An answer while lines of a message are filtered.
    #[error("filter-result in dataline phase")]
    ResultInside,
    /// A line that is none of the protocol.
    #[error(transparent)]
    Said(#[from] SaidError),
    /// No `register|ready` in [`limits::HANDSHAKE`].
    #[error("no register|ready within {} s", limits::HANDSHAKE.as_secs())]
    Silent,
    /// A line above [`crate::filter::said::MAX_LINE`].
    #[error("line too long")]
    TooLong,
    /// It does not read what it is sent.
    #[error("it does not read what it is sent")]
    Unread,
}

impl Trouble {
    /// Whether it is something that the program said.
    #[must_use]
    pub fn was_said(&self) -> bool {
        !matches!(
            self,
            Self::Ended | Self::NotStarted(_) | Self::Silent | Self::Unread | Self::Flood
        )
    }
}

/// Why a program is not read for a while.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hold {
    /// The next program in a chain does not keep up.
    Program(ProcessId),
    /// The lines of a session wait to be collected.
    Session(u64),
}

/// Where a program is in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// There is none until then.
    Paused { until: Duration },
    /// One is being started.
    Starting,
    /// It registers.
    Registering { deadline: Duration },
    /// It serves.
    Ready { since: Duration },
}

#[derive(Debug)]
pub(super) struct Program {
    pub name: String,
    greeting: String,
    state: State,
    /// Counts the processes: a session relies on one of them.
    generation: u32,
    registrations: Registrations,
    /// What came of a line whose end did not.
    pub input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes taken from the output that were not sent yet.
    taken: usize,
    /// Since when nothing was read of what waits to be.
    unread_since: Duration,
    holds: Vec<(Hold, Duration)>,
    /// Questions in their order: when, of which session, and their numbers. Some may be answered.
    asked: VecDeque<(Duration, u64, u64)>,
    /// Processes that failed in a row.
    failures: u32,
    /// What was said aloud last about a failure, and when.
    said: Option<(Trouble, Duration)>,
    /// It is to be said that there is one again.
    is_missed: bool,
    /// When it was said that something is ignored.
    ignored: Option<Duration>,
    requests: i64,
    given_up: i64,
    starts: i64,
}

/// What is due for a program.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub read: bool,
    pub start: bool,
    /// Sessions whose lines were waited for long enough.
    pub unpaced: Vec<u64>,
    pub trouble: Option<Trouble>,
}

/// How it goes on after a failure.
#[derive(Debug)]
pub(super) struct GivenUp {
    pub pause: Duration,
    pub repeated: bool,
}

impl Program {
    pub fn new(name: String, greeting: String) -> Self {
        Self {
            name,
            greeting,
            state: State::Paused { until: Duration::ZERO },
            generation: 0,
            registrations: Registrations::default(),
            input: Vec::new(),
            output: Vec::new(),
            taken: 0,
            unread_since: Duration::ZERO,
            holds: Vec::new(),
            asked: VecDeque::new(),
            failures: 0,
            said: None,
            is_missed: false,
            ignored: None,
            requests: 0,
            given_up: 0,
            starts: 0,
        }
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    pub fn registrations(&self) -> &Registrations {
        &self.registrations
    }

    pub fn registrations_mut(&mut self) -> &mut Registrations {
        &mut self.registrations
    }

    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    pub fn is_registering(&self) -> bool {
        matches!(self.state, State::Registering { .. })
    }

    /// Whether it failed and no successor has been ready yet.
    pub fn is_away(&self) -> bool {
        self.failures > 0 && !self.is_ready()
    }

    pub fn counters(&self) -> [(&'static str, i64); 3] {
        let restarts = (self.starts - 1).max(0);
        [("failures", self.given_up), ("requests", self.requests), ("restarts", restarts)]
    }

    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Paused { until } => Some(until),
            State::Registering { deadline } => Some(deadline),
            State::Starting | State::Ready { .. } => None,
        }
    }

    /// Whether time matters to it beyond [`Self::deadline`].
    pub fn is_pressed(&self) -> bool {
        !self.holds.is_empty() || self.unsent() > 0
    }

    pub fn tick(&mut self, now: Duration) -> Due {
        let mut due = Due::default();
        match self.state {
            State::Paused { until } if until <= now => {
                self.state = State::Starting;
                self.starts += 1;
                due.start = true;
            }
            State::Registering { deadline } if deadline <= now => {
                due.trouble = Some(Trouble::Silent);
            }
            _ => {}
        }
        if self.unsent() > 0 && self.unread_since + limits::ANSWER <= now {
            due.trouble = Some(Trouble::Unread);
        }
        if self.unsent() > limits::MOST_UNREAD {
            due.trouble = Some(Trouble::Unread);
        }
        let held = !self.holds.is_empty();
        self.holds.retain(|(hold, since)| {
            let stays = now < *since + limits::HELD;
            if let (false, Hold::Session(session)) = (stays, hold) {
                due.unpaced.push(*session);
            }
            stays
        });
        due.read = held && self.holds.is_empty();
        due
    }

    /// One runs: it is greeted.
    pub fn started(&mut self, now: Duration) {
        self.state = State::Registering { deadline: now + limits::HANDSHAKE };
        self.generation = self.generation.wrapping_add(1);
        self.output.clear();
        self.output.extend_from_slice(self.greeting.as_bytes());
        self.unread_since = now;
    }

    /// It has registered what it wants; true if it is back after a failure that was said aloud.
    pub fn ready(&mut self, now: Duration) -> bool {
        self.state = State::Ready { since: now };
        std::mem::take(&mut self.is_missed)
    }

    /// Forgets the process; `None` if there is none to give up.
    pub fn give_up(&mut self, now: Duration, trouble: &Trouble) -> Option<GivenUp> {
        match self.state {
            State::Paused { .. } => return None,
            State::Ready { since } if since + limits::SETTLED <= now => self.failures = 0,
            State::Ready { .. } | State::Registering { .. } | State::Starting => {}
        }
        let doubled = limits::FIRST_PAUSE.saturating_mul(1 << self.failures.min(16));
        let pause = doubled.min(limits::LONGEST_PAUSE);
        self.state = State::Paused { until: now + pause };
        self.failures = self.failures.saturating_add(1);
        self.given_up += 1;
        self.registrations = Registrations::default();
        self.input.clear();
        self.output = Vec::new();
        self.taken = 0;
        self.holds.clear();
        self.asked.clear();
        let lately = |at: Duration| now < at + limits::SAY_AGAIN;
        let repeated = matches!(&self.said, Some((said, at)) if said == trouble && lately(*at));
        if !repeated {
            self.said = Some((trouble.clone(), now));
            self.is_missed = true;
        }
        Some(GivenUp { pause, repeated })
    }

    /// Whether it was said a short time ago that something is ignored; if not, it is said now.
    pub fn repeats(&mut self, now: Duration) -> bool {
        let repeated = self.ignored.is_some_and(|said| now < said + limits::SAY_AGAIN);
        if !repeated {
            self.ignored = Some(now);
        }
        repeated
    }

    /// Appends to what it is sent; true if nothing waited before.
    pub fn write(&mut self, now: Duration, line: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.unsent() == 0 {
            self.unread_since = now;
        }
        let first = self.output.is_empty();
        line(&mut self.output);
        first
    }

    pub fn asked(&mut self, now: Duration, session: u64, serial: u64) {
        self.requests += 1;
        self.asked.push_back((now, session, serial));
    }

    /// When the oldest question was asked that still waits.
    pub fn oldest_question(&mut self, waits: impl Fn(u64, u64) -> bool) -> Option<Duration> {
        while let Some((since, session, serial)) = self.asked.front() {
            if waits(*session, *serial) {
                return Some(*since);
            }
            self.asked.pop_front();
        }
        None
    }

    /// Forgets questions that were answered: one in front that is not would keep all of them.
    pub fn forget_answered(&mut self, waits: impl Fn(u64, u64) -> bool) {
        self.asked.retain(|(_, session, serial)| waits(*session, *serial));
    }

    /// The session of the oldest question, if it waits for too long; the next time, of the next
    /// one. Those that were answered must be forgotten.
    pub fn expired(&mut self, now: Duration) -> Option<u64> {
        let late = self.asked.pop_front_if(|(since, _, _)| *since + limits::ANSWER <= now);
        late.map(|(_, session, _)| session)
    }

    fn unsent(&self) -> usize {
        self.output.len() + self.taken
    }

    /// Whether more lines of messages may be written.
    pub fn has_room(&self) -> bool {
        self.unsent() < limits::UNREAD
    }

    /// Whether far more waits for it than it could read soon.
    pub fn is_far_behind(&self) -> bool {
        self.unsent() >= limits::FAR_BEHIND
    }

    pub fn take_output(&mut self, buffer: &mut Vec<u8>) {
        if self.taken == 0 && !self.output.is_empty() {
            self.taken = self.output.len();
            std::mem::swap(&mut self.output, buffer);
            if self.output.capacity() > limits::UNREAD {
                // One that was behind once does not hold the room for ever.
                self.output = Vec::new();
            }
        }
    }

    pub fn sent(&mut self, now: Duration, count: usize) {
        self.taken = self.taken.saturating_sub(count);
        self.unread_since = now;
    }

    pub fn may_read(&self) -> bool {
        self.holds.is_empty()
    }

    /// The programs for whose sake it is not read.
    pub fn held_for(&self) -> impl Iterator<Item = ProcessId> {
        self.holds.iter().filter_map(|(hold, _)| match hold {
            Hold::Program(process) => Some(*process),
            Hold::Session(_) => None,
        })
    }

    pub fn hold(&mut self, now: Duration, hold: Hold) {
        if !self.holds.iter().any(|(held, _)| *held == hold) {
            self.holds.push((hold, now));
        }
    }

    /// True if it may be read again because of that.
    pub fn release(&mut self, hold: Hold) -> bool {
        let held = !self.holds.is_empty();
        self.holds.retain(|(other, _)| *other != hold);
        held && self.holds.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Program {
        Program::new("p".to_owned(), "config|ready\n".to_owned())
    }

    #[test]
    fn one_question_that_waits_does_not_keep_those_behind_it() {
        let mut program = program();
        for serial in 0..10_000 {
            program.asked(Duration::from_secs(1), serial, serial);
        }
        program.forget_answered(|_, serial| serial == 0 || serial == 9_000);
        assert_eq!(program.asked.len(), 2);
        assert_eq!(program.expired(limits::ANSWER), None);
        let late = limits::ANSWER + Duration::from_secs(1);
        let all: Vec<u64> = std::iter::from_fn(|| program.expired(late)).collect();
        assert_eq!(all, [0, 9_000]);
    }

    #[test]
    fn room_that_was_needed_once_is_given_back() {
        let mut program = program();
        let mut buffer = Vec::new();
        program.write(Duration::ZERO, |out| out.resize(8 * limits::UNREAD, b'x'));
        program.take_output(&mut buffer);
        program.sent(Duration::ZERO, buffer.len());
        buffer.clear();
        assert!(buffer.capacity() >= 8 * limits::UNREAD);
        program.write(Duration::ZERO, |out| out.push(b'x'));
        program.take_output(&mut buffer);
        assert!(buffer.len() == 1 && program.output.capacity() == 0);
        assert!(buffer.capacity() <= limits::UNREAD);
    }
}
