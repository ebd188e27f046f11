//! The start of the set of roles and of each of its processes, their channels, and what is tried
//! again after a pause.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use platform::Role;
use platform::process::Signal;
use tokio::time::sleep;

use super::{Phase, Restart, Supervisor};
use crate::ipc::link::Link;
use crate::ipc::message::parent::ParentToRole;
use crate::ipc::message::spawner::{ParentToSpawner, SpawnerToParent};
use crate::parent::slot::{Slot, arguments};
use crate::parent::wiring::{PAIRS, ROLES, as_peer};
use crate::process::{PARENT_CHANNEL, PARENT_WINDOW};

/// Pause after a process could not even be started: the system lacks something.
const PAUSE: Duration = Duration::from_secs(2);

impl Supervisor {
    /// Starts every role, for the configuration as it is now.
    ///
    /// # Errors
    /// A part of the set may have been started by then.
    pub(super) fn start_set(&mut self) -> std::io::Result<()> {
        self.phase = Phase::Running;
        if self.offices.adopt(&self.prepared) {
            // It knows its filters by numbers of the configuration before.
            self.spawner = None;
            self.restart(Restart::Spawner);
        }
        self.prepared.let_go();
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

    pub(super) fn start_spawner(&mut self) -> std::io::Result<()> {
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

    /// Does what a pause was for, if it is still to be done. It is tried again for ever: the service
    /// has been ready.
    pub(super) fn restart(&mut self, restart: Restart) {
        if self.stopping {
            return;
        }
        let result = match (restart, self.phase) {
            (Restart::Role(role), Phase::Running) => self.replace(role),
            (Restart::Set, Phase::Between) => {
                self.draw_conclusions();
                self.start_set()
            }
            (Restart::Spawner, _) if self.spawner.is_none() => self.start_spawner(),
            (Restart::Role(_) | Restart::Set | Restart::Spawner, _) => Ok(()),
        };
        let Err(error) = result else { return };
        tracing::error!("warn: cannot start a process, trying again: {error}");
        let begun = match restart {
            Restart::Role(role) => self.slots.get(&role),
            Restart::Set | Restart::Spawner => None,
        };
        if restart == Restart::Set {
            // What there is of it leaves first: no role is there twice.
            self.set_pause = PAUSE;
            self.end_set();
        } else if let Some(slot) = begun {
            // It lacks channels. Its end is noticed as any other.
            let _gone = platform::process::signal(slot.pid, Signal::Kill);
        } else {
            self.schedule(restart, PAUSE);
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

    /// Has something restarted after a pause.
    pub(super) fn schedule(&self, restart: Restart, pause: Duration) {
        let restarts = self.restarts.clone();
        tokio::spawn(async move {
            sleep(pause).await;
            let _ended = restarts.send(restart);
        });
    }
}
