//! What is said with the program of one table, and with its successors.
//!
//! One request is under way at a time, as programs were written for; others wait for their turn. A
//! program that fails is replaced after a pause, for ever. What waits then waits for the successor,
//! unless that is the second failure in a row: until a program is ready again, questions fail at
//! once.

use std::collections::VecDeque;
use std::time::Duration;

use super::wire::{self, Registration};
use super::{Reply, Request, RequestError, Trouble, limits};
use crate::table::Service;

/// The time, as whoever drives a conversation reads it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moment {
    /// Since any fixed moment, of a clock that never jumps.
    pub uptime: Duration,
    /// Since the epoch.
    pub wall: Duration,
}

/// What is to be done for a conversation, in this order.
#[derive(Debug, Eq, PartialEq)]
pub enum Action<T> {
    /// Answer the request that came with this token.
    Answer(T, Result<Reply, RequestError>),
    /// Close the channel to the program: it is given up.
    End,
    /// Tell the administrator.
    Say(Notice),
    /// Start a program; to be followed by [`Conversation::started`] or
    /// [`Conversation::not_started`].
    Start,
    /// Send this to the program.
    Write(String),
}

/// What an administrator should know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice {
    /// After trouble, the program has answered.
    Answers,
    /// A program was given up.
    GivenUp {
        /// Why.
        trouble: Trouble,
        /// When the next one is started.
        pause: Duration,
        /// The same was said a short time ago.
        repeated: bool,
    },
    /// A key is too long.
    LongKey(String),
    /// The program could not do what it was asked.
    Refused {
        /// What it was asked.
        operation: &'static str,
        /// What it says about it, as it came.
        message: Vec<u8>,
    },
}

/// All that is said about one table. Requests come with a token `T` that their answers carry.
#[derive(Debug)]
pub struct Conversation<T> {
    table: String,
    phase: Phase<T>,
    waiting: VecDeque<Waiting<T>>,
    /// What came of a line whose end did not.
    input: Vec<u8>,
    registered: Vec<Service>,
    /// Programs that failed in a row.
    failures: u32,
    /// What was said aloud last, and when.
    said: Option<(Trouble, Duration)>,
    actions: Vec<Action<T>>,
}

#[derive(Debug)]
enum Phase<T> {
    /// There is no program until then.
    Paused { until: Duration },
    /// One is being started.
    Starting,
    /// It registers what it can be asked for.
    Registering { deadline: Duration },
    /// It answers.
    Ready { since: Duration, asked: Option<Asked<T>> },
}

#[derive(Debug)]
struct Asked<T> {
    token: T,
    id: u32,
    request: Request,
    deadline: Duration,
}

#[derive(Debug)]
struct Waiting<T> {
    token: T,
    id: u32,
    request: Request,
    deadline: Duration,
}

impl<T> Conversation<T> {
    /// About the table called `table`; the first [`Conversation::tick`] begins it.
    #[must_use]
    pub fn new(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            phase: Phase::Paused { until: Duration::ZERO },
            waiting: VecDeque::new(),
            input: Vec::new(),
            registered: Vec::new(),
            failures: 0,
            said: None,
            actions: Vec::new(),
        }
    }

    /// What is to be done by now.
    pub fn actions(&mut self) -> Vec<Action<T>> {
        std::mem::take(&mut self.actions)
    }

    /// When [`Conversation::tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let own = match &self.phase {
            Phase::Paused { until } => Some(*until),
            Phase::Starting | Phase::Ready { asked: None, .. } => None,
            Phase::Registering { deadline } => Some(*deadline),
            Phase::Ready { asked: Some(asked), .. } => Some(asked.deadline),
        };
        let first = self.waiting.front().map(|waiting| waiting.deadline);
        own.into_iter().chain(first).min()
    }

    /// Asks. `id` is drawn at random for each request. A program is asked also for what it has not
    /// registered, but never for [`Service::Auth`], whose key holds a password: that is
    /// [`RequestError::NotOffered`].
    pub fn ask(&mut self, now: Moment, token: T, id: u32, request: Request) {
        let key = request.key().unwrap_or_default();
        let is_password = matches!(request, Request::Check { service: Service::Auth, .. });
        let error = if key.len() > limits::KEY {
            if !is_password {
                self.say(Notice::LongKey(key.to_owned()));
            }
            Some(RequestError::Key)
        } else if key.contains(['\r', '\n', '\0']) {
            Some(RequestError::Key)
        } else if self.has_failed_twice() {
            Some(RequestError::Unavailable)
        } else if self.waiting.len() >= limits::WAITING {
            Some(RequestError::Busy)
        } else {
            None
        };
        match error {
            Some(error) => self.actions.push(Action::Answer(token, Err(error))),
            None => {
                let deadline = now.uptime + limits::TURN;
                self.waiting.push_back(Waiting { token, id, request, deadline });
                self.ask_next(now);
            }
        }
    }

    /// A program runs.
    pub fn started(&mut self, now: Moment) {
        self.phase = Phase::Registering { deadline: now.uptime + limits::HANDSHAKE };
        self.input.clear();
        self.actions.push(Action::Write(wire::greeting(&self.table)));
    }

    /// It could not be started, for this reason.
    pub fn not_started(&mut self, now: Moment, reason: String) {
        self.give_up(now, Trouble::NotStarted(reason));
    }

    /// The program said this.
    pub fn received(&mut self, now: Moment, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.input.extend_from_slice(part);
            let complete = self.input.pop_if(|last| *last == b'\n').is_some();
            let result = match complete {
                _ if self.input.len() > limits::LINE => Err(Trouble::TooLong),
                true => {
                    let line = std::mem::take(&mut self.input);
                    self.line(now, &line)
                }
                false => Ok(()),
            };
            if let Err(trouble) = result {
                self.give_up(now, trouble);
                return;
            }
        }
    }

    /// The program has closed its end, or cannot be written to.
    pub fn closed(&mut self, now: Moment) {
        let trouble = match self.phase {
            Phase::Registering { .. } => Trouble::EndedEarly,
            Phase::Paused { .. } | Phase::Ready { .. } | Phase::Starting => Trouble::Ended,
        };
        self.give_up(now, trouble);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Moment) {
        match &self.phase {
            Phase::Paused { until } if *until <= now.uptime => {
                self.phase = Phase::Starting;
                self.actions.push(Action::Start);
            }
            Phase::Registering { deadline } if *deadline <= now.uptime => {
                self.give_up(now, Trouble::Silent(limits::HANDSHAKE));
            }
            Phase::Ready { asked: Some(asked), .. } if asked.deadline <= now.uptime => {
                self.give_up(now, Trouble::Silent(limits::REQUEST));
            }
            _ => {}
        }
        // They came in this order.
        while let Some(late) = self.waiting.pop_front_if(|first| first.deadline <= now.uptime) {
            self.actions.push(Action::Answer(late.token, Err(RequestError::Busy)));
        }
    }

    fn line(&mut self, now: Moment, line: &[u8]) -> Result<(), Trouble> {
        match &mut self.phase {
            Phase::Registering { .. } => match wire::registration(line)? {
                Registration::Service(service) => self.registered.push(service),
                Registration::Ready if self.registered.is_empty() => {
                    return Err(Trouble::NothingRegistered);
                }
                Registration::Ready => {
                    self.phase = Phase::Ready { since: now.uptime, asked: None };
                    self.ask_next(now);
                }
            },
            Phase::Ready { asked, .. } => {
                let Some(question) = &asked else { return Err(Trouble::Unparseable) };
                let said = wire::answer(line, question.id, &question.request)?;
                if let Some(question) = asked.take() {
                    self.answered(question, said);
                }
                self.ask_next(now);
            }
            Phase::Paused { .. } | Phase::Starting => {}
        }
        Ok(())
    }

    fn answered(&mut self, question: Asked<T>, said: wire::Said) {
        self.failures = 0;
        if self.said.take().is_some() {
            self.say(Notice::Answers);
        }
        let result = said.map_err(|message| {
            if let Some(message) = message {
                let operation = question.request.operation();
                self.say(Notice::Refused { operation, message });
            }
            RequestError::Refused
        });
        self.actions.push(Action::Answer(question.token, result));
    }

    /// Asks the first that waits, if the program has nothing to do.
    fn ask_next(&mut self, now: Moment) {
        let Phase::Ready { asked: asked @ None, .. } = &mut self.phase else { return };
        let (token, id, request) = loop {
            let Some(Waiting { token, id, request, .. }) = self.waiting.pop_front() else { return };
            let is_password = matches!(request, Request::Check { service: Service::Auth, .. });
            if !is_password || self.registered.contains(&Service::Auth) {
                break (token, id, request);
            }
            self.actions.push(Action::Answer(token, Err(RequestError::NotOffered)));
        };
        self.actions.push(Action::Write(wire::request(&self.table, now.wall, id, &request)));
        *asked = Some(Asked { token, id, request, deadline: now.uptime + limits::REQUEST });
    }

    /// Ends the program, and what it was asked fails.
    fn give_up(&mut self, now: Moment, trouble: Trouble) {
        let before = std::mem::replace(&mut self.phase, Phase::Starting);
        if let Phase::Ready { since, asked } = before {
            match asked {
                Some(asked) => {
                    self.actions.push(Action::Answer(asked.token, Err(RequestError::Unavailable)));
                }
                None if since + limits::SETTLED <= now.uptime => self.failures = 0,
                None => {}
            }
        }
        let doubled = limits::FIRST_PAUSE.saturating_mul(1 << self.failures.min(16));
        let pause = doubled.min(limits::LONGEST_PAUSE);
        self.phase = Phase::Paused { until: now.uptime + pause };
        self.failures = self.failures.saturating_add(1);
        self.input.clear();
        self.registered.clear();
        if self.has_failed_twice() {
            for waiting in self.waiting.drain(..) {
                self.actions.push(Action::Answer(waiting.token, Err(RequestError::Unavailable)));
            }
        }
        let lately = |at: Duration| now.uptime < at + limits::SAY_AGAIN;
        let repeated = matches!(&self.said, Some((said, at)) if *said == trouble && lately(*at));
        if !repeated {
            self.said = Some((trouble.clone(), now.uptime));
        }
        self.say(Notice::GivenUp { trouble, pause, repeated });
        self.actions.push(Action::End);
    }

    /// Whether there is no program, and has been none since two failed.
    fn has_failed_twice(&self) -> bool {
        self.failures > 1 && !matches!(self.phase, Phase::Ready { .. })
    }

    fn say(&mut self, notice: Notice) {
        self.actions.push(Action::Say(notice));
    }
}

#[cfg(test)]
mod tests;
