//! The parent's loop: starts the set of roles, replaces what ends, and ends it all in order.
//!
//! *control, keys, lookup, scheduler* are replaced one by one; their neighbours get new channels.
//! The end of *dispatcher* or *queue* ends the set: the dispatcher finishes, then the queue drains
//! and syncs, then the rest; and a new set begins. Listening sockets stay open all the time, so that
//! clients wait and are not refused.

mod ending;
mod reloading;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use platform::Role;
use platform::process::{Pid, Signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};

use self::reloading::Reload;
use super::background::Ready;
use super::prepare::Prepared;
use super::requests::Offices;
use super::slot::{Event, History, Slot, arguments};
use super::suspects::Suspects;
use super::wiring::{PAIRS, ROLES, as_peer, is_replaceable};
use crate::ipc::link::Link;
use crate::ipc::message::parent::{Administration, ParentToRole, RoleToParent, Status, Switches};
use crate::ipc::message::spawner::{ParentToSpawner, SpawnerToParent};
use crate::process::{Memory, PARENT_CHANNEL, PARENT_WINDOW};

/// Serves until an administrator or a signal ends it.
pub fn run(prepared: Prepared, ready: Option<Ready>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("fatal: runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        match Supervisor::start(prepared, ready) {
            Ok(supervisor) => supervisor.serve().await,
            Err(error) => {
                tracing::error!("fatal: {error}");
                ExitCode::FAILURE
            }
        }
    })
}

/// What the set is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
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
    /// The configuration is being read again.
    reloading: bool,
    reloads: mpsc::UnboundedSender<Reload>,
    reloaded: mpsc::UnboundedReceiver<Reload>,
}

/// Something whose pause is over.
#[derive(Clone, Copy, Debug)]
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
            reloading: false,
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
        loop {
            if self.stopping && self.is_over() {
                break;
            }
            let deadline = match self.phase {
                Phase::Ending(_, deadline) => Some(deadline),
                Phase::Running => None,
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

    // Starting.

    fn start_set(&mut self) -> std::io::Result<()> {
        self.phase = Phase::Running;
        for role in ROLES {
            self.start_role(role)?;
        }
        for (one, other) in PAIRS {
            self.connect(one, other)?;
        }
        self.serve_listeners()
    }

    fn start_role(&mut self, role: Role) -> std::io::Result<()> {
        let mut setup = self.prepared.setup_for(role);
        setup.switches = self.switches;
        if role == Role::Queue {
            setup.suspects = self.suspects.lists();
        }
        let slot = Slot::start(role, &self.prepared.program, &setup, self.events.clone())?;
        self.slots.insert(role, slot);
        Ok(())
    }

    /// Gives two roles a channel to each other, in place of an earlier one.
    fn connect(&mut self, one: Role, other: Role) -> std::io::Result<()> {
        if !self.slots.contains_key(&one) || !self.slots.contains_key(&other) {
            return Ok(());
        }
        let (near, far) = platform::fd::socketpair()?;
        if let Some(bytes) = self.prepared.channel_buffer {
            platform::fd::set_socket_buffers(near.as_fd(), bytes)?;
            platform::fd::set_socket_buffers(far.as_fd(), bytes)?;
        }
        self.attach(one, other, near);
        self.attach(other, one, far);
        Ok(())
    }

    fn attach(&mut self, role: Role, peer: Role, descriptor: OwnedFd) {
        let Some(peer) = as_peer(peer) else { return };
        if let Some(slot) = self.slots.get_mut(&role) {
            slot.tell(ParentToRole::Attach { peer }, Some(descriptor));
        }
    }

    fn serve_listeners(&mut self) -> std::io::Result<()> {
        for (listener, socket) in &self.prepared.listeners {
            let socket = socket.try_clone()?;
            if let Some(slot) = self.slots.get_mut(&Role::Dispatcher) {
                slot.tell(ParentToRole::Serve { listener: *listener }, Some(socket));
            }
        }
        self.serve_control_socket()
    }

    fn serve_control_socket(&mut self) -> std::io::Result<()> {
        let socket = self.prepared.control_socket.try_clone()?;
        if let Some(slot) = self.slots.get_mut(&Role::Control) {
            slot.tell(ParentToRole::Serve { listener: 0 }, Some(socket));
        }
        Ok(())
    }

    fn start_spawner(&mut self) -> std::io::Result<()> {
        let (ours, theirs) = platform::fd::socketpair()?;
        let setup = &self.prepared.setup;
        let pid = platform::process::spawn(
            &self.prepared.program,
            &arguments(Role::Spawner, setup.foreground, self.switches.verbose),
            &[],
            &[(theirs.as_fd(), PARENT_CHANNEL), (std::io::stderr().as_fd(), 2)],
            false,
        )?;
        drop(theirs);
        let (link, mut arrivals) =
            Link::<ParentToSpawner, SpawnerToParent>::open(ours, PARENT_WINDOW)?;
        let order = ParentToSpawner::Setup(self.prepared.spawner_setup.clone());
        let first = link.clone();
        let offices = self.offices.clone();
        tokio::spawn(async move {
            let _gone = first.notice(&order, None).await;
            while let Some(arrived) = arrivals.recv().await {
                offices.answer_spawner(arrived.message, arrived.responder);
            }
        });
        self.offices.spawner.replace(link);
        self.spawner = Some(pid);
        self.spawner_started = Instant::now();
        Ok(())
    }

    fn restart(&mut self, restart: Restart) {
        if self.stopping {
            return;
        }
        let result = match restart {
            Restart::Role(role) if self.phase == Phase::Running => self.replace(role),
            Restart::Role(_) => Ok(()),
            Restart::Set => {
                self.draw_conclusions();
                self.start_set()
            }
            Restart::Spawner => self.start_spawner(),
        };
        if let Err(error) = result {
            // The service has been ready: it never gives up.
            tracing::error!("warn: cannot start a process, trying again: {error}");
            self.schedule(restart, Duration::from_secs(2));
        }
    }

    /// After a crash, and what the queue still had to say: which envelopes it throws suspicion on.
    fn draw_conclusions(&mut self) {
        let Some(served) = self.crashed.take() else { return };
        if let Some(id) = self.suspects.crashed(served) {
            tracing::warn!(
                "warn: envelope {id} was in flight in three crashes in a row, in the last one alone \
                 of all suspects: held until it is scheduled or removed"
            );
        }
    }

    fn replace(&mut self, role: Role) -> std::io::Result<()> {
        if self.slots.contains_key(&role) {
            return Ok(());
        }
        self.start_role(role)?;
        for (one, other) in PAIRS {
            if one == role || other == role {
                self.connect(one, other)?;
            }
        }
        if role == Role::Control { self.serve_control_socket() } else { Ok(()) }
    }

    fn schedule(&self, restart: Restart, pause: Duration) {
        let restarts = self.restarts.clone();
        tokio::spawn(async move {
            sleep(pause).await;
            let _ended = restarts.send(restart);
        });
    }

    // What roles say.

    fn handle(&mut self, event: Event) {
        let current = self.slots.get(&event.role).is_some_and(|slot| slot.pid == event.pid);
        if !current {
            return;
        }
        let Some(said) = event.said else {
            // A role without its channel is of no use: its end is noticed as any other.
            let _gone = platform::process::signal(event.pid, Signal::Kill);
            return;
        };
        if !said.message.allowed_from(event.role) {
            tracing::error!("warn: {} said what it may not say", event.role.name());
            let _gone = platform::process::signal(event.pid, Signal::Kill);
            return;
        }
        match said.message {
            RoleToParent::Administer(Administration::Reload) => self.reload(Some(said.responder)),
            RoleToParent::Administer(order) => {
                let done = self.administer(order);
                let _gone = said.responder.reply(&ParentToRole::Administered { done }, None);
            }
            RoleToParent::Cleared(ids) => self.suspects.cleared(&ids),
            // Not allowed but as an answer.
            RoleToParent::Entry(_) => {}
            RoleToParent::InFlight(ids) => {
                self.suspects.in_flight(ids);
                let _gone = said.responder.reply(&ParentToRole::Noted, None);
            }
            RoleToParent::Ready { confinement } => self.ready(event.role, confinement),
            RoleToParent::Status => {
                let _gone = said.responder.reply(&ParentToRole::Status(self.status()), None);
            }
            RoleToParent::Trouble { text } => {
                if text.is_empty() {
                    self.troubles.remove(&event.role);
                } else {
                    self.troubles.insert(event.role, text);
                }
            }
            RoleToParent::FilterStream { .. }
            | RoleToParent::LookUpUser { .. }
            | RoleToParent::OpenFile { .. }
            | RoleToParent::StartFilter { .. }
            | RoleToParent::StartTableProgram { .. }
            | RoleToParent::OpenMap { .. }
            | RoleToParent::StartAuthWorker
            | RoleToParent::OpenPki { .. }
            | RoleToParent::StartReader(_)
            | RoleToParent::StartWorker { .. } => {
                self.offices.answer(said.message, said.responder);
            }
        }
    }

    fn ready(&mut self, role: Role, confinement: String) {
        tracing::debug!("debug: {} ready ({confinement})", role.name());
        if let Some(slot) = self.slots.get_mut(&role) {
            slot.ready(confinement);
            if role == Role::Lookup {
                self.offices.lookup.replace(slot.link.clone());
            }
        }
        let all = ROLES
            .iter()
            .all(|role| self.slots.get(role).is_some_and(|slot| slot.confinement.is_some()));
        if all && !self.ready_once {
            self.ready_once = true;
            self.prepared.announce_ready();
            let offices = self.offices.clone();
            tokio::spawn(offices.submit_offline(self.prepared.offline.clone()));
            if let Some(ready) = self.ready.take() {
                ready.tell();
            }
        }
    }

    fn administer(&mut self, order: Administration) -> bool {
        let before = self.switches;
        let word = |paused| if paused { "paused" } else { "resumed" };
        match order {
            Administration::Mda { paused } => self.switches.mda_paused = paused,
            Administration::Mta { paused } => self.switches.mta_paused = paused,
            Administration::Smtp { paused } => self.switches.smtp_paused = paused,
            // Answered when it was done.
            Administration::Reload => return false,
            Administration::Stop => {
                self.stop();
                return true;
            }
            Administration::Verbose { on } => {
                self.switches.verbose = on;
                crate::log::set_verbose(on);
            }
        }
        let is_log = matches!(order, Administration::Verbose { .. });
        if before == self.switches {
            return is_log;
        }
        match order {
            Administration::Mda { paused } => tracing::info!("info: mda {}", word(paused)),
            Administration::Mta { paused } => tracing::info!("info: mta {}", word(paused)),
            Administration::Smtp { paused } => tracing::info!("info: smtp {}", word(paused)),
            Administration::Reload | Administration::Stop | Administration::Verbose { .. } => {}
        }
        for slot in self.slots.values_mut() {
            slot.tell(ParentToRole::Switch(self.switches), None);
        }
        true
    }

    fn status(&self) -> Status {
        let confinement = self.slots.iter().filter_map(|(role, slot)| {
            slot.confinement.clone().map(|words| (role.name().to_owned(), words))
        });
        let restarts =
            self.histories.iter().map(|(role, history)| (role.name().to_owned(), history.ends));
        let mut status = Status {
            switches: self.switches,
            uptime: self.started.elapsed().as_secs(),
            confinement: confinement.collect(),
            restarts: restarts.collect(),
            snapshot: self.memory.snapshot(Vec::new()),
            troubles: self.troubles.values().cloned().collect(),
        };
        status.confinement.sort();
        status.restarts.sort();
        status
    }

    // Endings.

    /// Notes every process that has ended.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = platform::process::reap() {
            if self.spawner == Some(pid) {
                self.spawner = None;
                self.spawner_ended(status);
                continue;
            }
            let role = self.slots.iter().find(|(_, slot)| slot.pid == pid).map(|(role, _)| *role);
            if let Some(role) = role {
                self.role_ended(role, status);
            }
        }
    }

    fn spawner_ended(&mut self, status: platform::process::ExitStatus) {
        if self.stopping {
            return;
        }
        tracing::warn!("warn: spawner ended ({status}), starting it again");
        let served = self.spawner_started.elapsed();
        let pause = self.histories.entry(Role::Spawner).or_default().ended(served);
        self.schedule(Restart::Spawner, pause);
    }

    fn role_ended(&mut self, role: Role, status: platform::process::ExitStatus) {
        let Some(slot) = self.slots.remove(&role) else { return };
        slot.link.close();
        self.troubles.remove(&role);
        match self.phase {
            Phase::Ending(stage, _) => self.next_stage(stage),
            Phase::Running if !self.ready_once => {
                tracing::error!("fatal: {} ended ({status}) before it was ready", role.name());
                self.failed = true;
                self.stop();
            }
            Phase::Running => {
                let served = slot.started.elapsed();
                let pause = self.histories.entry(role).or_default().ended(served);
                tracing::warn!("warn: {} ended ({status}), starting it again", role.name());
                if is_replaceable(role) {
                    self.schedule(Restart::Role(role), pause);
                } else {
                    self.set_pause = pause;
                    self.crashed = Some(served);
                    self.end_set();
                }
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
