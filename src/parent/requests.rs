//! What roles may ask of the parent: opening configured files, looking up users, starting workers,
//! auth workers, readers, table programs and filters.
//!
//! None of it may hang: files are opened non-blocking, users and processes are the spawner's business.

mod filters;

pub use filters::FilterGroups;
use filters::FilterStarts;

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::pki;
use super::prepare::Prepared;
use crate::config::{Action, ActionKind, Config, TableId, TableSource};
use crate::ipc::link::Responder;
use crate::ipc::message::parent::{
    FileVersion, MapAnswer, ParentToRole, RoleToParent, WorkerFailure,
};
use crate::ipc::message::reader::Reads;
use crate::ipc::message::spawner::{
    Account, OfflineOrder, ParentToSpawner, ProgramOrder, ReaderOrder, SpawnerSetup,
    SpawnerToParent, UserAnswer, WorkerOrder,
};
use crate::ipc::message::worker::{Identity, JobRecord, identity_key};
use crate::ipc::neighbour::Neighbour;
use crate::ipc::seal::{Key, Sealed};

/// How long after the start messages are submitted that were kept while the server was down.
const BEFORE_OFFLINE: Duration = Duration::from_secs(1);

/// How to answer a role.
type Answer = Responder<ParentToRole, RoleToParent>;

/// What the parent needs to answer roles.
#[derive(Clone, Debug)]
pub struct Offices {
    /// The spawner, whichever process it is now.
    pub spawner: Neighbour<ParentToSpawner, SpawnerToParent>,
    /// Lookup, whichever process it is now.
    pub lookup: Neighbour<ParentToRole, RoleToParent>,
    config: Arc<Config>,
    job_key: Key,
    setup: SpawnerSetup,
    filter_groups: FilterGroups,
    filter_starts: FilterStarts,
    /// Where the daemon was started.
    directory: PathBuf,
}

impl Offices {
    /// Answers for the configuration that was prepared.
    pub fn new(prepared: &Prepared) -> Self {
        Self {
            spawner: Neighbour::default(),
            lookup: Neighbour::default(),
            config: Arc::clone(&prepared.config),
            job_key: prepared.job_key.clone(),
            setup: prepared.spawner_setup.clone(),
            filter_groups: prepared.filter_groups.clone(),
            filter_starts: FilterStarts::default(),
            directory: prepared.directory.clone(),
        }
    }

    /// Answers for this configuration from now on; whether it is another one than before.
    pub fn adopt(&mut self, prepared: &Prepared) -> bool {
        let another = !Arc::ptr_eq(&self.config, &prepared.config);
        self.config = Arc::clone(&prepared.config);
        self.setup = prepared.spawner_setup.clone();
        self.filter_groups = prepared.filter_groups.clone();
        another
    }

    /// Answers one request, in a task of its own if it takes time.
    pub fn answer(&self, request: RoleToParent, responder: Answer) {
        let offices = self.clone();
        tokio::spawn(async move {
            let (answer, descriptor) = match request {
                RoleToParent::OpenFile { table, update } => {
                    match offices.open_table(table, update) {
                        Ok(file) => (ParentToRole::File { error: None }, Some(file)),
                        Err(error) => (ParentToRole::File { error: Some(error.to_string()) }, None),
                    }
                }
                RoleToParent::OpenMap { table, known } => {
                    let (answer, file) = offices.open_map(table, known);
                    (ParentToRole::Map(answer), file)
                }
                RoleToParent::OpenPki { file, known } => {
                    let rootless = offices.setup.rootless;
                    let Offices { config, directory, .. } = &offices;
                    let (answer, file) = pki::open(config, directory, file, known, rootless);
                    (ParentToRole::Pki(answer), file)
                }
                RoleToParent::LookUpUser { name } => {
                    (ParentToRole::User(offices.look_up(name).await), None)
                }
                RoleToParent::FilterStream { process, stream } => {
                    match offices.filter_stream(process, stream).await {
                        Ok(end) => (ParentToRole::FilterStream { error: None }, Some(end)),
                        Err(error) => (ParentToRole::FilterStream { error: Some(error) }, None),
                    }
                }
                RoleToParent::StartFilter { process } => offices.start_filter(process).await,
                RoleToParent::StartTableProgram { table } => {
                    match offices.start_table_program(table).await {
                        Ok(channel) => (ParentToRole::TableProgram { error: None }, Some(channel)),
                        Err(error) => (ParentToRole::TableProgram { error: Some(error) }, None),
                    }
                }
                RoleToParent::StartAuthWorker => {
                    match offices.start(ParentToSpawner::StartAuthWorker).await {
                        Ok(channel) => (ParentToRole::AuthWorker { error: None }, Some(channel)),
                        Err(error) => (ParentToRole::AuthWorker { error: Some(error) }, None),
                    }
                }
                RoleToParent::StartReader(reads) => match offices.start_reader(reads).await {
                    Ok(channel) => (ParentToRole::Reader { error: None }, Some(channel)),
                    Err(error) => (ParentToRole::Reader { error: Some(error) }, None),
                },
                RoleToParent::StartWorker { identity, ticket } => {
                    match offices.start_worker(identity, &ticket).await {
                        Ok(channel) => (ParentToRole::Worker(Ok(())), Some(channel)),
                        Err(failure) => (ParentToRole::Worker(Err(failure)), None),
                    }
                }
                // The others are answered where they arrive.
                _ => return,
            };
            // A role that is gone does not wait.
            let _gone = responder.reply(&answer, descriptor);
        });
    }

    /// Opens the file of a table for the lookup role, which has no paths.
    ///
    /// At the start everything is read with the parent's rights. After that, a table is what the
    /// daemon's own user may read, as administrators know it.
    fn open_table(&self, table: u32, update: bool) -> io::Result<OwnedFd> {
        let Some(TableSource::File(path)) = self.source(table) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such table with a file"));
        };
        let file = open_regular(path)?;
        match &self.setup.daemon {
            Some(daemon) if update && !may_read(&file.metadata()?, daemon) => {
                Err(io::ErrorKind::PermissionDenied.into())
            }
            _ => Ok(file.into()),
        }
    }

    /// Opens the map file of a table, unless it is still the `known` one.
    fn open_map(&self, table: u32, known: Option<FileVersion>) -> (MapAnswer, Option<OwnedFd>) {
        let Some(TableSource::Db(path)) = self.source(table) else {
            return (MapAnswer::Failed("no such table with a map".to_owned()), None);
        };
        let opened = || {
            if known.is_some() && Some(version(&std::fs::metadata(path)?)) == known {
                return Ok(None);
            }
            let file = open_regular(path)?;
            let version = version(&file.metadata()?);
            Ok::<_, io::Error>(Some((version, file)))
        };
        match opened() {
            Ok(None) => (MapAnswer::Same, None),
            Ok(Some((version, file))) => (MapAnswer::Opened(version), Some(file.into())),
            Err(error) => (MapAnswer::Failed(error.to_string()), None),
        }
    }

    fn source(&self, table: u32) -> Option<&TableSource> {
        self.config.table(TableId(table)).map(|table| &table.source)
    }

    /// Answers what a worker has asked of the spawner.
    pub fn answer_spawner(
        &self,
        question: SpawnerToParent,
        responder: Responder<ParentToSpawner, SpawnerToParent>,
    ) {
        // Everything else it says is an answer.
        let SpawnerToParent::LookUpIn { userbase, name } = question else { return };
        let offices = self.clone();
        tokio::spawn(async move {
            let answer = ParentToSpawner::User(offices.look_up_in(userbase, name).await);
            // A spawner that is gone does not wait.
            let _gone = responder.reply(&answer, None);
        });
    }

    /// Has the messages submitted that were kept while the server was down.
    ///
    /// The spawner may end meanwhile: the next one begins anew, with what is left.
    pub async fn submit_offline(self, order: OfflineOrder) {
        sleep(BEFORE_OFFLINE).await;
        loop {
            let order = ParentToSpawner::SubmitOffline(order.clone());
            match self.spawner.request(&order, None).await {
                Ok((SpawnerToParent::Submitted { error: Some(error) }, _)) => {
                    tracing::warn!("warn: smtpd: offline messages: {error}");
                    return;
                }
                Ok(_) => return,
                Err(_) => sleep(BEFORE_OFFLINE).await,
            }
        }
    }

    async fn look_up(&self, name: String) -> UserAnswer {
        match self.spawner.request(&ParentToSpawner::LookUpUser { name }, None).await {
            Ok((SpawnerToParent::User(answer), _)) => answer,
            Ok(_) => UserAnswer::Failed("the spawner did not answer the question".to_owned()),
            Err(error) => UserAnswer::Failed(error.to_string()),
        }
    }

    /// Starts the program of the table with this number, which is all that lookup names.
    async fn start_table_program(&self, table: u32) -> Result<OwnedFd, String> {
        let Some(declared) = self.config.table(TableId(table)) else {
            return Err("no such table".to_owned());
        };
        let TableSource::Program { backend, parameter } = &declared.source else {
            return Err("not a table with a program".to_owned());
        };
        let order = ParentToSpawner::StartTableProgram(ProgramOrder {
            table: declared.name.clone(),
            backend: backend.clone(),
            parameter: parameter.clone(),
        });
        self.start(order).await
    }

    /// Looks a user up in a table that some action has as its userbase.
    async fn look_up_in(&self, userbase: String, name: String) -> UserAnswer {
        let table = self.config.table_named(&userbase);
        let is_userbase = |action: &Action| match &action.kind {
            ActionKind::Local(local) => Some(local.userbase) == table,
            ActionKind::Relay(_) => false,
        };
        if !self.config.actions.iter().any(is_userbase) {
            return UserAnswer::Failed(format!("{userbase} is no userbase"));
        }
        let request = ParentToRole::LookUpIn { userbase, name };
        match self.lookup.request(&request, None).await {
            Ok((RoleToParent::Entry(answer), _)) => answer,
            Ok(_) => UserAnswer::Failed("lookup did not answer the question".to_owned()),
            Err(error) => UserAnswer::Failed(error.to_string()),
        }
    }

    /// Starts a worker for a job that the queue has sealed; the dispatcher only names it.
    async fn start_worker(
        &self,
        identity: Identity,
        ticket: &Sealed,
    ) -> Result<OwnedFd, WorkerFailure> {
        let key = identity_key(&self.job_key, &identity);
        let record = key
            .open::<JobRecord>(ticket)
            .ok()
            .filter(|record| record.identity == identity)
            .ok_or_else(failed_look_up)?;
        let account = self.account_of(&identity, &record).await?;
        let (ours, theirs) =
            platform::fd::socketpair().map_err(|error| temporary(&format!("worker: {error}")))?;
        let order = ParentToSpawner::StartWorker(WorkerOrder { identity, account, key });
        match self.spawner.request(&order, Some(theirs)).await {
            Ok((SpawnerToParent::Started { error: None }, _)) => Ok(ours),
            Ok((SpawnerToParent::Started { error: Some(error) }, _)) => {
                tracing::warn!("warn: cannot start a worker: {error}");
                Err(temporary("worker could not be started"))
            }
            Ok(_) | Err(_) => Err(temporary("worker could not be started")),
        }
    }

    /// Starts a reader for lookup, which may name whose files are read and has only what the reader
    /// lets through.
    async fn start_reader(&self, reads: Reads) -> Result<OwnedFd, String> {
        let lists = reads == Reads::Daemon;
        let account = match reads {
            Reads::Daemon => self.daemon()?,
            Reads::Entry { uid: 0, .. } => return Err("no entry reads as root".to_owned()),
            Reads::Entry { uid, gid } => Account {
                name: format!("user {uid}"),
                uid,
                gid,
                groups: vec![gid],
                home: "/".to_owned(),
            },
            Reads::System(name) => match self.look_up(name).await {
                UserAnswer::Found(account) => account,
                UserAnswer::NotFound => return Err("the user is gone".to_owned()),
                UserAnswer::Failed(reason) => return Err(reason),
            },
        };
        if self.setup.rootless && account.uid != platform::privilege::effective_uid() {
            return Err(format!("{}: only root can read for others", account.name));
        }
        self.start(ParentToSpawner::StartReader(ReaderOrder { account, lists })).await
    }

    /// Has the spawner start a process; the parent's end of its channel, for who asked.
    async fn start(&self, order: ParentToSpawner) -> Result<OwnedFd, String> {
        let (ours, theirs) = platform::fd::socketpair().map_err(|error| error.to_string())?;
        match self.spawner.request(&order, Some(theirs)).await {
            Ok((SpawnerToParent::Started { error: None }, _)) => Ok(ours),
            Ok((SpawnerToParent::Started { error: Some(error) }, _)) => Err(error),
            Ok(_) => Err("the spawner did not answer the question".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The daemon's own account: of a rootless one, that of who started it.
    fn daemon(&self) -> Result<Account, String> {
        if let Some(daemon) = &self.setup.daemon {
            return Ok(daemon.clone());
        }
        let own = platform::privilege::current_identity().map_err(|error| error.to_string())?;
        Ok(Account {
            name: "the daemon".to_owned(),
            uid: own.uid,
            gid: own.gid,
            groups: own.groups,
            home: "/".to_owned(),
        })
    }

    /// The account that a worker of this identity runs as.
    async fn account_of(
        &self,
        identity: &Identity,
        record: &JobRecord,
    ) -> Result<Account, WorkerFailure> {
        let name = identity.account.clone();
        let answer = match &identity.userbase {
            Some(userbase) => self.look_up_in(userbase.clone(), name).await,
            None => self.look_up(name).await,
        };
        let account = match answer {
            UserAnswer::Found(account) => account,
            UserAnswer::Failed(_) => return Err(failed_look_up()),
            UserAnswer::NotFound if identity.account == record.user => {
                return Err(permanent("Permanent failure in user lookup", (1, 6)));
            }
            UserAnswer::NotFound => {
                let text = format!("delivery user '{}' does not exist", identity.account);
                return Err(permanent(&text, (3, 0)));
            }
        };
        let refused =
            || permanent(&format!("MDA not allowed to deliver to: {}", identity.account), (3, 0));
        if self.setup.rootless {
            let own = account.uid == platform::privilege::effective_uid();
            return if own { Ok(account) } else { Err(refused()) };
        }
        if account.uid != 0 {
            // The mailbox of root is that of user 0.
            return if identity.root_mailbox { Err(refused()) } else { Ok(account) };
        }
        // Nobody works as root; root's mailbox is appended to by the daemon's own user.
        match &self.setup.daemon {
            Some(daemon) if identity.root_mailbox => Ok(daemon.clone()),
            _ => Err(refused()),
        }
    }
}

fn temporary(text: &str) -> WorkerFailure {
    WorkerFailure { temporary: true, text: text.to_owned(), detail: (3, 0) }
}

fn failed_look_up() -> WorkerFailure {
    let text = "Temporary failure in user lookup".to_owned();
    WorkerFailure { temporary: true, text, detail: (1, 0) }
}

fn permanent(text: &str, detail: (u8, u16)) -> WorkerFailure {
    WorkerFailure { temporary: false, text: text.to_owned(), detail }
}

/// Whether the permission bits of a file let this account read it.
fn may_read(file: &Metadata, account: &Account) -> bool {
    let bits = if file.uid() == account.uid {
        0o400
    } else if file.gid() == account.gid {
        0o040
    } else {
        0o004
    };
    file.mode() & bits != 0
}

/// What tells a file from what takes its place.
pub(super) fn version(file: &Metadata) -> FileVersion {
    FileVersion {
        device: file.dev(),
        inode: file.ino(),
        length: file.len(),
        modified: (file.mtime(), file.mtime_nsec()),
    }
}

/// Opens a regular file without waiting for anything, as a pipe or a device would have it.
pub fn open_regular(path: impl AsRef<Path>) -> io::Result<File> {
    let path = path.as_ref();
    let before = std::fs::metadata(path)?;
    if before.file_type().is_fifo() || before.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file =
        OpenOptions::new().read(true).custom_flags(platform::fd::OPEN_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
