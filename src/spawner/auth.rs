//! Auth workers: processes that check one password for lookup, and leave.
//!
//! How many there are is lookup's business; here a lookup that was taken over is stopped, and a
//! worker that does not end. Their channel to lookup is passed through unseen.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use platform::process::{ExitStatus, Pid};

use super::worker::{Starter, Worker};
use crate::ipc::message::spawner::Duty;

/// Auth workers at once: twice as many as lookup has, since they take a moment to leave.
const WORKERS: usize = 128;
/// How long one may be there. It ends itself a little earlier.
const LIMIT: Duration = Duration::from_secs(35);

/// All auth workers.
#[derive(Debug, Default)]
pub(super) struct AuthWorkers(Vec<Worker>);

impl AuthWorkers {
    /// Starts one; `lookup` is its channel.
    pub(super) fn start(
        &mut self,
        starter: &Starter<'_>,
        lookup: Option<OwnedFd>,
    ) -> io::Result<()> {
        let lookup = lookup.ok_or_else(|| io::Error::other("no channel came with the order"))?;
        if self.0.len() >= WORKERS {
            return Err(io::Error::other("too many auth workers have not left"));
        }
        let mut worker = starter.start(Duty::Authenticate, Some(lookup.as_fd()))?;
        worker.overdue = Some(Instant::now() + LIMIT);
        self.0.push(worker);
        Ok(())
    }

    /// Serves all; `readable` tells, in the order of [`AuthWorkers::workers`], who has something to
    /// say.
    pub(super) fn hear(&mut self, readable: &[bool]) {
        for (worker, readable) in self.0.iter_mut().zip(readable) {
            worker.hear_end(*readable);
        }
    }

    /// Notes that a process has ended, if it is one of these.
    pub(super) fn ended(&mut self, pid: Pid, status: ExitStatus) {
        let Some(index) = self.0.iter().position(|worker| worker.pid == pid) else { return };
        let gone = self.0.swap_remove(index);
        if matches!(status, ExitStatus::Signaled(_)) {
            tracing::warn!("warn: worker for {} ended: {status}", gone.name);
        }
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.0.iter()
    }

    pub(super) fn workers_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.0.iter_mut()
    }
}
