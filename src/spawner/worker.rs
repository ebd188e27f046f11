//! One worker process, as the spawner sees it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use platform::Role;
use platform::process::{Pid, Signal, signal, spawn};

use crate::ipc::blocking::{Channel, ChannelError, Received};
use crate::ipc::message::spawner::{Duty, SpawnerSetup, SpawnerToWorker, WorkerToSpawner};
use crate::process::{JOB_CHANNEL, PARENT_CHANNEL};

/// How long a worker may stay after it closed its channel.
const LEAVE: Duration = Duration::from_secs(10);

/// The control channel to a worker.
pub(super) type Control = Channel<SpawnerToWorker, WorkerToSpawner>;

/// How workers are started.
#[derive(Debug)]
pub(super) struct Starter<'a> {
    /// This program.
    pub(super) program: &'a Path,
    /// Options that every role is given.
    pub(super) flags: &'a [OsString],
    /// What every worker is told.
    pub(super) setup: &'a SpawnerSetup,
}

/// A running worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) pid: Pid,
    /// `None` once it closed the channel or was given up.
    pub(super) control: Option<Control>,
    /// For whom it works, in words.
    pub(super) name: String,
    /// When it is killed: it closed its channel, and should be gone.
    pub(super) overdue: Option<Instant>,
}

impl Starter<'_> {
    /// Starts a worker for `duty`; `jobs` is its channel to whom it works for: the
    /// dispatcher, or lookup for a reader or an auth worker.
    pub(super) fn start(&self, duty: Duty, jobs: Option<BorrowedFd<'_>>) -> io::Result<Worker> {
        let role = match &duty {
            Duty::Authenticate => Role::Auth,
            Duty::Deliver(_) | Duty::Read(_) | Duty::Submit(_) | Duty::Users => Role::Worker,
        };
        let name = match &duty {
            Duty::Authenticate => "a password".to_owned(),
            Duty::Deliver(order) => order.identity.account.clone(),
            Duty::Read(order) => format!("reading as {}", order.account.name),
            Duty::Submit(_) => "offline messages".to_owned(),
            Duty::Users => "user look-ups".to_owned(),
        };
        let (ours, theirs) = platform::fd::socketpair()?;
        let mut control = Control::new(ours)?;
        let begin = SpawnerToWorker::Begin { setup: self.setup.clone(), duty: Box::new(duty) };
        control.notice(&begin, None).map_err(io::Error::other)?;

        let mut arguments: Vec<OsString> = vec!["smtpd".into(), "-x".into(), role.name().into()];
        arguments.extend(self.flags.iter().cloned());
        let errors = io::stderr();
        let mut descriptors = vec![(errors.as_fd(), 2), (theirs.as_fd(), PARENT_CHANNEL)];
        descriptors.extend(jobs.map(|jobs| (jobs, JOB_CHANNEL)));
        // A session of its own: what is typed at a terminal does not reach a delivery.
        let pid = spawn(self.program, &arguments, &[], &descriptors, true)?;
        Ok(Worker { pid, control: Some(control), name, overdue: None })
    }
}

impl Worker {
    /// Sends what waits, and reads what came if there is something to read.
    pub(super) fn exchange(&mut self, readable: bool) -> Result<(), ChannelError> {
        let Some(control) = &mut self.control else { return Ok(()) };
        if readable {
            control.fill()?;
        }
        control.flush()
    }

    /// Serves one that asks nothing: it gets its order, and leaves.
    pub(super) fn hear_end(&mut self, readable: bool) {
        match self.exchange(readable) {
            Ok(()) => {}
            Err(ChannelError::Closed) => return self.leaves(),
            Err(error) => return self.give_up(&error),
        }
        let Some(control) = &mut self.control else { return };
        match control.next_message() {
            // Credits.
            Ok(None | Some(Received { message: None, .. })) => {}
            Ok(Some(_)) => self.give_up(&"it asked something"),
            Err(ChannelError::Closed) => self.leaves(),
            Err(error) => self.give_up(&error),
        }
    }

    /// Notes that it closed the channel: it is about to leave.
    pub(super) fn leaves(&mut self) {
        self.control = None;
        self.overdue = Some(Instant::now() + LEAVE);
    }

    /// Ends a worker that broke the rules or does not answer.
    pub(super) fn give_up(&mut self, why: &dyn std::fmt::Display) {
        tracing::warn!("warn: worker for {}: {why}", self.name);
        self.control = None;
        self.overdue = None;
        // It may have ended this moment, which is what is wanted.
        let _ = signal(self.pid, Signal::Kill);
    }
}
