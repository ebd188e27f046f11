//! The parent's loop: starts the set of roles, replaces what ends, and ends it all in order.
//!
//! *control, keys, lookup, scheduler* are replaced one by one; their neighbours get new channels.
//! The end of *dispatcher* or *queue* ends the set: the dispatcher finishes, then the queue drains
//! and syncs, then the rest; and a new set begins. Listening sockets stay open all the time, so that
//! clients wait and are not refused.

mod ending;
mod hearing;
mod reloading;
mod starting;

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use platform::Role;
use platform::process::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use self::reloading::{Reload, Turns};
use super::background::Ready;
use super::prepare::Prepared;
use super::requests::Offices;
use super::slot::{Event, History, Slot};
use super::suspects::Suspects;
use crate::ipc::message::parent::Switches;
use crate::process::Memory;

/// Serves until an administrator or a signal ends it.
pub fn run(prepared: Prepared, ready: Option<Ready>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("fatal: runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        match Supervisor::start(prepared, ready) {
            Ok(supervisor) => supervisor.serve().await,
            Err(error) => {
                tracing::error!("fatal: {error}");
                ExitCode::FAILURE
            }
        }
    });
    // A configuration that is being read, from a file system that does not answer, is not waited for.
    runtime.shutdown_background();
    code
}

/// What the set is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// There is none: the next one begins when its pause is over.
    Between,
    /// Waits for this role to leave, until then; everything later in the order follows.
    Ending(Stage, Instant),
    /// Serves.
    Running,
}

/// Who leaves next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Dispatcher,
    Queue,
    Rest,
}

struct Supervisor {
    prepared: Prepared,
    switches: Switches,
    slots: HashMap<Role, Slot>,
    histories: HashMap<Role, History>,
    offices: Offices,
    spawner: Option<Pid>,
    spawner_started: Instant,
    phase: Phase,
    /// How long the next set waits.
    set_pause: Duration,
    /// The whole ends when the set has ended.
    stopping: bool,
    /// A set has been ready once: from then on nothing makes the daemon give up.
    ready_once: bool,
    /// Tells whoever started the daemon that it serves.
    ready: Option<Ready>,
    failed: bool,
    troubles: HashMap<Role, String>,
    suspects: Suspects,
    /// How long the set served whose end is under way because a role crashed.
    crashed: Option<Duration>,
    started: Instant,
    memory: Memory,
    events: mpsc::UnboundedSender<Event>,
    inbox: mpsc::UnboundedReceiver<Event>,
    restarts: mpsc::UnboundedSender<Restart>,
    due: mpsc::UnboundedReceiver<Restart>,
    /// Whether the configuration is being read again.
    turns: Turns,
    reloads: mpsc::UnboundedSender<Reload>,
    reloaded: mpsc::UnboundedReceiver<Reload>,
}

/// Something whose pause is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Restart {
    Role(Role),
    Set,
    Spawner,
}

impl Supervisor {
    fn start(prepared: Prepared, ready: Option<Ready>) -> std::io::Result<Self> {
        let (events, inbox) = mpsc::unbounded_channel();
        let (restarts, due) = mpsc::unbounded_channel();
        let (reloads, reloaded) = mpsc::unbounded_channel();
        let mut supervisor = Self {
            switches: prepared.setup.switches,
            offices: Offices::new(&prepared),
            prepared,
            slots: HashMap::new(),
            histories: HashMap::new(),
            spawner: None,
            spawner_started: Instant::now(),
            phase: Phase::Running,
            set_pause: Duration::ZERO,
            stopping: false,
            ready_once: false,
            ready,
            failed: false,
            troubles: HashMap::new(),
            suspects: Suspects::default(),
            crashed: None,
            started: Instant::now(),
            memory: Memory::open(),
            events,
            inbox,
            restarts,
            due,
            turns: Turns::default(),
            reloads,
            reloaded,
        };
        tracing::info!("info: Pillarbox {} starting", env!("CARGO_PKG_VERSION"));
        supervisor.start_spawner()?;
        supervisor.start_set()?;
        Ok(supervisor)
    }

    async fn serve(mut self) -> ExitCode {
        let handlers = (
            signal(SignalKind::child()),
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
            signal(SignalKind::hangup()),
        );
        let (Ok(mut child), Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = handlers else {
            tracing::error!("fatal: signals cannot be received");
            return ExitCode::FAILURE;
        };
        // What has ended before ends of processes were told.
        self.reap();
        loop {
            if self.stopping && self.is_over() {
                break;
            }
            let deadline = match self.phase {
                Phase::Ending(_, deadline) => Some(deadline),
                Phase::Between | Phase::Running => None,
            };
            tokio::select! {
                Some(event) = self.inbox.recv() => self.handle(event),
                Some(restart) = self.due.recv() => self.restart(restart),
                _ = child.recv() => self.reap(),
                _ = terminate.recv() => self.stop(),
                _ = interrupt.recv() => self.stop(),
                _ = hangup.recv() => self.reload(None),
                Some(reload) = self.reloaded.recv() => self.take(reload),
                () = until(deadline) => self.out_of_patience(),
            }
        }
        tracing::info!("Exiting");
        self.prepared.clean_up();
        if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn is_over(&self) -> bool {
        self.slots.is_empty()
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
