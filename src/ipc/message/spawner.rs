//! Between parent and spawner, and between spawner and worker.

use serde::{Deserialize, Serialize};

use super::worker::Identity;
use crate::ipc::seal::Key;

/// An account of this system, as far as deliveries need it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

/// The three answers of a user look-up. A failed one is always temporary.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum UserAnswer {
    /// The look-up itself failed, for this reason.
    Failed(String),
    /// There is such a user.
    Found(Account),
    /// There is none.
    NotFound,
}

/// What the parent orders.
#[derive(Debug, Deserialize, Serialize)]
pub enum ParentToSpawner {
    /// How to set up workers (notice, the first one).
    Setup(SpawnerSetup),
    /// What a filter program that was started writes, once for each start (request; answered by
    /// [`SpawnerToParent::FilterStream`]).
    FilterStream {
        /// Number of the program.
        process: u32,
        /// Which of its streams.
        stream: FilterStream,
    },
    /// Look up a user (request; answered by [`SpawnerToParent::User`]).
    LookUpUser {
        /// Name of the account.
        name: String,
    },
    /// Start an auth worker (request, carries a descriptor: its channel to lookup; answered by
    /// [`SpawnerToParent::Started`]).
    StartAuthWorker,
    /// Start a filter program, in place of an earlier one (request, carries a descriptor: its
    /// standard input; answered by [`SpawnerToParent::FilterStarted`]).
    StartFilter(FilterOrder),
    /// Start the program of a table, in place of an earlier one (request, carries a descriptor: its
    /// standard input and output; answered by [`SpawnerToParent::Started`]).
    StartTableProgram(ProgramOrder),
    /// Answer to [`SpawnerToParent::LookUpIn`].
    User(UserAnswer),
    /// Start a reader (request, carries a descriptor: its channel to lookup; answered by
    /// [`SpawnerToParent::Started`]).
    StartReader(ReaderOrder),
    /// Start a worker (request, carries a descriptor: its channel to the dispatcher; answered by
    /// [`SpawnerToParent::Started`]).
    StartWorker(WorkerOrder),
    /// Submit what was kept while the server was down (request; answered by
    /// [`SpawnerToParent::Submitted`] when all was tried).
    SubmitOffline(OfflineOrder),
}

/// What holds for all workers of a spawner.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SpawnerSetup {
    /// The daemon's own account, for look-ups and root's mailbox; `None` when rootless.
    pub daemon: Option<Account>,
    /// Directory of mailboxes.
    pub mailboxes: String,
    /// Directory of helper programs.
    pub libexec: String,
    /// Name of this server, for file names in Maildirs and LHLO.
    pub server_name: String,
    /// Started by an ordinary user: no change of ids.
    pub rootless: bool,
}

/// A table program to start.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ProgramOrder {
    /// Name of the table.
    pub table: String,
    /// What follows `table-` in the name of the program; without a slash.
    pub backend: String,
    /// Its argument.
    pub parameter: Option<String>,
}

/// A filter program to start.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FilterOrder {
    /// Number of the program.
    pub process: u32,
    /// The command line; one that does not begin with a slash is in the directory of helper
    /// programs.
    pub command: String,
    /// The account whose ids it takes; `None` when rootless.
    pub account: Option<Account>,
    /// Its only group, instead of the account's.
    pub group: Option<u32>,
    /// Its root directory.
    pub root: Option<String>,
}

/// A worker to start.
#[derive(Debug, Deserialize, Serialize)]
pub struct WorkerOrder {
    /// For whom it works.
    pub identity: Identity,
    /// The account whose ids it takes.
    pub account: Account,
    /// Key of the seals on its jobs.
    pub key: Key,
}

/// A reader to start.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReaderOrder {
    /// The account whose ids it takes.
    pub account: Account,
    /// Whether it reads lists; one that does not reads `.forward` files alone.
    pub lists: bool,
}

/// Messages to submit.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct OfflineOrder {
    /// The directory they are in.
    pub directory: String,
    /// Value of `--state`, if the daemon has that option.
    pub state: Option<String>,
}

/// What a filter program writes to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum FilterStream {
    /// Its standard error.
    Errors,
    /// Its standard output.
    Output,
}

/// What the spawner reports.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum SpawnerToParent {
    /// Answer to [`ParentToSpawner::FilterStream`]; carries a descriptor if it went well: the end to
    /// read from.
    FilterStream {
        /// Why it is not there.
        error: Option<String>,
    },
    /// Answer to [`ParentToSpawner::StartFilter`].
    FilterStarted {
        /// Why it could not be started.
        error: Option<String>,
        /// How its predecessor ended by itself, in words.
        ended: Option<String>,
    },
    /// Look up an entry of a userbase (request; answered by [`ParentToSpawner::User`]).
    LookUpIn {
        /// Name of the table.
        userbase: String,
        /// Name of the user in it.
        name: String,
    },
    /// Answer to [`ParentToSpawner::StartAuthWorker`], [`ParentToSpawner::StartReader`],
    /// [`ParentToSpawner::StartTableProgram`] and [`ParentToSpawner::StartWorker`].
    Started {
        /// Why it could not be started.
        error: Option<String>,
    },
    /// Answer to [`ParentToSpawner::SubmitOffline`].
    Submitted {
        /// Why files may be left that were not tried.
        error: Option<String>,
    },
    /// Answer to [`ParentToSpawner::LookUpUser`].
    User(UserAnswer),
}

/// What the spawner tells a worker on its control channel.
#[derive(Debug, Deserialize, Serialize)]
pub enum SpawnerToWorker {
    /// Who the worker is (notice, the first one).
    Begin {
        /// What holds for all workers.
        setup: SpawnerSetup,
        /// Its duty.
        duty: Box<Duty>,
    },
    /// Look up a user (request to a worker with [`Duty::Users`]; answered by
    /// [`WorkerToSpawner::User`]).
    LookUpUser {
        /// Name of the account.
        name: String,
    },
    /// Answer to [`WorkerToSpawner::OpenMailbox`]; carries a descriptor if it went well: a socket
    /// on which the mailbox's descriptor comes, and whose closing releases the mailbox's lock.
    Mailbox {
        /// Why it could not be opened; temporary unless the user has no mailbox to have.
        error: Option<String>,
    },
    /// Answer to [`WorkerToSpawner::LookUpUser`].
    User(UserAnswer),
}

/// What a worker is for.
#[derive(Debug, Deserialize, Serialize)]
pub enum Duty {
    /// Checking one password for lookup, the channel to which is its second descriptor.
    Authenticate,
    /// Local deliveries of one identity; the channel to the dispatcher is its second descriptor.
    Deliver(WorkerOrder),
    /// Reading `.forward` files and included lists for lookup, the channel to which is its second
    /// descriptor.
    Read(ReaderOrder),
    /// Submitting what was kept while the server was down, each file under its owner.
    Submit(OfflineOrder),
    /// User look-ups, under the daemon's own user.
    Users,
}

/// What a worker asks or answers on its control channel.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub enum WorkerToSpawner {
    /// Look up the user of a job (request; answered by [`SpawnerToWorker::User`]).
    LookUpUser {
        /// Name of the account.
        name: String,
        /// The table that has it; `None` for the accounts of the system.
        userbase: Option<String>,
    },
    /// Open and lock the system mailbox of the worker's own identity (request; answered by
    /// [`SpawnerToWorker::Mailbox`]).
    OpenMailbox,
    /// Answer to [`SpawnerToWorker::LookUpUser`].
    User(UserAnswer),
}
