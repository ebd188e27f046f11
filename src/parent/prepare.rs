//! Everything before the first role: the configuration is read, directories are made, sockets are
//! bound, keys are drawn. Whatever fails here ends the daemon with one clear line.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use platform::Role;
use platform::privilege::is_root;
use platform::users::{user_by_name, user_by_uid};
use zeroize::Zeroizing;

use super::directories::make_directories;
use super::options::{Options, Pausable};
use super::reload::{Again, Next};
use super::requests::FilterGroups;
use super::surroundings::{Files, Machine};
use crate::config::{self, Config, Endpoint, Reading, Secret};
use crate::ipc::message::lookup::ROUTE_KEY;
use crate::ipc::message::parent::{RoleKeys, Setup, SrsKeys, SuspectLists, Switches};
use crate::ipc::message::spawner::{Account, OfflineOrder, SpawnerSetup};
use crate::ipc::message::worker::{HELPERS, JOB_KEY};
use crate::ipc::seal::Key;
use crate::paths::Places;
use crate::process::DAEMON_USER;

/// Requests and notices under way in each direction between two roles.
const CREDITS: u32 = 4096;
/// Bytes of a socket buffer where a test asks for few credits.
const TIGHT_BUFFER: usize = 8 * 1024;

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The configuration has errors; they were printed.
    #[error("the configuration has errors")]
    Configuration,
    /// Something of the system failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// Nothing says what this server is called.
    #[error("machine does not have a hostname set")]
    NoName,
    /// The start makes no sense like this.
    #[error("{0}")]
    Refused(String),
}

/// What the parent has when it starts its roles.
#[derive(Debug)]
pub struct Prepared {
    /// The configuration.
    pub config: Arc<Config>,
    /// The groups of its filter programs.
    pub filter_groups: FilterGroups,
    /// Where the daemon was started: relative names in the configuration begin there.
    pub directory: PathBuf,
    /// Bound sockets, by index of their listener.
    pub listeners: Vec<(u32, OwnedFd)>,
    /// The control socket.
    pub control_socket: OwnedFd,
    /// This program, to start roles from.
    pub program: PathBuf,
    /// What every role is told.
    pub setup: Setup,
    /// What the spawner is told.
    pub spawner_setup: SpawnerSetup,
    /// Where messages wait that were kept while the server was down.
    pub offline: OfflineOrder,
    /// Seals jobs.
    pub job_key: Key,
    /// Size of the socket buffers between roles, if not the system's.
    pub channel_buffer: Option<usize>,
    route_key: Key,
    /// Sockets that only the roles have that are about to leave.
    leaving: Vec<(Endpoint, OwnedFd)>,
    places: Places,
    options: Options,
}

pub(super) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> PrepareError {
    let what = what.into();
    move |source| PrepareError::System { what, source }
}

/// Does everything before the first role; `None` if the configuration was only to be checked.
///
/// # Errors
/// The daemon cannot start.
pub fn prepare(options: &Options) -> Result<Option<Prepared>, PrepareError> {
    let places = Places::new(options.state.as_deref());
    let config = read_configuration(options, &places)?;
    if options.check {
        if options.verbose {
            print!("{config}");
        }
        eprintln!("configuration OK");
        return Ok(None);
    }
    let rootless = !is_root();
    if rootless && options.state.is_none() {
        return Err(PrepareError::Refused(
            "need root privileges, or --state DIR to run under this user".to_owned(),
        ));
    }
    platform::process::ignore_sigpipe().map_err(system("signals"))?;
    let descriptors =
        platform::privilege::raise_descriptor_limit().map_err(system("limit of open files"))?;
    make_directories(&places, options.state.as_deref(), rootless)?;
    let control_socket =
        platform::fd::listen_unix(&places.control_socket, 0o666).map_err(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                PrepareError::Refused("control socket already listening".to_owned())
            } else {
                system(places.control_socket.display().to_string())(error)
            }
        })?;
    let listeners = bind(&config, |_| Ok(None))?;

    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| system("random numbers")(io::Error::other(error.to_string())))?;
    let master = Key::new(random);
    let helpers = Helpers::find(&places);
    let server_name = config.server_name.clone();
    let setup = Setup {
        config: config.clone(),
        generation: 1,
        server_name: server_name.clone(),
        foreground: options.foreground,
        rootless,
        daemon_user: daemon_user(rootless)?,
        overridden: helpers.overridden,
        keys: RoleKeys::default(),
        switches: Switches {
            mda_paused: options.paused.contains(&Pausable::Mda),
            mta_paused: options.paused.contains(&Pausable::Mta),
            smtp_paused: options.paused.contains(&Pausable::Smtp),
            verbose: options.verbose,
        },
        descriptors,
        spool: text_of(&places.spool)?,
        empty: text_of(&places.empty)?,
        control_socket: text_of(&places.control_socket)?,
        credits: options.credits.unwrap_or(CREDITS).max(1),
        resolvers: options.resolvers.clone(),
        suspects: SuspectLists::default(),
    };
    let spawner_setup = SpawnerSetup {
        daemon: if rootless { None } else { Some(daemon_account()?) },
        mailboxes: text_of(&places.mailboxes)?,
        libexec: text_of(&helpers.directory)?,
        server_name,
        rootless,
    };
    Ok(Some(Prepared {
        filter_groups: FilterGroups::of(&config),
        directory: current_directory(),
        config: Arc::new(config),
        listeners,
        leaving: Vec::new(),
        control_socket,
        program: platform::process::current_executable().map_err(system("own program"))?,
        setup,
        spawner_setup,
        offline: OfflineOrder {
            directory: text_of(&places.spool.join("offline"))?,
            state: options.state.as_deref().map(text_of).transpose()?,
        },
        job_key: master.derive(JOB_KEY),
        route_key: master.derive(ROUTE_KEY),
        channel_buffer: options.credits.map(|_| TIGHT_BUFFER),
        places,
        options: with_absolute_path(options)?,
    }))
}

impl Prepared {
    /// What `role` is told: the keys of others are left out.
    #[must_use]
    pub fn setup_for(&self, role: Role) -> Setup {
        let mut setup = self.setup.clone();
        setup.keys = match role {
            Role::Lookup => RoleKeys {
                route: Some(self.route_key.clone()),
                srs: srs_keys(&self.config),
                ..RoleKeys::default()
            },
            Role::Queue => RoleKeys {
                route: Some(self.route_key.clone()),
                job: Some(self.job_key.clone()),
                ..RoleKeys::default()
            },
            _ => RoleKeys::default(),
        };
        setup
    }

    /// What is needed to read the configuration again.
    ///
    /// # Errors
    /// There is no descriptor left for the copy of a socket.
    pub fn again(&self) -> io::Result<Again> {
        let mut bound = Vec::with_capacity(self.listeners.len() + self.leaving.len());
        for (index, socket) in &self.listeners {
            if let Some(listener) = self.config.listeners.get(*index as usize) {
                bound.push((listener.endpoint.clone(), socket.try_clone()?));
            }
        }
        for (endpoint, socket) in &self.leaving {
            bound.push((endpoint.clone(), socket.try_clone()?));
        }
        Ok(Again {
            options: self.options.clone(),
            places: self.places.clone(),
            directory: self.directory.clone(),
            bound,
        })
    }

    /// Takes a configuration for the next set of roles. Sockets that it does not listen on stay bound
    /// until then: the configuration after it may name them again.
    pub fn adopt(&mut self, next: Next) {
        for (index, socket) in std::mem::replace(&mut self.listeners, next.listeners) {
            let Some(listener) = self.config.listeners.get(index as usize) else { continue };
            if next.config.listeners.iter().all(|other| other.endpoint != listener.endpoint) {
                self.leaving.push((listener.endpoint.clone(), socket));
            }
        }
        self.setup.generation += 1;
        self.setup.server_name.clone_from(&next.config.server_name);
        self.spawner_setup.server_name.clone_from(&next.config.server_name);
        self.setup.config = next.config.clone();
        self.config = Arc::new(next.config);
        self.filter_groups = next.filter_groups;
    }

    /// Closes the sockets of roles that have left.
    pub fn let_go(&mut self) {
        self.leaving.clear();
    }

    /// Tells whoever waits for it that the service is there.
    pub fn announce_ready(&self) {
        // Only now: the process that prepared may have been another.
        if let Err(error) = platform::service::write_pid_file(&self.places.pid_file) {
            tracing::warn!("warn: {}: {error}", self.places.pid_file.display());
        }
        if let Err(error) = platform::service::notify_ready() {
            tracing::warn!("warn: the service manager cannot be told: {error}");
        }
    }

    /// Tells whoever waits for it that the service ends.
    pub fn announce_stopping(&self) {
        // Whoever manages the service sees the end itself.
        let _told = platform::service::notify_stopping();
    }

    /// Removes what a stopped daemon leaves to nobody.
    pub fn clean_up(&self) {
        for path in [&self.places.control_socket, &self.places.pid_file] {
            if let Err(error) = fs::remove_file(path) {
                tracing::debug!("debug: {}: {error}", path.display());
            }
        }
    }
}

/// What the configuration that roles are sent leaves out.
fn srs_keys(config: &Config) -> Option<SrsKeys> {
    let secret = |secret: &Secret| Zeroizing::new(secret.reveal().to_owned());
    let key = config.srs.key.as_ref().map(secret)?;
    Some(SrsKeys { key, backup: config.srs.backup_key.as_ref().map(secret) })
}

fn text_of(path: &Path) -> Result<String, PrepareError> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| PrepareError::Refused(format!("{}: the path is not UTF-8", path.display())))
}

/// Where helper programs are, and which of them are not ours.
struct Helpers {
    directory: PathBuf,
    overridden: Vec<String>,
}

impl Helpers {
    /// The environment may name the directory only where that is harmless. What is found in a
    /// directory so named is run; what is not, workers do themselves as ever.
    fn find(places: &Places) -> Self {
        let named = std::env::var_os("PILLARBOX_LIBEXEC")
            .filter(|_| !is_root() && platform::privilege::ids_agree());
        let Some(directory) = named.map(PathBuf::from) else {
            return Self { directory: places.libexec.clone(), overridden: Vec::new() };
        };
        let is_there = |name: &&str| directory.join(name).is_file();
        let overridden = HELPERS.into_iter().filter(is_there).map(str::to_owned).collect();
        Self { directory, overridden }
    }
}

/// Who runs the commands of aliases; `rootless` says that an ordinary user has started the server.
///
/// # Errors
/// The account of this user cannot be looked up.
pub fn daemon_user(rootless: bool) -> Result<String, PrepareError> {
    if !rootless {
        return Ok(DAEMON_USER.to_owned());
    }
    let uid = platform::privilege::effective_uid();
    let account = user_by_uid(uid).map_err(system(format!("account of user {uid}")))?;
    // Where nobody has a name, as in some containers, nothing is delivered locally.
    Ok(account.map_or_else(|| DAEMON_USER.to_owned(), |account| account.name))
}

fn daemon_account() -> Result<Account, PrepareError> {
    let account = user_by_name(DAEMON_USER).map_err(system(format!("account {DAEMON_USER}")))?;
    let account = account.ok_or_else(|| {
        PrepareError::Refused(format!("unknown user {DAEMON_USER}: the package creates it"))
    })?;
    Ok(Account {
        groups: vec![account.gid],
        name: account.name,
        uid: account.uid,
        gid: account.gid,
        home: account.home.to_string_lossy().into_owned(),
    })
}

// The configuration.

/// The options, with a name of the configuration that holds also after a change of directory.
fn with_absolute_path(options: &Options) -> Result<Options, PrepareError> {
    let mut options = options.clone();
    if let Some(path) = &mut options.config_file {
        *path = std::path::absolute(&*path).map_err(system("current directory"))?;
    }
    Ok(options)
}

/// Reads the configuration that `options` name, and prints what there is to say about it. Who wants
/// it explained is served also with parts that are not supported yet.
///
/// # Errors
/// It has errors, which were printed, or cannot be read for what the system lacks.
pub fn read_configuration(options: &Options, places: &Places) -> Result<Config, PrepareError> {
    let Reading { config, diagnostics } = read(options, places, &current_directory())?;
    eprint!("{}", diagnostics.render(io::stderr().is_terminal()));
    let refused =
        if options.explain.is_some() { diagnostics.has_errors() } else { diagnostics.are_fatal() };
    if refused {
        return Err(PrepareError::Configuration);
    }
    if config.server_name.is_empty() && !options.check {
        return Err(PrepareError::NoName);
    }
    Ok(config)
}

/// Where relative names begin; where there is none any more, at the root.
fn current_directory() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"))
}

/// Reads the configuration that `options` name, with everything that there is to say about it.
/// Relative names of files begin at `directory`.
///
/// # Errors
/// It cannot be read for what the system lacks.
pub(super) fn read(
    options: &Options,
    places: &Places,
    directory: &Path,
) -> Result<Reading, PrepareError> {
    let path = options.config_file.as_ref().unwrap_or(&places.config_file);
    let path = text_of(path)?;
    let mut machine = Machine::new(&places.mailname).map_err(system("network interfaces"))?;
    let rootless = options.state.is_some() && !is_root();
    let libexec = Helpers::find(places).directory;
    let mut files = Files { directory: directory.to_owned(), libexec, rootless };
    Ok(config::read(&path, &mut files, &mut machine, &options.defines))
}

// Sockets.

/// The sockets of all listeners: those that are `bound` already, and new ones.
///
/// # Errors
/// An address cannot be bound.
pub(super) fn bind(
    config: &Config,
    bound: impl Fn(&Endpoint) -> Result<Option<OwnedFd>, PrepareError>,
) -> Result<Vec<(u32, OwnedFd)>, PrepareError> {
    let mut listeners = Vec::new();
    for (index, listener) in (0_u32..).zip(&config.listeners) {
        let Endpoint::Network { address, port } = &listener.endpoint else { continue };
        if let Some(socket) = bound(&listener.endpoint)? {
            listeners.push((index, socket));
            continue;
        }
        let address = address.with_port(*port);
        let socket = platform::fd::listen_tcp(address)
            .map_err(system(format!("cannot listen on {address}")))?;
        listeners.push((index, socket));
    }
    Ok(listeners)
}
