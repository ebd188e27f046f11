//! What roles say to the parent, and what administrators have it do.

use platform::Role;
use platform::process::Signal;

use super::Supervisor;
use crate::ipc::message::parent::{Administration, ParentToRole, RoleToParent, Status};
use crate::parent::slot::Event;
use crate::parent::wiring::ROLES;

impl Supervisor {
    /// Does what a role said, if it may say so.
    pub(super) fn handle(&mut self, event: Event) {
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
}
