//! Filter programs, and the sessions that they decide about.
//!
//! What is decided and said is the business of an [`Engine`]; here it gets its sockets, its clock and
//! its tables, which lookup has. Whatever happens is told to the engine at once, by whoever sees it:
//! a question of a session becomes bytes for a program without passing through a task of its own, and
//! what has gathered by the time that a program can be written to leaves in one call. Each program
//! has a [task](host) for its sockets, so one that stalls holds up nobody else. [`link`] is what a
//! session sees of it all.

mod host;
pub mod link;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, oneshot};

use crate::config::{Config, ProcessId};
use crate::filter::engine::{
    Action, Beginning, Engine, Moment, Notice, Reply, Settings, Ticket, Trouble,
};
use crate::filter::{Event, Phase};
use crate::ipc::message::lookup::{DispatcherToLookup, LookupToDispatcher};
use crate::ipc::neighbour::Neighbour;
use crate::process::ParentLink;
use crate::proto::escape;
use crate::table::{Answer, Question};

/// Who has asked, and waits.
type Asker = oneshot::Sender<Reply>;

/// The role that has the tables.
type Lookup = Neighbour<DispatcherToLookup, LookupToDispatcher>;

/// The filters of a configuration. Clones share them.
#[derive(Clone, Debug)]
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
    lookup: Lookup,
}

#[derive(Debug)]
struct State {
    engine: Engine<Asker>,
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
    /// The filters of `config`, whose tables `lookup` has. No program runs yet.
    #[must_use]
    pub fn new(config: &Config, settings: &Settings, lookup: &Lookup) -> Self {
        let signals = |process: &crate::config::Process| Signals {
            name: process.name.clone(),
            start: Notify::new(),
            go_on: Notify::new(),
            end: Notify::new(),
        };
        let engine = Engine::new(config, settings);
        let shared = Shared {
            state: Mutex::new(State { engine, armed: None }),
            begun: Instant::now(),
            signals: config.processes.iter().map(signals).collect(),
            hurry: Notify::new(),
            lookup: lookup.clone(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Has all programs started, by the parent. Must be called in a runtime.
    pub fn serve(&self, parent: &ParentLink) {
        for index in (0..).take(self.shared.signals.len()) {
            tokio::spawn(host::run(Arc::clone(&self.shared), parent.clone(), ProcessId(index)));
        }
        tokio::spawn(tick(Arc::clone(&self.shared)));
        self.shared.drive(Engine::tick);
    }

    /// A session begins; answered when its programs are ready.
    fn begin(&self, session: u64, beginning: Beginning) -> oneshot::Receiver<Reply> {
        let (asker, reply) = oneshot::channel();
        self.shared.drive(|engine, _| engine.begin(asker, session, beginning));
        reply
    }

    /// A question about a phase.
    fn ask(&self, session: u64, phase: Phase, parameter: Vec<u8>) -> oneshot::Receiver<Reply> {
        let (asker, reply) = oneshot::channel();
        self.shared.drive(|engine, now| engine.ask(now, asker, session, phase, parameter));
        reply
    }

    /// Events of a session.
    fn events(&self, session: u64, events: &[(u64, Event)]) {
        self.shared.drive(|engine, now| engine.events(now, session, events));
    }

    /// Lines of a message.
    fn lines(&self, session: u64, lines: Vec<u8>) -> oneshot::Receiver<Reply> {
        let (asker, reply) = oneshot::channel();
        self.shared.drive(|engine, now| engine.lines(now, asker, session, lines));
        reply
    }

    /// A session has ended.
    fn end(&self, session: u64) {
        self.shared.drive(|engine, now| engine.end(now, session));
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
    fn drive<R>(self: &Arc<Self>, tell: impl FnOnce(&mut Engine<Asker>, Moment) -> R) -> R {
        let now = self.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = tell(&mut state.engine, now);
        for action in state.engine.actions() {
            self.perform(action);
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

    fn perform(self: &Arc<Self>, action: Action<Asker>) {
        let notify = |process: ProcessId, which: fn(&Signals) -> &Notify| {
            if let Some(signals) = self.signals.get(process.0 as usize) {
                which(signals).notify_one();
            }
        };
        match action {
            // Who has left does not wait.
            Action::Answer(asker, reply) => drop(asker.send(reply)),
            Action::End(process) => notify(process, |signals| &signals.end),
            Action::Look(ticket, question) => {
                tokio::spawn(look(Arc::clone(self), ticket, question));
            }
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

/// Asks a table on behalf of a built-in filter.
async fn look(shared: Arc<Shared>, ticket: Ticket, question: Question) {
    let answer = match question {
        Question::Contains { table, service, key } => {
            let request = DispatcherToLookup::Contains { table, service, key };
            match shared.lookup.request(&request, None).await {
                Ok((LookupToDispatcher::Contains(Some(found)), _)) => Answer::Contains(found),
                Ok(_) | Err(_) => Answer::Failed,
            }
        }
        // Conditions ask for nothing else.
        Question::Account { .. } | Question::Value { .. } => Answer::Failed,
    };
    shared.drive(|engine, now| engine.looked_up(now, ticket, &answer));
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
