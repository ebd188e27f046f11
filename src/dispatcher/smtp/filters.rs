//! Where the filters of the listener decide about a session.
//!
//! A command runs its checks, then its filters are asked, then it is performed, with the argument
//! that they may have made; see [`Session::phase_of`]. Without filters nothing of this costs more
//! than one test a command. What filters are told meanwhile is in `reports`, the way of the
//! content through them in `filtered_body`.
//!
//! Sources: the SMTP page of the specification, 1.4, 1.6, 5.5, and D1, D5, D16, D20 of section 9.

use jiff::Timestamp;

use super::action::{Action, Answer, FilterQuestion};
use super::event::LogEvent;
use super::reports::Trail;
use super::session::Session;
use super::state::{AfterFilters, Outcome, State};
use crate::filter::engine::Wants;
use crate::filter::{Decision, Phase};
use crate::message::Fault;
use crate::proto::command::{self, Command, Verb};
use crate::proto::reply;

/// What a session knows of its filters.
#[derive(Debug)]
pub(super) struct Filters {
    pub(super) interests: Wants,
    /// Whether every message is marked as spam.
    junk: bool,
    /// Whether the message of the MAIL command under way is.
    junk_mail: bool,
    /// Whether the client was refused at once and got no banner: it may only leave.
    mute: bool,
    /// What they were told.
    pub(super) trail: Trail,
}

impl Filters {
    fn new(interests: Wants) -> Self {
        Self { interests, junk: false, junk_mail: false, mute: false, trail: Trail::default() }
    }

    /// Whether a filter wants to decide a phase.
    fn registered(&self, phase: Phase) -> bool {
        let place = Phase::ALL.iter().position(|one| *one == phase);
        place.is_some_and(|place| self.interests.phases >> place & 1 == 1)
    }
}

impl Session {
    /// Whether filters want the lines of messages.
    pub(super) fn filters_lines(&self) -> bool {
        self.filters.as_ref().is_some_and(|filters| filters.registered(Phase::DataLine))
    }

    /// Whether filters have marked the session as spam.
    pub(super) fn is_junk(&self) -> bool {
        self.filters.as_ref().is_some_and(|filters| filters.junk)
    }

    /// Whether filters have marked the message that now begins as spam.
    pub(super) fn take_junk(&mut self) -> bool {
        self.filters.as_mut().is_some_and(|filters| std::mem::take(&mut filters.junk_mail))
    }

    /// Whether the session goes on without a banner: its filters refused the connection.
    pub(super) fn is_mute(&self) -> bool {
        self.filters.as_ref().is_some_and(|filters| filters.mute)
    }

    /// Lets the filters begin, when the client's name is known, and asks them about it.
    pub(super) fn opening_step(&mut self, output: &mut Vec<u8>) -> Option<Action> {
        let State::Opening { request } = &self.state else { return None };
        if request.is_none() {
            let Some(hostname) = self.peer.hostname.as_deref() else { return Some(self.wait()) };
            let hostname = hostname.to_owned();
            let request = self.next_request();
            self.state = State::Opening { request: Some(request) };
            return Some(Action::BeginFilters { request, hostname });
        }
        let interests = match self.arrived.take() {
            Some(Answer::Filters(_, Some(interests))) => interests,
            Some(_) if self.awaits_first_handshake() => {
                self.close_unsaid(reply::INTERNAL_ERROR);
                return None;
            }
            Some(_) => {
                self.reply(reply::INTERNAL_ERROR, b"", output);
                self.close(None);
                return None;
            }
            None => return Some(self.wait()),
        };
        self.filters = Some(Box::new(Filters::new(interests)));
        self.state = State::Banner;
        self.ask(Phase::Connect, b"", AfterFilters::Banner);
        None
    }

    /// Asks the filters about a command, if it has come so far.
    pub(super) fn ask_about(&mut self, command: Command<'_>) -> Option<Outcome> {
        self.filters.as_ref()?;
        let (phase, parameter) = self.phase_of(command)?;
        self.ask(phase, parameter, AfterFilters::Command).then_some(Outcome::Done)
    }

    /// Asks the filters about a phase, if it is theirs. The line of a command that goes on later
    /// must then be kept as `waiting_command`.
    pub(super) fn ask(&mut self, phase: Phase, parameter: &[u8], then: AfterFilters) -> bool {
        let Some(filters) = &mut self.filters else { return false };
        if phase == Phase::MailFrom {
            filters.junk_mail = false;
        }
        // For `filter-response` all phases are theirs.
        if !filters.interests.events && !filters.registered(phase) {
            return false;
        }
        let request = self.next_request();
        let parameter = parameter.to_vec();
        let question = Some(Box::new(FilterQuestion { request, phase, parameter }));
        self.state = State::Filtering { request, phase, question, then };
        true
    }

    /// The end of a message, also of one that is at fault, by `command`, a name for the log.
    pub(super) fn end_of_content(
        &mut self,
        fault: Option<Fault>,
        command: &[u8],
        output: &mut Vec<u8>,
    ) -> Option<Action> {
        self.urgent = true;
        if self.ask(Phase::Commit, b"", AfterFilters::Commit(fault)) {
            self.waiting_command = command.to_vec();
            return None;
        }
        self.end_of_data(fault, command, output)
    }

    /// Asks what the state wants to ask, and carries out what was decided.
    pub(super) fn filtering_step(
        &mut self,
        now: Timestamp,
        output: &mut Vec<u8>,
    ) -> Option<Action> {
        let State::Filtering { phase, question, then, .. } = &mut self.state else { return None };
        if let Some(question) = question.take() {
            return Some(Action::Filter(question));
        }
        let (phase, then) = (*phase, *then);
        let decision = match self.arrived.take() {
            Some(Answer::Filtered(_, decision)) => self.checked(phase, decision),
            Some(_) => Decision::Disconnect(reply::INTERNAL_ERROR.to_owned()),
            None => return Some(self.wait()),
        };
        self.state = State::Command;
        let command = std::mem::take(&mut self.waiting_command);
        let argument = match decision {
            Decision::Disconnect(line) | Decision::Reject(line)
                if self.awaits_first_handshake() =>
            {
                self.close_unsaid(&line);
                return None;
            }
            Decision::Disconnect(line) => {
                self.refuse_connection(then);
                return self.settle(Outcome::Close(line.into()), command, output);
            }
            Decision::Reject(line) => {
                if matches!(then, AfterFilters::Banner) {
                    self.refuse_connection(then);
                }
                let is_chunk = matches!(then, AfterFilters::Command)
                    && command::parse(&command).is_some_and(|c| c.verb == Verb::Bdat);
                if is_chunk {
                    self.refuse_chunk(&command, line, now);
                    return None;
                }
                let action = self.settle(Outcome::Reply(line.into()), command, output);
                if matches!(then, AfterFilters::Commit(_)) {
                    self.roll_back();
                }
                return action;
            }
            Decision::Junk => {
                self.mark_as_junk(phase);
                None
            }
            Decision::Proceed => None,
            Decision::Rewrite(argument) => Some(argument),
        };
        match then {
            AfterFilters::Banner => {
                self.state = State::Banner;
                None
            }
            AfterFilters::Command => {
                let outcome = match (command::parse(&command), &argument) {
                    (Some(Command { verb, .. }), Some(argument)) => {
                        let command = Command { verb, argument: Some(argument) };
                        self.perform(command, now, output)
                    }
                    (Some(command), None) => self.perform(command, now, output),
                    // Only commands are asked about.
                    (None, _) => reply::UNRECOGNIZED.into(),
                };
                self.settle(outcome, command, output)
            }
            AfterFilters::Commit(fault) => self.end_of_data(fault, &command, output),
        }
    }

    /// What a decision comes to in its phase.
    fn checked(&mut self, phase: Phase, decision: Decision) -> Decision {
        let takes_argument = matches!(
            phase,
            Phase::Auth | Phase::Ehlo | Phase::Helo | Phase::MailFrom | Phase::RcptTo
        );
        match decision {
            Decision::Rewrite(_) if !takes_argument => {
                self.events.push_back(LogEvent::RewriteIgnored(phase));
                Decision::Proceed
            }
            // There is nothing left to be marked.
            Decision::Junk if phase == Phase::Commit => {
                Decision::Disconnect(reply::INTERNAL_ERROR.to_owned())
            }
            Decision::Reject(line) | Decision::Disconnect(line) if !reply::refuses(&line) => {
                Decision::Disconnect(reply::INTERNAL_ERROR.to_owned())
            }
            decision => decision,
        }
    }

    /// Marks the message, or without one the session.
    fn mark_as_junk(&mut self, phase: Phase) {
        if let Some(transaction) = &mut self.transaction {
            transaction.junk = true;
        } else if let Some(filters) = &mut self.filters {
            match phase {
                Phase::MailFrom => filters.junk_mail = true,
                _ => filters.junk = true,
            }
        }
    }

    /// Ends a session that begins with a handshake before there was one: nothing may be said in
    /// clear text (D16 of the SMTP page).
    fn close_unsaid(&mut self, line: &str) {
        self.events
            .push_back(LogEvent::FailedCommand { command: Vec::new(), reply: line.to_owned() });
        self.close(None);
    }

    /// Notes that the client is not to be served, before the banner.
    fn refuse_connection(&mut self, then: AfterFilters) {
        if let (AfterFilters::Banner, Some(filters)) = (then, &mut self.filters) {
            filters.mute = true;
        }
    }
}
