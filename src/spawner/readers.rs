//! Readers: workers that read `.forward` files and included lists for lookup.
//!
//! How many there are is lookup's business; here a lookup that was taken over is stopped. They say
//! nothing to the spawner: they get their order, and leave.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use platform::process::{ExitStatus, Pid};

use super::worker::{Starter, Worker};
use crate::ipc::message::spawner::{Duty, ReaderOrder};

/// Readers at once: twice as many as lookup keeps, since they take a moment to leave.
const READERS: usize = 128;
/// Readers of one user at once: those before the last are leaving, or hang.
const OF_ONE_USER: usize = 4;

/// All readers.
#[derive(Debug, Default)]
pub(super) struct Readers(Vec<Reader>);

#[derive(Debug)]
struct Reader {
    worker: Worker,
    /// Whose ids it has.
    uid: u32,
}

impl Readers {
    /// Starts one; `lookup` is its channel.
    pub(super) fn start(
        &mut self,
        starter: &Starter<'_>,
        order: ReaderOrder,
        lookup: Option<OwnedFd>,
    ) -> io::Result<()> {
        let lookup = lookup.ok_or_else(|| io::Error::other("no channel came with the order"))?;
        let uid = order.account.uid;
        let same = self.0.iter().filter(|reader| reader.uid == uid).count();
        if self.0.len() >= READERS || same >= OF_ONE_USER {
            return Err(io::Error::other("too many readers have not left"));
        }
        let worker = starter.start(Duty::Read(order), Some(lookup.as_fd()))?;
        self.0.push(Reader { worker, uid });
        Ok(())
    }

    /// Serves all; `readable` tells, in the order of [`Readers::workers`], who has something to say.
    pub(super) fn hear(&mut self, readable: &[bool]) {
        for (reader, readable) in self.0.iter_mut().zip(readable) {
            reader.worker.hear_end(*readable);
        }
    }

    /// Notes that a process has ended, if it is one of these.
    pub(super) fn ended(&mut self, pid: Pid, status: ExitStatus) {
        let Some(index) = self.0.iter().position(|reader| reader.worker.pid == pid) else { return };
        let gone = self.0.swap_remove(index);
        if matches!(status, ExitStatus::Signaled(_)) {
            tracing::warn!("warn: worker for {} ended: {status}", gone.worker.name);
        }
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.0.iter().map(|reader| &reader.worker)
    }

    pub(super) fn workers_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.0.iter_mut().map(|reader| &mut reader.worker)
    }
}
