//! The supervisor's part of a reload: starts the reading, goes over to what was read, tells who asked.
//!
//! One reading is under way at a time. The roles that leave are answered for their own
//! configuration to their end; the next set begins with the last one that was read.

use std::time::Duration;

use super::{Phase, Supervisor};
use crate::ipc::link::Responder;
use crate::ipc::message::parent::{ParentToRole, RoleToParent};
use crate::parent::reload::{Next, Refused};

/// How to answer an administrator; nobody waits after a signal.
type Asked = Option<Responder<ParentToRole, RoleToParent>>;

/// A configuration that was read again, and whom that is to be told.
pub(super) struct Reload {
    /// What came of it.
    result: Result<Next, Refused>,
    /// Who waits for that.
    asked: Asked,
}

/// Whose turn it is to read. A file may have changed after it was read: a signal that comes while it
/// is read has it read once more, however many come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Turns {
    /// Nobody reads.
    #[default]
    Idle,
    /// It is being read.
    Reading,
    /// And once more after that.
    Again,
}

impl Turns {
    /// Whether a reading may begin now; if not, it is noted that one is to follow.
    fn ask(&mut self) -> bool {
        let idle = *self == Self::Idle;
        *self = if idle { Self::Reading } else { Self::Again };
        idle
    }

    /// A reading is over; whether another is to follow.
    fn done(&mut self) -> bool {
        std::mem::take(self) == Self::Again
    }
}

impl Supervisor {
    /// Begins to read the configuration again, beside the loop: files and names may take long.
    pub(super) fn reload(&mut self, asked: Asked) {
        if self.stopping {
            return self.take_not(&Refused::because("the server is ending"), asked);
        }
        if asked.is_some() && self.turns != Turns::Idle {
            return self.take_not(&Refused::because("another reload is under way"), asked);
        }
        if !self.turns.ask() {
            return;
        }
        let again = self.prepared.again();
        let reloads = self.reloads.clone();
        tokio::spawn(async move {
            let read = tokio::task::spawn_blocking(move || again?.read()).await;
            let result = read.unwrap_or_else(|error| Err(Refused::because(error.to_string())));
            let _ended = reloads.send(Reload { result, asked });
        });
    }

    /// Goes over to a configuration that was read again, or tells why not.
    pub(super) fn take(&mut self, reload: Reload) {
        let once_more = self.turns.done();
        match reload.result {
            Ok(_) if self.stopping => {
                self.take_not(&Refused::because("the server is ending"), reload.asked);
            }
            Ok(next) => self.go_over(next, reload.asked),
            Err(refused) => self.take_not(&refused, reload.asked),
        }
        if once_more && !self.stopping {
            self.reload(None);
        }
    }

    fn go_over(&mut self, next: Next, asked: Asked) {
        for remark in &next.remarks {
            tracing::warn!("{remark}");
        }
        self.prepared.adopt(next);
        let generation = self.prepared.setup.generation;
        tracing::info!("info: configuration reloaded, generation {generation}");
        if let Some(responder) = asked {
            let _gone = responder.reply(&ParentToRole::Administered { done: true }, None);
        }
        // Otherwise the next set is on its way already.
        if self.phase == Phase::Running {
            self.set_pause = Duration::ZERO;
            self.end_set();
        }
    }

    fn take_not(&self, refused: &Refused, asked: Asked) {
        for reason in &refused.0 {
            tracing::warn!("{reason}");
        }
        tracing::warn!("warn: configuration not reloaded: the present one stays in use");
        if let Some(responder) = asked {
            let _gone = responder.reply(&ParentToRole::Administered { done: false }, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Turns;

    #[test]
    fn what_is_asked_while_the_file_is_read_has_it_read_once_more() {
        let mut turns = Turns::default();
        assert!(turns.ask());
        assert!(!turns.done());
        assert!(turns.ask());
        assert!(!turns.ask() && !turns.ask());
        assert!(turns.done());
        assert!(turns.ask());
        assert!(!turns.done());
    }
}
