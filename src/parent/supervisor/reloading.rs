//! The supervisor's part of a reload: starts the reading, goes over to what was read, tells who asked.

use std::time::Duration;

use super::{Phase, Restart, Supervisor};
use crate::ipc::link::Responder;
use crate::ipc::message::parent::{ParentToRole, RoleToParent};
use crate::parent::reload::{Next, Refused};

/// How to answer an administrator.
type Asked = Option<Responder<ParentToRole, RoleToParent>>;

/// A configuration that was read again, and whom that is to be told.
pub(super) struct Reload {
    /// What came of it.
    result: Result<Next, Refused>,
    /// Who waits for that.
    asked: Asked,
}

impl Supervisor {
    /// Begins to read the configuration again, beside the loop: files and names may take long.
    pub(super) fn reload(&mut self, asked: Asked) {
        let again = if self.reloading || self.stopping {
            Err("another one is under way".to_owned())
        } else {
            self.prepared.again().map_err(|error| error.to_string())
        };
        let again = match again {
            Ok(again) => again,
            Err(reason) => {
                self.take_not(&Refused(vec![reason]), asked);
                return;
            }
        };
        self.reloading = true;
        let reloads = self.reloads.clone();
        tokio::spawn(async move {
            let read = tokio::task::spawn_blocking(move || again.read()).await;
            let result = read.unwrap_or_else(|error| Err(Refused(vec![error.to_string()])));
            let _ended = reloads.send(Reload { result, asked });
        });
    }

    /// Goes over to a configuration that was read again, or tells why not.
    pub(super) fn take(&mut self, reload: Reload) {
        self.reloading = false;
        let mut next = match reload.result {
            Ok(next) => next,
            Err(refused) => {
                self.take_not(&refused, reload.asked);
                return;
            }
        };
        for remark in next.remarks.drain(..) {
            tracing::warn!("{remark}");
        }
        let renamed = next.config.server_name != self.prepared.config.server_name;
        self.prepared.adopt(next);
        self.offices.adopt(&self.prepared);
        let generation = self.prepared.setup.generation;
        tracing::info!("info: configuration reloaded, generation {generation}");
        if let Some(responder) = reload.asked {
            let _gone = responder.reply(&ParentToRole::Administered { done: true }, None);
        }
        if renamed && let Err(error) = self.start_spawner() {
            tracing::error!("warn: cannot start a process, trying again: {error}");
            self.schedule(Restart::Spawner, Duration::from_secs(2));
        }
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
