//! One role as the parent sees it: its process, its channel, and what it is still to be told.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use platform::Role;
use platform::process::Pid;
use tokio::sync::mpsc;

use crate::ipc::blob::Blob;
use crate::ipc::link::{Arrived, Link};
use crate::ipc::message::parent::{ParentToRole, RoleToParent, Setup};
use crate::process::{PARENT_CHANNEL, PARENT_WINDOW};

/// Bytes of the set-up in one frame.
const PIECE: usize = 48 * 1024;
/// A process that served this long is not held to be failing again and again.
const STABLE: Duration = Duration::from_secs(10);
/// Longest pause before a role is started again.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// Pause before the second start in a row; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// What a role said, or that its channel ended.
#[derive(Debug)]
pub struct Event {
    /// The role.
    pub role: Role,
    /// Which process that played it.
    pub pid: Pid,
    /// What it said; `None` at the end of the channel.
    pub said: Option<Arrived<ParentToRole, RoleToParent>>,
}

/// A running process that plays a role.
#[derive(Debug)]
pub struct Slot {
    /// Its process.
    pub pid: Pid,
    /// The channel to it.
    pub link: Link<ParentToRole, RoleToParent>,
    /// How it is confined; known once it is ready.
    pub confinement: Option<String>,
    /// When it was started.
    pub started: Instant,
    /// What waits until it is ready: it reads its set-up without a runtime.
    waiting: Vec<(ParentToRole, Option<OwnedFd>)>,
}

/// How often a role ended, and how long to wait before it is started again.
#[derive(Clone, Copy, Debug, Default)]
pub struct History {
    /// Unexpected ends in all.
    pub ends: u32,
    /// Ends in a row without serving for a while.
    failures: u32,
}

impl History {
    /// Notes an end after serving for `served`; says how long to wait.
    pub fn ended(&mut self, served: Duration) -> Duration {
        self.ends = self.ends.saturating_add(1);
        if served >= STABLE {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            return Duration::ZERO;
        }
        let doublings = (self.failures - 2).min(10);
        (FIRST_PAUSE * 2_u32.pow(doublings)).min(MAX_PAUSE)
    }
}

impl Slot {
    /// Starts a process for `role` and sends it its set-up.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        role: Role,
        program: &Path,
        setup: &Setup,
        events: mpsc::UnboundedSender<Event>,
    ) -> io::Result<Self> {
        let (ours, theirs) = platform::fd::socketpair()?;
        let pid = platform::process::spawn(
            program,
            &arguments(role, setup.foreground, setup.switches.verbose),
            &[],
            &[(theirs.as_fd(), PARENT_CHANNEL), (io::stderr().as_fd(), 2)],
            false,
        )?;
        drop(theirs);
        let (link, mut arrivals) = Link::open(ours, PARENT_WINDOW)?;
        let bytes = postcard::to_stdvec(setup).map_err(io::Error::other)?;
        tokio::spawn(send_setup(link.clone(), bytes));
        tokio::spawn(async move {
            while let Some(said) = arrivals.recv().await {
                let _ended = events.send(Event { role, pid, said: Some(said) });
            }
            let _ended = events.send(Event { role, pid, said: None });
        });
        let started = Instant::now();
        Ok(Self { pid, link, confinement: None, started, waiting: Vec::new() })
    }

    /// Tells the role something, once it is ready.
    pub fn tell(&mut self, message: ParentToRole, descriptor: Option<OwnedFd>) {
        if self.confinement.is_none() {
            self.waiting.push((message, descriptor));
            return;
        }
        let link = self.link.clone();
        // The order of several is kept: each takes its credit in turn on this one thread.
        tokio::spawn(async move {
            let _gone = link.notice(&message, descriptor).await;
        });
    }

    /// Notes that the role is ready, and tells it what has waited.
    pub fn ready(&mut self, confinement: String) {
        self.confinement = Some(confinement);
        for (message, descriptor) in std::mem::take(&mut self.waiting) {
            self.tell(message, descriptor);
        }
    }
}

/// The arguments of a process that plays `role`.
#[must_use]
pub fn arguments(role: Role, foreground: bool, verbose: bool) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["smtpd".into(), "-x".into(), role.name().into()];
    if foreground {
        arguments.push("-d".into());
    }
    if verbose {
        arguments.push("-v".into());
    }
    arguments
}

async fn send_setup(link: Link<ParentToRole, RoleToParent>, bytes: Vec<u8>) {
    let count = bytes.len().div_ceil(PIECE).max(1);
    for (index, piece) in bytes.chunks(PIECE).enumerate() {
        let message =
            ParentToRole::Configure { piece: Blob(piece.to_vec()), last: index + 1 == count };
        if link.notice(&message, None).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_at_once_and_the_pause_never_exceeds_two_seconds() {
        let mut history = History::default();
        assert_eq!(history.ended(Duration::ZERO), Duration::ZERO);
        assert_eq!(history.ended(Duration::ZERO), FIRST_PAUSE);
        assert_eq!(history.ended(Duration::ZERO), FIRST_PAUSE * 2);
        for _ in 0..100 {
            assert!(history.ended(Duration::ZERO) <= MAX_PAUSE);
        }
        assert_eq!(history.ended(STABLE), Duration::ZERO);
    }
}
