//! Questions about a phase: each filter of the chain in its turn, until one decides.

use zeroize::Zeroizing;

use super::session::{Ask, Awaits};
use super::{Action, Engine, Ignored, Moment, Reply, Ticket, Trouble, micros};
use crate::config::{FilterDecision, ProcessId};
use crate::filter::builtin::{self, Test};
use crate::filter::chain::Decider;
use crate::filter::registration::EventName;
use crate::filter::said::Directive;
use crate::filter::wire::{self, Occasion, Reporter};
use crate::filter::{Decision, Event, INTERNAL, Phase, masked_argument, reply};
use crate::model::limits::COMMAND_LINE;
use crate::table::Answer;

/// What a filter has decided, as it said it.
enum Verdict {
    Proceed,
    Junk,
    Reject(Vec<u8>),
    Disconnect(Vec<u8>),
    Rewrite(Vec<u8>),
}

impl<T> Engine<T> {
    /// Asks the filters of a session about a phase, which is not [`Phase::DataLine`].
    ///
    /// `parameter` is what 5.5 of the SMTP page says for the phase; of [`Phase::Connect`] it is
    /// known already.
    pub fn ask(&mut self, now: Moment, who: T, number: u64, phase: Phase, parameter: Vec<u8>) {
        self.outstanding += 1;
        let overloaded = self.is_overloaded(now);
        let Some(session) = self.sessions.get_mut(&number) else {
            let refused = Decision::Disconnect(INTERNAL.to_owned());
            return self.answer(who, Reply::Decision(refused));
        };
        session.broken |= overloaded;
        session.facts.asked(phase, &parameter);
        self.serial += 1;
        let (serial, step, awaits, reported) = (self.serial, 0, Awaits::Nothing, false);
        let parameter = Zeroizing::new(parameter);
        let ask = Ask { who, serial, phase, parameter, step, awaits, reported };
        let earlier = session.ask.replace(ask);
        if let Some(earlier) = earlier {
            let refused = Decision::Disconnect(INTERNAL.to_owned());
            self.answer(earlier.who, Reply::Decision(refused));
        }
        self.advance(now, number);
    }

    /// A table has answered.
    pub fn looked_up(&mut self, now: Moment, ticket: Ticket, answer: &Answer) {
        let Some(session) = self.sessions.get_mut(&ticket.session) else { return };
        let Some(ask) = &mut session.ask else { return };
        if ask.serial != ticket.serial || ask.awaits != Awaits::Table {
            return;
        }
        ask.awaits = Awaits::Nothing;
        let step = session.chain.steps.get(ask.step).map(|step| &step.decider);
        let Some(Decider::BuiltIn(filter)) = step else { return };
        let holds = builtin::holds(filter, answer);
        self.tested(now, ticket.session, holds);
        self.advance(now, ticket.session);
    }

    /// Goes on with a question until someone has to be waited for.
    pub(super) fn advance(&mut self, now: Moment, number: u64) {
        loop {
            let Some(session) = self.sessions.get_mut(&number) else { return };
            let Some(ask) = &mut session.ask else { return };
            if session.broken {
                return self.decide(now, number, Verdict::Disconnect(INTERNAL.into()));
            }
            if ask.awaits != Awaits::Nothing {
                return;
            }
            let Some(step) = session.chain.steps.get(ask.step) else {
                return self.decide(now, number, Verdict::Proceed);
            };
            match &step.decider {
                Decider::BuiltIn(filter) if builtin::phase(filter) == ask.phase => {
                    match builtin::test(filter, &session.facts) {
                        Test::Known(holds) => self.tested(now, number, holds),
                        Test::Ask(question) => {
                            ask.awaits = Awaits::Table;
                            let ticket = Ticket { session: number, serial: ask.serial };
                            self.stage.actions.push(Action::Look(ticket, question));
                            return;
                        }
                    }
                }
                Decider::Process(process) => {
                    let (process, place) = (*process, (number, step.token));
                    let Some(program) = self.stage.program(process) else { return };
                    if program.registrations().phases() & ask.phase.bit() == 0 {
                        ask.step += 1;
                        continue;
                    }
                    ask.awaits = Awaits::Program;
                    program.asked(now.uptime, number, ask.serial);
                    let (phase, time) = (ask.phase, micros(now));
                    let (facts, parameter) = (&session.facts, &ask.parameter);
                    self.stage.write(now, process, |out| match phase {
                        Phase::Connect => {
                            let address = facts.source.to_string();
                            wire::question_about_client(
                                out,
                                time,
                                place,
                                &facts.hostname,
                                &address,
                            );
                        }
                        _ => wire::question_about(out, time, phase, place, parameter),
                    });
                    return;
                }
                Decider::BuiltIn(_) => ask.step += 1,
            }
        }
    }

    /// The condition of the built-in filter whose turn it is holds, or does not.
    fn tested(&mut self, now: Moment, number: u64, holds: bool) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let Some(ask) = &mut session.ask else { return };
        let phase = ask.phase;
        let Some(step) = session.chain.steps.get(ask.step) else { return };
        let Decider::BuiltIn(filter) = &step.decider else { return };
        ask.step += 1;
        if !holds {
            return;
        }
        let verdict = match &filter.decision {
            FilterDecision::Bypass => Verdict::Proceed,
            FilterDecision::Disconnect(text) => Verdict::Disconnect(text.clone().into_bytes()),
            FilterDecision::Junk => Verdict::Junk,
            FilterDecision::Reject(text) => Verdict::Reject(text.clone().into_bytes()),
            FilterDecision::Report(text) => {
                let occasion =
                    Occasion { direction: session.direction, session: number, time: micros(now) };
                let (name, text) = (&step.name, text.as_bytes());
                self.stage.emit(now, session, EventName::FilterReport, |out| {
                    wire::report(out, occasion, Reporter::BuiltIn, name, text);
                });
                return;
            }
            FilterDecision::Rewrite(_) if !is_rewritable(phase) => {
                return self.stage.say_ignored(now, None, &step.name, Ignored::Rewrite(phase));
            }
            FilterDecision::Rewrite(value) => Verdict::Rewrite(value.clone().into_bytes()),
        };
        self.decide(now, number, verdict);
    }

    /// A program has answered a question.
    pub(super) fn result(
        &mut self,
        now: Moment,
        process: ProcessId,
        (number, token): (u64, u64),
        directive: Directive<'_>,
    ) -> Result<(), Trouble> {
        // Sessions may end before they are answered.
        let Some(session) = self.sessions.get_mut(&number) else { return Ok(()) };
        let place = session.chain.step(process, token).ok_or(Trouble::Misbehaving)?;
        if session.broken {
            return Ok(());
        }
        if session.stream.as_ref().is_some_and(|stream| stream.awaits(place)) {
            return Err(Trouble::ResultInside);
        }
        let Some(step) = session.chain.steps.get(place) else { return Ok(()) };
        let asked = session.ask.as_mut();
        let asked = asked.filter(|ask| ask.step == place && ask.awaits == Awaits::Program);
        let Some(ask) = asked else {
            self.stage.say_ignored(now, Some(process), &step.name, Ignored::Answer);
            return Ok(());
        };
        let phase = ask.phase;
        if directive == Directive::Junk && phase == Phase::Commit {
            return Err(Trouble::JunkAtCommit);
        }
        ask.awaits = Awaits::Nothing;
        ask.step += 1;
        let verdict = match directive {
            Directive::Disconnect(text) => Verdict::Disconnect(text.to_vec()),
            Directive::Junk => Verdict::Junk,
            Directive::Proceed => {
                self.advance(now, number);
                return Ok(());
            }
            Directive::Reject(text) => Verdict::Reject(text.to_vec()),
            Directive::Report(text) => {
                ask.reported = true;
                self.respond(now, number, phase, "report", Some(text));
                self.advance(now, number);
                return Ok(());
            }
            Directive::Rewrite(_) if !is_rewritable(phase) => {
                let what = Ignored::Rewrite(phase);
                self.stage.say_ignored(now, Some(process), &step.name, what);
                self.advance(now, number);
                return Ok(());
            }
            Directive::Rewrite(value) => Verdict::Rewrite(value.to_vec()),
        };
        self.decide(now, number, verdict);
        Ok(())
    }

    /// Ends a question with a decision.
    fn decide(&mut self, now: Moment, number: u64, verdict: Verdict) {
        let Some(ask) = self.sessions.get_mut(&number).and_then(|session| session.ask.take())
        else {
            return;
        };
        let (phase, said) = (ask.phase, !ask.reported);
        let refusal = |text: &[u8], ends: bool| match reply(text) {
            Some(text) if ends || text.starts_with("421") => Decision::Disconnect(text),
            Some(text) => Decision::Reject(text),
            None => Decision::Disconnect(INTERNAL.to_owned()),
        };
        let decision = match verdict {
            Verdict::Proceed => Decision::Proceed,
            Verdict::Junk => Decision::Junk,
            Verdict::Reject(text) => refusal(&text, false),
            Verdict::Disconnect(text) => refusal(&text, true),
            // No command has such an argument.
            Verdict::Rewrite(value) if value.len() > COMMAND_LINE => {
                Decision::Disconnect(INTERNAL.to_owned())
            }
            Verdict::Rewrite(value) => Decision::Rewrite(value),
        };
        match &decision {
            // That it goes on after a report needs no word.
            Decision::Proceed if said => self.respond(now, number, phase, "proceed", None),
            Decision::Proceed => {}
            Decision::Junk => self.respond(now, number, phase, "junk", None),
            Decision::Reject(text) => {
                self.respond(now, number, phase, "reject", Some(text.as_bytes()));
            }
            Decision::Disconnect(text) => {
                self.respond(now, number, phase, "disconnect", Some(text.as_bytes()));
            }
            // Credentials are for the programs of the phase alone.
            Decision::Rewrite(value) if phase == Phase::Auth => {
                let told = masked_argument(value);
                self.respond(now, number, phase, "rewrite", Some(&told));
            }
            Decision::Rewrite(value) => self.respond(now, number, phase, "rewrite", Some(value)),
        }
        self.answer(ask.who, Reply::Decision(decision));
    }

    /// Tells what became of a phase.
    fn respond(
        &mut self,
        now: Moment,
        number: u64,
        phase: Phase,
        decision: &str,
        parameter: Option<&[u8]>,
    ) {
        let Some(session) = self.sessions.get(&number) else { return };
        let occasion =
            Occasion { direction: session.direction, session: number, time: micros(now) };
        self.stage.emit(now, session, EventName::FilterResponse, |out| {
            wire::response(out, occasion, phase, decision, parameter);
        });
    }

    /// Breaks sessions whose questions wait for too long; their programs go on.
    pub(super) fn expire_questions(&mut self, now: Moment) {
        let sessions = &self.sessions;
        let waits = |session: u64, serial| {
            sessions.get(&session).is_some_and(|session| session.waits_for(serial))
        };
        let mut late = Vec::new();
        for program in &mut self.stage.programs {
            program.forget_answered(waits);
            late.extend(std::iter::from_fn(|| program.expired(now.uptime)));
        }
        for number in late {
            self.time_out(now, number);
        }
    }

    /// A session has waited for too long.
    pub(super) fn time_out(&mut self, now: Moment, number: u64) {
        self.events(now, number, &[(micros(now), Event::Timeout)]);
        self.break_session(now, number);
    }
}

/// Whether a phase has an argument that can become another one.
fn is_rewritable(phase: Phase) -> bool {
    matches!(phase, Phase::Helo | Phase::Ehlo | Phase::Auth | Phase::MailFrom | Phase::RcptTo)
}
