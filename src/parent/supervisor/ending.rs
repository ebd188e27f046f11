//! What ends: a process unasked, and what follows from that; and the set of roles in order, the
//! dispatcher first, then the queue, then the rest.

use std::time::{Duration, Instant};

use platform::Role;
use platform::process::{ExitStatus, Signal};

use super::{Phase, Restart, Stage, Supervisor};
use crate::ipc::message::parent::ParentToRole;
use crate::parent::wiring::is_replaceable;

/// How long the dispatcher may take to finish what it does.
const DISPATCHER_GRACE: Duration = Duration::from_secs(2);
/// How long the queue may take to write down what it was told.
const QUEUE_GRACE: Duration = Duration::from_secs(5);
/// How long the others may take to notice the end.
const REST_GRACE: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Notes every process that has ended.
    pub(super) fn reap(&mut self) {
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

    fn spawner_ended(&mut self, status: ExitStatus) {
        if self.stopping {
            return;
        }
        tracing::warn!("warn: spawner ended ({status}), starting it again");
        let served = self.spawner_started.elapsed();
        let pause = self.histories.entry(Role::Spawner).or_default().ended(served);
        self.schedule(Restart::Spawner, pause);
    }

    fn role_ended(&mut self, role: Role, status: ExitStatus) {
        let Some(slot) = self.slots.remove(&role) else { return };
        slot.link.close();
        self.troubles.remove(&role);
        match self.phase {
            Phase::Ending(stage, _) => self.next_stage(stage),
            Phase::Between => {}
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

    /// Begins the end of the whole.
    pub(super) fn stop(&mut self) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        self.prepared.announce_stopping();
        if self.phase == Phase::Running {
            self.end_set();
        }
    }

    /// Begins the end of the set, with the dispatcher if it is there.
    pub(super) fn end_set(&mut self) {
        // Without a queue nothing that the dispatcher finishes could be written down.
        let grace =
            if self.slots.contains_key(&Role::Queue) { DISPATCHER_GRACE } else { Duration::ZERO };
        self.phase = Phase::Ending(Stage::Dispatcher, Instant::now() + grace);
        self.tell_to_leave(Role::Dispatcher);
        self.next_stage(Stage::Dispatcher);
    }

    /// Goes on with the end of the set as far as nobody has to be waited for.
    fn next_stage(&mut self, stage: Stage) {
        match stage {
            Stage::Dispatcher if self.slots.contains_key(&Role::Dispatcher) => {}
            Stage::Dispatcher => {
                self.phase = Phase::Ending(Stage::Queue, Instant::now() + QUEUE_GRACE);
                self.tell_to_leave(Role::Queue);
                self.next_stage(Stage::Queue);
            }
            Stage::Queue if self.slots.contains_key(&Role::Queue) => {}
            Stage::Queue => {
                self.phase = Phase::Ending(Stage::Rest, Instant::now() + REST_GRACE);
                for slot in self.slots.values() {
                    slot.link.close();
                }
                self.next_stage(Stage::Rest);
            }
            Stage::Rest if !self.slots.is_empty() => {}
            Stage::Rest => {
                self.phase = Phase::Between;
                if !self.stopping {
                    self.schedule(Restart::Set, self.set_pause);
                }
            }
        }
    }

    fn tell_to_leave(&mut self, role: Role) {
        if let Some(slot) = self.slots.get_mut(&role) {
            slot.tell(ParentToRole::Shutdown, None);
        }
    }

    /// Whoever should have left by now is ended.
    pub(super) fn out_of_patience(&mut self) {
        let Phase::Ending(stage, _) = self.phase else { return };
        for (role, slot) in &self.slots {
            let late = match stage {
                Stage::Dispatcher => *role == Role::Dispatcher,
                Stage::Queue => *role == Role::Queue,
                Stage::Rest => true,
            };
            if late {
                let _gone = platform::process::signal(slot.pid, Signal::Kill);
            }
        }
        // Its end is noticed by the signal of the child; this only keeps the loop from spinning.
        self.phase = Phase::Ending(stage, Instant::now() + REST_GRACE);
    }
}
