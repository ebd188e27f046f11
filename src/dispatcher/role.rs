//! The loop of the dispatcher role: what the parent says, and channels that come and go.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use platform::Role;
use tokio::sync::watch;
use tokio::time::Instant;

use super::outbound::Outbound;
use super::shared::Shared;
use super::smtp::listener::{self, Accepting};
use super::tls::Surroundings;
use crate::ipc::link::{Arrived, Link};
use crate::ipc::message::control::{ControlToDispatcher, DispatcherToControl};
use crate::ipc::message::parent::{ParentToRole, Peer, RoleToParent, Setup};
use crate::process::{self, Context, Memory, StartError, Threads};

/// How long what is under way may take when the role leaves.
const FAREWELL: Duration = Duration::from_millis(1500);
/// How long sessions may take to tell their clients that the role leaves.
const TELLING: Duration = Duration::from_millis(200);

/// Requests of the queue dealt with together.
const TOGETHER: usize = 128;

/// Runs the role.
pub fn run() -> ExitCode {
    let prepare = |setup: &Setup| {
        let what = || "cryptography".to_owned();
        Surroundings::read(setup).map_err(|source| StartError::Prepare { what: what(), source })
    };
    process::run(Role::Dispatcher, Threads::Cores, prepare, serve)
}

async fn serve(context: Context, surroundings: Surroundings) {
    context.ready().await;
    let Context { setup, parent, mut orders, memory, .. } = context;
    let paused = setup.switches.smtp_paused;
    let shared = match Shared::new(setup, parent) {
        Ok(shared) => shared,
        Err(error) => {
            tracing::error!("fatal: dispatcher: random numbers: {error}");
            return;
        }
    };
    shared.filters.serve(&shared.parent);
    if let Err(error) = shared.tls.serve(&shared.setup, shared.parent.clone(), surroundings) {
        tracing::error!("warn: dispatcher: no TLS: {error}");
    }
    let dispatcher = Dispatcher {
        outbound: Outbound::new(&shared),
        shared,
        memory: Arc::new(memory),
        accepting: watch::Sender::new(if paused { Accepting::Paused } else { Accepting::Yes }),
    };
    while let Some(order) = orders.recv().await {
        let leave = matches!(order.message, ParentToRole::Shutdown);
        dispatcher.obey(order);
        if leave {
            dispatcher.leave().await;
            return;
        }
    }
}

struct Dispatcher {
    shared: Arc<Shared>,
    outbound: Arc<Outbound>,
    memory: Arc<Memory>,
    accepting: watch::Sender<Accepting>,
}

impl Dispatcher {
    fn obey(&self, order: Arrived<RoleToParent, ParentToRole>) {
        let done = match (order.message, order.descriptor) {
            (ParentToRole::Attach { peer }, Some(descriptor)) => self.attach(peer, descriptor),
            (ParentToRole::Serve { listener }, Some(socket)) => self.listen(listener, socket),
            (ParentToRole::Switch(switches), _) => {
                let wanted = if switches.smtp_paused { Accepting::Paused } else { Accepting::Yes };
                self.accepting.send_if_modified(|now| std::mem::replace(now, wanted) != wanted);
                crate::log::set_verbose(switches.verbose);
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(error) = done {
            tracing::error!("warn: dispatcher: {error}");
        }
    }

    fn listen(&self, index: u32, socket: OwnedFd) -> io::Result<()> {
        let config = &self.shared.setup.config;
        let Some(configured) = config.listeners.get(index as usize) else { return Ok(()) };
        let door = self.shared.tls.door(index as usize);
        listener::serve(&self.shared, configured, door, socket, self.accepting.subscribe())
    }

    fn attach(&self, peer: Peer, descriptor: OwnedFd) -> io::Result<()> {
        let credits = self.shared.setup.credits;
        match peer {
            Peer::Control => {
                let (_, mut arrivals) =
                    Link::<DispatcherToControl, ControlToDispatcher>::open(descriptor, credits)?;
                let shared = Arc::clone(&self.shared);
                let memory = Arc::clone(&self.memory);
                tokio::spawn(async move {
                    while let Some(arrived) = arrivals.recv().await {
                        answer_control(&shared, &memory, arrived);
                    }
                });
            }
            Peer::Keys => {
                let (link, mut arrivals) = Link::open(descriptor, credits)?;
                self.shared.tls.keys.replace(link);
                self.shared.tls.attached();
                // Keys only answers.
                tokio::spawn(async move { while arrivals.recv().await.is_some() {} });
            }
            Peer::Lookup => {
                let (link, mut arrivals) = Link::open(descriptor, credits)?;
                self.shared.lookup.replace(link);
                // Lookup only answers.
                tokio::spawn(async move { while arrivals.recv().await.is_some() {} });
            }
            Peer::Queue => {
                let (link, mut arrivals) = Link::open(descriptor, credits)?;
                self.shared.forget_leases();
                self.shared.queue.replace(link);
                let outbound = Arc::clone(&self.outbound);
                tokio::spawn(async move {
                    let mut together = Vec::with_capacity(TOGETHER);
                    while arrivals.recv_many(&mut together, TOGETHER).await > 0 {
                        outbound.take(together.drain(..));
                    }
                });
            }
            Peer::Dispatcher | Peer::Scheduler => {}
        }
        Ok(())
    }

    /// Stops accepting, tells clients, and gives what is under way a moment to end.
    async fn leave(&self) {
        self.accepting.send_replace(Accepting::Never);
        self.shared.leave();
        let begin = Instant::now();
        let counters = &self.shared.counters;
        while begin.elapsed() < FAREWELL {
            let busy = counters.delivering.load(Ordering::Relaxed)
                + counters.committing.load(Ordering::Relaxed);
            let untold = counters.sessions.load(Ordering::Relaxed);
            if busy == 0 && (untold == 0 || begin.elapsed() >= TELLING) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // What was answered last is still on its way to the queue.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn answer_control(
    shared: &Arc<Shared>,
    memory: &Memory,
    arrived: Arrived<DispatcherToControl, ControlToDispatcher>,
) {
    match (arrived.message, arrived.descriptor) {
        (ControlToDispatcher::Submission, Some(socket)) => {
            if let Err(error) = listener::serve_submission(shared, socket) {
                tracing::warn!("warn: dispatcher: submission: {error}");
            }
        }
        (ControlToDispatcher::Submission, None) => {}
        (ControlToDispatcher::Statistics, _) => {
            let mut counters = shared.counters.list();
            counters.extend(shared.filters.counters());
            let snapshot = memory.snapshot(counters);
            let message = DispatcherToControl::Statistics(snapshot);
            let _gone = arrived.responder.reply(&message, None);
        }
    }
}
