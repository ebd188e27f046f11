//! How a role begins: its channel to the parent, its set-up, its confinement, its runtime.
//!
//! The parent starts `smtpd -x ROLE` with the channel on descriptor 3. The role reads its set-up,
//! opens what it may not open later, confines itself in the order of [`confine`], and only then
//! starts threads and serves. It leaves when the channel to the parent closes.

mod confine;

pub use confine::{DAEMON_USER, QUEUE_USER};

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use platform::Role;
use platform::process::{Signal, ignore_signals};
use tokio::sync::mpsc;

use crate::ipc::blocking::{Channel, ChannelError};
use crate::ipc::link::{Arrived, Link};
use crate::ipc::message::parent::{ParentToRole, RoleToParent, Setup};
use crate::ipc::message::statistics::Snapshot;
use crate::log;

/// Number of the descriptor of the channel to the process that started this one.
pub const PARENT_CHANNEL: i32 = 3;
/// Number of a worker's channel to the dispatcher.
pub const JOB_CHANNEL: i32 = 4;
/// Credits of each direction of the channel to the parent.
pub const PARENT_WINDOW: u32 = 256;
/// How often refused calls are looked for.
const REFUSALS: Duration = Duration::from_secs(10);
/// Longest serialised set-up, in bytes.
const MAX_SETUP: usize = 256 * 1024 * 1024;

/// The channel to the parent, as a role has it.
pub type ParentLink = Link<RoleToParent, ParentToRole>;
/// What the parent says.
pub type Orders = mpsc::UnboundedReceiver<Arrived<RoleToParent, ParentToRole>>;

/// Why a role could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The parent is gone or talks nonsense.
    #[error("channel to the parent: {0}")]
    Channel(#[from] ChannelError),
    /// A right could not be given up.
    #[error("cannot confine {role}: {step}: {source}")]
    Confine {
        /// The role.
        role: &'static str,
        /// What was tried.
        step: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// What the role needs could not be opened.
    #[error("{what}: {source}")]
    Prepare {
        /// What it needs.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// The set-up does not decode.
    #[error("the set-up does not decode")]
    Setup,
}

/// What a role has when it begins to serve.
#[derive(Debug)]
pub struct Context {
    /// What the parent told it.
    pub setup: Setup,
    /// The channel to the parent.
    pub parent: ParentLink,
    /// What the parent says from now on.
    pub orders: Orders,
    /// Reads the memory of this process.
    pub memory: Memory,
    /// How the process is confined, in words.
    confinement: String,
}

impl Context {
    /// Tells the parent that the role serves: from now on it is told what to serve.
    pub async fn ready(&self) {
        let ready = RoleToParent::Ready { confinement: self.confinement.clone() };
        // A parent that is gone is noticed by the end of `orders`.
        let _gone = self.parent.notice(&ready, None).await;
    }
}

/// Reads the memory of this process, where the system tells.
#[derive(Debug)]
pub struct Memory(Option<platform::memory::MemoryProbe>);

impl Memory {
    /// Opens what is read later; to be called before the process is confined.
    #[must_use]
    pub fn open() -> Self {
        Self(platform::memory::MemoryProbe::open().ok())
    }

    /// The counters given, with the memory of this process.
    #[must_use]
    pub fn snapshot(&self, counters: Vec<(String, i64)>) -> Snapshot {
        let memory = self.0.as_ref().and_then(|probe| probe.read().ok());
        Snapshot { counters, memory: memory.map_or(0, |memory| memory.pss_bytes) }
    }
}

/// How many threads a role's runtime has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Threads {
    /// As many as there are cores.
    Cores,
    /// One.
    One,
}

/// Runs a role to its end.
///
/// `prepare` opens what the role may not open once it is confined; `serve` is the role, which says
/// with [`Context::ready`] when it serves.
pub fn run<P, F>(
    role: Role,
    threads: Threads,
    prepare: impl FnOnce(&Setup) -> Result<P, StartError>,
    serve: impl FnOnce(Context, P) -> F,
) -> ExitCode
where
    F: Future<Output = ()>,
{
    match begin(role, threads, prepare, serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Channel(ChannelError::Closed)) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("fatal: {}: {error}", role.name());
            ExitCode::FAILURE
        }
    }
}

fn begin<P, F>(
    role: Role,
    threads: Threads,
    prepare: impl FnOnce(&Setup) -> Result<P, StartError>,
    serve: impl FnOnce(Context, P) -> F,
) -> Result<(), StartError>
where
    F: Future<Output = ()>,
{
    // A terminal and service managers send them to everyone. They are for the parent, which ends the
    // roles in order; a role leaves when its channel closes.
    ignore_signals(&[Signal::HangUp, Signal::Interrupt, Signal::Terminate])
        .map_err(|source| StartError::Prepare { what: "signals".to_owned(), source })?;
    let descriptor = inherited(PARENT_CHANNEL)?;
    let setup = read_setup(&descriptor)?;
    log::set_verbose(setup.switches.verbose);
    // The zone is a file: it is read once, here.
    let _zone = crate::time::local_zone();
    let memory = Memory::open();
    let prepared = prepare(&setup)?;
    // Counting cores reads files.
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let confinement = confine::confine(role, &setup)?;

    let mut builder = match threads {
        Threads::Cores => tokio::runtime::Builder::new_multi_thread(),
        Threads::One => tokio::runtime::Builder::new_current_thread(),
    };
    builder.worker_threads(cores);
    let runtime = builder
        .enable_all()
        .thread_name(role.name())
        .build()
        .map_err(|source| StartError::Prepare { what: "runtime".to_owned(), source })?;
    runtime.block_on(async {
        let (parent, orders) = Link::open(descriptor, PARENT_WINDOW)
            .map_err(|source| StartError::Prepare { what: "channel".to_owned(), source })?;
        tokio::spawn(report_refusals(role));
        serve(Context { setup, parent, orders, memory, confinement }, prepared).await;
        Ok(())
    })
}

/// Says when the confinement has refused calls: a mistake of ours, or an attack.
async fn report_refusals(role: Role) {
    let mut known = 0;
    loop {
        tokio::time::sleep(REFUSALS).await;
        let denied = platform::sandbox::denied();
        if denied.count > known {
            known = denied.count;
            let call = denied.latest_call.unwrap_or_default();
            tracing::warn!("warn: {}: {known} calls refused, the last one {call}", role.name());
        }
    }
}

/// The descriptor that was handed down under this number.
///
/// # Errors
/// It is not open.
pub fn inherited(number: i32) -> Result<OwnedFd, StartError> {
    platform::fd::inherited(number)
        .map_err(|source| StartError::Prepare { what: format!("descriptor {number}"), source })
}

/// Reads the set-up, which comes in pieces, before there is a runtime.
fn read_setup(descriptor: &OwnedFd) -> Result<Setup, StartError> {
    let copy = descriptor.as_fd().try_clone_to_owned();
    let copy = copy.map_err(|source| StartError::Prepare { what: "channel".to_owned(), source })?;
    let mut channel = Channel::<RoleToParent, ParentToRole>::new(copy)
        .map_err(|source| StartError::Prepare { what: "channel".to_owned(), source })?;
    let mut bytes = Vec::new();
    loop {
        let Some(ParentToRole::Configure { piece, last }) = channel.receive()?.message else {
            return Err(StartError::Setup);
        };
        channel.credit(1);
        bytes.extend_from_slice(&piece.0);
        if bytes.len() > MAX_SETUP {
            return Err(StartError::Setup);
        }
        if last {
            channel.drain()?;
            return postcard::from_bytes(&bytes).map_err(|_| StartError::Setup);
        }
    }
}
