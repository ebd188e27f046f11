//! Filter programs, and the sessions that they decide about.
//!
//! What is decided and said is the business of an [`Engine`]; here it gets its sockets, its clock and
//! its tables. Whatever happens is told to the engine at once, by whoever sees it: a question of the
//! dispatcher becomes bytes for a program without passing through a task of its own, and what has
//! gathered by the time that a program can be written to leaves in one call. Each program has a
//! [task](host) for its sockets, so one that stalls holds up nobody else.

mod host;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, mpsc};

use crate::config::{Config, ProcessId};
use crate::filter::engine::{
    Action, Beginning, Engine, Flow, Moment, Notice, Reply, Settings, Ticket, Trouble,
};
use crate::filter::{Event, Phase};
use crate::ipc::blob::Blob;
use crate::ipc::link::Responder;
use crate::ipc::message::lookup::{DispatcherToLookup, Interests, LineFlow, LookupToDispatcher};
use crate::process::ParentLink;
use crate::proto::escape;
use crate::table::{Answer, Question, Tables};

/// How the dispatcher is answered.
type Responding = Responder<LookupToDispatcher, DispatcherToLookup>;

/// A question for a table that takes its time; to be answered with [`Filters::looked_up`].
pub type Look = (Ticket, Question);

/// The filters of a configuration.
#[derive(Debug)]
pub struct Filters {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    begun: Instant,
    /// By [`ProcessId`].
    signals: Vec<Signals>,
    /// The engine's deadline is nearer than it was.
    hurry: Notify,
    tables: Arc<Tables>,
    looks: mpsc::UnboundedSender<Look>,
}

#[derive(Debug)]
struct State {
    engine: Engine<Responding>,
    /// When the clock ticks next.
    armed: Option<Duration>,
}

/// What the task of a program waits for.
#[derive(Debug)]
struct Signals {
    name: String,
    /// Start one.
    start: Notify,
    /// Something is to be written, or may be read again.
    go_on: Notify,
    /// The program is given up.
    end: Notify,
}

impl Filters {
    /// Begins with all filter programs of `config`. Questions that `tables` does not answer come out
    /// of the receiver. Must be called in a runtime.
    #[must_use]
    pub fn start(
        config: &Config,
        settings: &Settings,
        parent: &ParentLink,
        tables: &Arc<Tables>,
    ) -> (Self, mpsc::UnboundedReceiver<Look>) {
        let (looks, receiver) = mpsc::unbounded_channel();
        let signals = |process: &crate::config::Process| Signals {
            name: process.name.clone(),
            start: Notify::new(),
            go_on: Notify::new(),
            end: Notify::new(),
        };
        let engine = Engine::new(config, settings);
        let shared = Arc::new(Shared {
            state: Mutex::new(State { engine, armed: None }),
            begun: Instant::now(),
            signals: config.processes.iter().map(signals).collect(),
            hurry: Notify::new(),
            tables: Arc::clone(tables),
            looks,
        });
        for index in (0..).take(config.processes.len()) {
            tokio::spawn(host::run(Arc::clone(&shared), parent.clone(), ProcessId(index)));
        }
        tokio::spawn(tick(Arc::clone(&shared)));
        shared.drive(Engine::tick);
        (Self { shared }, receiver)
    }

    /// A session begins.
    pub fn begin(&self, responder: Responding, session: u64, beginning: Beginning) {
        self.shared.drive(|engine, _| engine.begin(responder, session, beginning));
    }

    /// A question about a phase.
    pub fn ask(&self, responder: Responding, session: u64, phase: Phase, parameter: Blob) {
        self.shared.drive(|engine, now| engine.ask(now, responder, session, phase, parameter.0));
    }

    /// Events of a session.
    pub fn events(&self, session: u64, events: &[(u64, Event)]) {
        self.shared.drive(|engine, now| engine.events(now, session, events));
    }

    /// Lines of a message.
    pub fn lines(&self, responder: Responding, session: u64, lines: Blob) {
        self.shared.drive(|engine, now| engine.lines(now, responder, session, lines.0));
    }

    /// A session has ended.
    pub fn end(&self, session: u64) {
        self.shared.drive(|engine, now| engine.end(now, session));
    }

    /// There is no dispatcher any more.
    pub fn end_all(&self) {
        self.shared.drive(Engine::end_all);
    }

    /// A table has answered.
    pub fn looked_up(&self, ticket: Ticket, answer: &Answer) {
        self.shared.drive(|engine, now| engine.looked_up(now, ticket, answer));
    }

    /// Counters of all programs.
    #[must_use]
    pub fn counters(&self) -> Vec<(String, i64)> {
        let state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.engine.counters()
    }
}

impl Shared {
    fn now(&self) -> Moment {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Moment { uptime: self.begun.elapsed(), wall: wall.unwrap_or(Duration::ZERO) }
    }

    /// Tells the engine something, and does what is to be done because of it.
    fn drive<R>(&self, tell: impl FnOnce(&mut Engine<Responding>, Moment) -> R) -> R {
        let now = self.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = tell(&mut state.engine, now);
        loop {
            let actions = state.engine.actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                self.perform(&mut state.engine, now, action);
            }
        }
        let deadline = state.engine.deadline();
        let nearer = match (deadline, state.armed) {
            (Some(deadline), Some(armed)) => deadline < armed,
            (deadline, _) => deadline.is_some(),
        };
        if nearer {
            state.armed = deadline;
            self.hurry.notify_one();
        }
        result
    }

    fn perform(&self, engine: &mut Engine<Responding>, now: Moment, action: Action<Responding>) {
        let notify = |process: ProcessId, which: fn(&Signals) -> &Notify| {
            if let Some(signals) = self.signals.get(process.0 as usize) {
                which(signals).notify_one();
            }
        };
        match action {
            Action::Answer(responder, reply) => answer(responder, reply),
            Action::End(process) => notify(process, |signals| &signals.end),
            Action::Look(ticket, question) => match self.tables.answer(&question) {
                Some(answer) => engine.looked_up(now, ticket, &answer),
                // Whoever answers lives as long as the role.
                None => drop(self.looks.send((ticket, question))),
            },
            Action::Read(process) | Action::Write(process) => {
                notify(process, |signals| &signals.go_on);
            }
            Action::Say(notice) => say(&notice),
            Action::Start(process) => notify(process, |signals| &signals.start),
        }
    }
}

/// Tells the engine that time has passed, when it matters.
async fn tick(shared: Arc<Shared>) {
    loop {
        let armed = shared.state.lock().unwrap_or_else(PoisonError::into_inner).armed;
        if armed.is_some_and(|armed| armed <= shared.begun.elapsed()) {
            shared.drive(Engine::tick);
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.armed = state.engine.deadline();
            continue;
        }
        let due = armed.map(|armed| tokio::time::Instant::from_std(shared.begun + armed));
        tokio::select! {
            () = until(due) => {}
            () = shared.hurry.notified() => {}
        }
    }
}

async fn until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Answers; a dispatcher that is gone does not wait.
fn answer(responder: Responding, reply: Reply) {
    let message = match reply {
        Reply::Decision(decision) => LookupToDispatcher::Filtered(decision),
        Reply::Lines { taken, output, flow } => LookupToDispatcher::FilterLines {
            taken: u32::try_from(taken).unwrap_or(u32::MAX),
            output: Blob(output),
            flow: match flow {
                Flow::Broken => LineFlow::Broken,
                Flow::Ended => LineFlow::Ended,
                Flow::More => LineFlow::More,
            },
        },
        Reply::Wants(wants) => LookupToDispatcher::FilterInterests(Interests {
            events: wants.events,
            phases: wants.phases,
        }),
    };
    let _gone = responder.reply(&message, None);
}

/// Writes the log line of a notice, with what a program said made visible.
fn say(notice: &Notice) {
    match notice {
        Notice::Back { name } => tracing::info!("info: filter {name} is ready again"),
        // How it ended is said when the next one is started.
        Notice::GivenUp { name, trouble: Trouble::Ended, pause, .. } => {
            tracing::debug!("debug: filter {name} has ended: again in {} ms", pause.as_millis());
        }
        Notice::GivenUp { name, trouble, pause, repeated } => {
            let text = visible(trouble.to_string().as_bytes());
            let pause = pause.as_millis();
            if *repeated {
                tracing::debug!("debug: filter {name}: {text}: again in {pause} ms");
            } else if trouble.was_said() {
                tracing::error!("lookup: {text}");
                tracing::warn!("warn: filter {name} is started anew, in {pause} ms");
            } else {
                tracing::warn!("warn: filter {name}: {text}: started anew, in {pause} ms");
            }
        }
        Notice::Ignored { name, what, repeated } => {
            if *repeated {
                tracing::debug!("debug: filter {name}: {what}");
            } else {
                tracing::warn!("warn: filter {name}: {what}");
            }
        }
    }
}

/// At most 1024 bytes of it.
fn visible(bytes: &[u8]) -> String {
    escape::quoted(bytes.get(..1024).unwrap_or(bytes))
}
