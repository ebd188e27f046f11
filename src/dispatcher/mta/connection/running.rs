//! A session's place in its relay's counts, and the task it has in hand.
//!
//! Whatever ends the session, dropping its [`Running`] settles what it had in hand and lets the
//! relay go on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{PATIENCE, TIMED_OUT};
use crate::dispatcher::mta::directory::{Event, Release};
use crate::dispatcher::mta::log::{DeliveryLine, system_error};
use crate::dispatcher::mta::network::AddressText;
use crate::dispatcher::mta::relay::Plan;
use crate::dispatcher::mta::session::{Class, Verdict};
use crate::dispatcher::mta::shell::{Mta, Post, age, now, outcome};
use crate::dispatcher::mta::task::Task;

/// Longest wait for the server's name, which only logs show.
const NAME_PATIENCE: Duration = Duration::from_secs(2);

/// A session's place in the counts, and the task it has in hand.
pub(super) struct Running {
    pub(super) mta: Mta,
    pub(super) post: Arc<Post>,
    pub(super) plan: Plan,
    /// Destination domain or smart host.
    domain: String,
    /// Number of the session in logs.
    pub(super) id: u64,
    /// Our own address of the connection.
    pub(super) source: Option<IpAddr>,
    /// `IP (name)` of the server.
    pub(super) relay_text: String,
    pub(super) task: Option<Arc<Task>>,
    /// By envelope of the task.
    settled: Vec<bool>,
    /// Outcomes not told yet: they are told when the session has its next task or is known to be
    /// idle, so that whoever sends more mail on hearing them finds it ready.
    outcomes: Vec<Event>,
    was_ready: bool,
    source_failed: bool,
    is_idle: bool,
    leaves_early: bool,
}

impl Running {
    pub(super) fn new(mta: Mta, post: Arc<Post>, plan: Plan, domain: String) -> Self {
        Self {
            mta,
            post,
            plan,
            domain,
            // A number for log lines alone: one that is not random is no harm.
            id: getrandom::u64().unwrap_or(1),
            source: None,
            relay_text: String::new(),
            task: None,
            settled: Vec::new(),
            outcomes: Vec::new(),
            was_ready: false,
            source_failed: false,
            is_idle: false,
            leaves_early: false,
        }
    }

    /// The server's name, or its address when it is not known soon.
    pub(super) async fn server_name(&self, address: IpAddr) -> Arc<str> {
        if let Some(name) = self.mta.known_name(address) {
            return name;
        }
        let answer = timeout(NAME_PATIENCE, self.mta.directory().reverse(address)).await;
        let name = answer.ok().and_then(|reverse| reverse.name);
        let name: Arc<str> = match name {
            Some(name) => name.into(),
            None => AddressText(address).to_string().into(),
        };
        self.mta.keep_name(address, &name);
        name
    }

    pub(super) async fn connect(&mut self, remote: SocketAddr) -> Result<TcpStream, String> {
        let io_error = |error: &io::Error| format!("IO Error: {}", system_error(error));
        let socket = if remote.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(|error| io_error(&error))?;
        if let Some(source) = self.plan.route.source
            && let Err(error) = socket.bind(SocketAddr::new(source, 0))
        {
            return Err(self.source_error(&error));
        }
        match timeout(PATIENCE, socket.connect(remote)).await {
            Err(_) => Err(TIMED_OUT.to_owned()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                Err(self.source_error(&error))
            }
            Ok(Err(error)) => Err(io_error(&error)),
            Ok(Ok(stream)) => {
                // Without it every message may wait 40 ms for a delayed acknowledgement.
                stream.set_nodelay(true).map_err(|error| io_error(&error))?;
                Ok(stream)
            }
        }
    }

    fn source_error(&mut self, error: &io::Error) -> String {
        self.source_failed = true;
        let name = self.mta.known_name(self.plan.route.remote.ip());
        let (route, reason) = (self.plan.route.named(name.as_deref()), system_error(error));
        tracing::info!("smtp-out: Error on {route}: {reason}");
        format!("IO Error: {reason}")
    }

    /// The session is ready for mail; true for the first time.
    pub(super) fn ready(&mut self) -> bool {
        // Settled by now: an idle session holds no message.
        self.task = None;
        self.settled.clear();
        let is_first = !std::mem::replace(&mut self.was_ready, true);
        if is_first {
            self.mta.state().network.prove(self.plan.route);
        }
        is_first
    }

    pub(super) fn tell_outcomes(&mut self) {
        for event in self.outcomes.drain(..) {
            self.mta.tell(event);
        }
    }

    /// The next task of the relay, if one waits.
    pub(super) fn take(&mut self) -> Option<Arc<Task>> {
        let taken = self.post.lock().take();
        self.hold(taken)
    }

    /// The next task of the relay; if none waits, the session counts as idle.
    pub(super) fn take_or_wait(&mut self) -> Option<Arc<Task>> {
        let taken = {
            let mut relay = self.post.lock();
            let taken = relay.take();
            if taken.is_none() {
                relay.session_waits();
                self.is_idle = true;
            }
            taken
        };
        self.tell_outcomes();
        self.hold(taken)
    }

    /// Takes a task in hand, and passes on what its leaving the relay brought about.
    fn hold(&mut self, taken: Option<(Task, Option<Event>)>) -> Option<Arc<Task>> {
        let (task, event) = taken?;
        if let Some(event) = event {
            if matches!(event, Event::Released { release: Release::Count(_), .. }) {
                let relay = self.post.lock().key.to_string();
                tracing::info!("smtp-out: back to lowat on {relay}: releasing");
            }
            self.mta.tell(event);
        }
        self.settled = vec![false; task.envelopes.len()];
        let task = Arc::new(task);
        self.task = Some(Arc::clone(&task));
        Some(task)
    }

    pub(super) fn wake(&mut self) {
        if std::mem::take(&mut self.is_idle) {
            self.post.lock().session_wakes();
        }
    }

    /// Whether an idle session is no longer needed; if so nobody counts on it from now on.
    pub(super) fn leaves(&mut self, idle_for: Duration, keepalive: Duration) -> bool {
        let mut relay = self.post.lock();
        if relay.waiting() > 0 {
            return false;
        }
        self.leaves_early = relay.may_leave_early();
        if !self.leaves_early && idle_for < keepalive {
            return false;
        }
        relay.session_wakes();
        self.is_idle = false;
        true
    }

    pub(super) fn settle(&mut self, index: usize, verdict: &Verdict) {
        let Some(task) = self.task.clone() else { return };
        let Some(envelope) = task.envelopes.get(index) else { return };
        match self.settled.get_mut(index) {
            Some(settled) if !*settled => *settled = true,
            _ => return,
        }
        let line = DeliveryLine {
            session: self.id,
            envelope,
            source: self.source,
            relay: &self.relay_text,
            delay: age(envelope),
            verdict,
        };
        tracing::info!("{line}");
        match verdict.class {
            Class::Ok { .. } => self.mta.accepted(&self.domain),
            Class::TempFail { not_tried: true } => self.mta.remember(&self.domain, envelope),
            Class::NotAscii | Class::PermFail | Class::TempFail { not_tried: false } => {}
        }
        let event = Event::Settled { envelope: envelope.id, outcome: outcome(verdict) };
        self.outcomes.push(event);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.wake();
        let aborted = Verdict::temporary("Session ended unexpectedly");
        for index in 0..self.settled.len() {
            self.settle(index, &aborted);
        }
        self.tell_outcomes();
        {
            let mut relay = self.post.lock();
            if self.source_failed {
                relay.source_failed(&self.plan);
            }
            if self.leaves_early {
                relay.has_left();
            }
            let mut state = self.mta.state();
            relay.session_ended(&self.plan, &mut state.network, now());
        }
        // When the runtime itself ends, nothing can follow.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if !self.was_ready && !self.source_failed {
            self.mta.disable(self.plan.route);
        }
        self.mta.session_ended();
        self.mta.advance(&self.post);
    }
}
