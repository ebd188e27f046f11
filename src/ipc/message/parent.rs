//! Between parent and every role but the spawner.
//!
//! All roles share the two enums; [`RoleToParent::allowed_from`] is the table of who may say what.

use platform::Role;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::reader::Reads;
use super::spawner::{FilterStream, UserAnswer};
use super::statistics::Snapshot;
use super::worker::Identity;
use crate::ipc::blob::Blob;
use crate::ipc::seal::{Key, Sealed};
use crate::model::EnvelopeId;

/// Envelopes of one [`RoleToParent::InFlight`] at most: an id takes up to 10 bytes of a frame.
pub const MAX_IN_FLIGHT_TOLD: usize = 6000;

/// What the parent says to a role.
#[derive(Debug, Deserialize, Serialize)]
pub enum ParentToRole {
    /// A channel to a neighbour, in place of an earlier one (notice, carries a descriptor).
    Attach {
        /// The neighbour.
        peer: Peer,
    },
    /// Answer to [`RoleToParent::Administer`].
    Administered {
        /// Whether it was done; not, if it was so already.
        done: bool,
    },
    /// Answer to [`RoleToParent::StartAuthWorker`]; carries a descriptor, the channel to the worker,
    /// if it went well.
    AuthWorker {
        /// Why there is none; temporary.
        error: Option<String>,
    },
    /// A piece of the serialised [`Setup`], the last one marked (notice).
    Configure {
        /// The bytes.
        piece: Blob,
        /// Whether the set-up is complete with this piece.
        last: bool,
    },
    /// Answer to [`RoleToParent::OpenFile`]; carries a descriptor, open for reading, if it went
    /// well.
    File {
        /// Why it could not be opened.
        error: Option<String>,
    },
    /// Answer to [`RoleToParent::OpenMap`]; carries a descriptor if it was opened.
    Map(MapAnswer),
    /// Answer to [`RoleToParent::StartFilter`]; carries a descriptor, the program's standard input, if
    /// it went well.
    Filter {
        /// Why it could not be started.
        error: Option<String>,
        /// How its predecessor ended by itself, in words.
        ended: Option<String>,
    },
    /// Answer to [`RoleToParent::FilterStream`]; carries a descriptor if it went well: the end to
    /// read from.
    FilterStream {
        /// Why it is not there.
        error: Option<String>,
    },
    /// Look up an entry of a userbase (request to lookup; answered by [`RoleToParent::Entry`]).
    LookUpIn {
        /// Name of the table.
        userbase: String,
        /// Name of the user in it.
        name: String,
    },
    /// Answer to [`RoleToParent::InFlight`].
    Noted,
    /// Answer to [`RoleToParent::OpenPki`]; carries a descriptor if it was opened.
    Pki(MapAnswer),
    /// Answer to [`RoleToParent::StartReader`]; carries a descriptor, the channel to the reader, if it
    /// went well.
    Reader {
        /// Why there is none; temporary.
        error: Option<String>,
    },
    /// A socket to serve (notice, carries a descriptor): for the dispatcher a listener of its
    /// configuration, for control its socket.
    Serve {
        /// Index into the configuration's listeners.
        listener: u32,
    },
    /// Answer to [`RoleToParent::StartTableProgram`]; carries a descriptor, the channel to the
    /// program, if it went well.
    TableProgram {
        /// Why it could not be started.
        error: Option<String>,
    },
    /// Counters and switches (reply to [`RoleToParent::Status`]).
    Status(Status),
    /// What an administrator switched (notice).
    Switch(Switches),
    /// Stop taking work, finish what runs, leave (notice).
    Shutdown,
    /// Answer to [`RoleToParent::LookUpUser`].
    User(UserAnswer),
    /// Answer to [`RoleToParent::StartWorker`]; carries a descriptor, the channel to the worker, if
    /// it went well.
    Worker(Result<(), WorkerFailure>),
}

/// What became of a request to open a map file, or one of keys and certificates.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum MapAnswer {
    /// It could not be opened, in words.
    Failed(String),
    /// It is open.
    Opened(FileVersion),
    /// It is the one that is open already.
    Same,
}

/// What tells a file from one that takes its place, and from itself after it was changed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FileVersion {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// Length in bytes.
    pub length: u64,
    /// When it was changed: seconds since 1970, nanoseconds.
    pub modified: (i64, i64),
}

/// A file that a `pki` or `ca` statement names.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum PkiFile {
    /// The certificates of the authority with this index: dispatcher.
    Authority(u32),
    /// The certificates of the `pki` with this index: dispatcher.
    Certificate(u32),
    /// The private key of the `pki` with this index: keys alone.
    Key(u32),
}

/// Another role, as seen by one that gets a channel to it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Peer {
    /// `control`
    Control,
    /// `dispatcher`
    Dispatcher,
    /// `keys`
    Keys,
    /// `lookup`
    Lookup,
    /// `queue`
    Queue,
    /// `scheduler`
    Scheduler,
}

/// What a role is told before it is confined and serves.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Setup {
    /// The configuration.
    pub config: crate::config::Config,
    /// Its generation: 1 at start, one more with each reload.
    pub generation: u64,
    /// Name of this server.
    pub server_name: String,
    /// Logs go to standard error.
    pub foreground: bool,
    /// Started by an ordinary user: nothing is chrooted, ids stay.
    pub rootless: bool,
    /// The account that runs commands and writes files of aliases: the daemon's own, or whoever
    /// started a rootless daemon.
    pub daemon_user: String,
    /// Helper programs that deliveries run in place of what the worker does itself.
    pub overridden: Vec<String>,
    /// The keys of seals that the role may know.
    pub keys: RoleKeys,
    /// What an administrator switched.
    pub switches: Switches,
    /// How many descriptors the process may have.
    pub descriptors: u64,
    /// Path of the spool: the root directory of the queue.
    pub spool: String,
    /// Path of an empty directory: the root of the others.
    pub empty: String,
    /// Path of the control socket: where filters are told that local sessions come from.
    pub control_socket: String,
    /// Credits of each direction between two roles; fewer only in tests.
    pub credits: u32,
    /// Name servers to ask, instead of the system's; for tests and containers.
    pub resolvers: Vec<std::net::SocketAddr>,
    /// Envelopes that may be what took an earlier set of roles down: queue.
    pub suspects: SuspectLists,
}

/// Envelopes that were in flight when dispatcher or queue crashed, in the order of their ids.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct SuspectLists {
    /// To be tried one at a time.
    pub tried: Vec<EnvelopeId>,
    /// Not to be tried until an administrator says so.
    pub held: Vec<EnvelopeId>,
}

/// The keys of seals; a role has those that it needs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct RoleKeys {
    /// Seals routes: lookup and queue.
    pub route: Option<Key>,
    /// Seals jobs: queue.
    pub job: Option<Key>,
    /// Signs the senders of forwarded mail: lookup.
    pub srs: Option<SrsKeys>,
}

/// What signs the senders of forwarded mail. Wiped when dropped, never printed.
#[derive(Clone, Deserialize, Serialize)]
pub struct SrsKeys {
    /// `srs key`
    pub key: Zeroizing<String>,
    /// `srs key backup`: what it signed is still believed.
    pub backup: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for SrsKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SrsKeys(…)")
    }
}

/// What an administrator switched. Survives the end of every role.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Switches {
    /// No local deliveries.
    pub mda_paused: bool,
    /// No relaying.
    pub mta_paused: bool,
    /// No new sessions.
    pub smtp_paused: bool,
    /// Logging of debug messages.
    pub verbose: bool,
}

/// What an administrator may ask the parent.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Administration {
    /// Pause local deliveries, or resume them.
    Mda {
        /// Pause.
        paused: bool,
    },
    /// Pause relaying, or resume it.
    Mta {
        /// Pause.
        paused: bool,
    },
    /// Pause accepting, or resume it.
    Smtp {
        /// Pause.
        paused: bool,
    },
    /// Read the configuration again; answered when it is in use, or was refused.
    Reload,
    /// End the daemon.
    Stop,
    /// Log debug messages, or stop it.
    Verbose {
        /// Log them.
        on: bool,
    },
}

/// What the parent knows about the whole.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// What an administrator switched.
    pub switches: Switches,
    /// Seconds since the start.
    pub uptime: u64,
    /// How each role is confined, by name.
    pub confinement: Vec<(String, String)>,
    /// How often each role ended unexpectedly, by name.
    pub restarts: Vec<(String, u32)>,
    /// Memory of the parent itself, and its counters.
    pub snapshot: Snapshot,
    /// Whether any role has reported a damaged or full spool, in words.
    pub troubles: Vec<String>,
}

/// Why a worker was not started.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct WorkerFailure {
    /// Whether it is worth to try again.
    pub temporary: bool,
    /// What went wrong, for the status of the delivery.
    pub text: String,
    /// Enhanced status: subject and detail.
    pub detail: (u8, u16),
}

/// What a role says to the parent.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum RoleToParent {
    /// An administrator's order (request; answered by [`ParentToRole::Administered`]).
    Administer(Administration),
    /// Attempts at these suspects of [`Setup::suspects`] have ended, or they are gone (notice).
    Cleared(Vec<EnvelopeId>),
    /// Answer to [`ParentToRole::LookUpIn`].
    Entry(UserAnswer),
    /// What a filter program that was started writes, once for each start (request; answered by
    /// [`ParentToRole::FilterStream`]).
    FilterStream {
        /// Index of the process in the configuration.
        process: u32,
        /// Which of its streams.
        stream: FilterStream,
    },
    /// What is in flight, in the place of what was told before: at most ten times a second, and at
    /// most [`MAX_IN_FLIGHT_TOLD`] of it (request; answered by [`ParentToRole::Noted`]).
    InFlight(Vec<EnvelopeId>),
    /// Look up a user (request; answered by [`ParentToRole::User`]).
    LookUpUser {
        /// Name of the account.
        name: String,
    },
    /// Open the file of a table (request; answered by [`ParentToRole::File`]).
    OpenFile {
        /// Index of the table in the configuration.
        table: u32,
        /// It has been read before: then only what the daemon's own user may read is opened.
        update: bool,
    },
    /// Open the map file of a table (request; answered by [`ParentToRole::Map`]).
    OpenMap {
        /// Index of the table in the configuration.
        table: u32,
        /// The file that is open already.
        known: Option<FileVersion>,
    },
    /// Open a file of keys or certificates (request; answered by [`ParentToRole::Pki`]).
    OpenPki {
        /// Which one.
        file: PkiFile,
        /// The file that was read last.
        known: Option<FileVersion>,
    },
    /// Ready to serve (notice).
    Ready {
        /// How the process is confined, in words.
        confinement: String,
    },
    /// Start an auth worker (request; answered by [`ParentToRole::AuthWorker`]). The parent learns
    /// nothing of what it checks.
    StartAuthWorker,
    /// Start a filter program, in place of an earlier one (request; answered by
    /// [`ParentToRole::Filter`]).
    StartFilter {
        /// Index of the process in the configuration.
        process: u32,
    },
    /// Start the program of a table, in place of an earlier one (request; answered by
    /// [`ParentToRole::TableProgram`]).
    StartTableProgram {
        /// Index of the table in the configuration.
        table: u32,
    },
    /// Start a reader (request; answered by [`ParentToRole::Reader`]).
    StartReader(Reads),
    /// Start a worker for a job (request; answered by [`ParentToRole::Worker`]).
    StartWorker {
        /// For whom.
        identity: Identity,
        /// A job of this identity, as sealed by the queue: the proof that there is one.
        ticket: Sealed,
    },
    /// What the parent knows (request; answered by [`ParentToRole::Status`]).
    Status,
    /// Something that the administrator should see in the status (notice).
    Trouble {
        /// In words; empty when it is over.
        text: String,
    },
}

impl RoleToParent {
    /// Whether `role` may say this. Anything else ends its channel.
    #[must_use]
    pub fn allowed_from(&self, role: Role) -> bool {
        match self {
            Self::Administer(_) | Self::Status => role == Role::Control,
            Self::LookUpUser { .. }
            | Self::OpenFile { .. }
            | Self::OpenMap { .. }
            | Self::StartAuthWorker
            | Self::StartReader(_)
            | Self::StartTableProgram { .. } => role == Role::Lookup,
            Self::OpenPki { file: PkiFile::Key(_), .. } => role == Role::Keys,
            Self::FilterStream { .. } | Self::OpenPki { .. } | Self::StartFilter { .. } => {
                role == Role::Dispatcher
            }
            // Never of its own accord.
            Self::Entry(_) => false,
            Self::Ready { .. } => true,
            Self::StartWorker { .. } => role == Role::Dispatcher,
            Self::Cleared(_) | Self::InFlight(_) | Self::Trouble { .. } => role == Role::Queue,
        }
    }
}
