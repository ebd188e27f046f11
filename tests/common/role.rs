//! A role as a single process, with the test in the place of the parent and of its neighbours.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal as KillSignal;
use pillarbox::config::{self, Config, LocalAddress, Network, SourceReader};
use pillarbox::ipc::blob::Blob;
use pillarbox::ipc::blocking::{Channel, ChannelError, Received};
use pillarbox::ipc::frame::Kind;
use pillarbox::ipc::message::parent::{
    ParentToRole, Peer, RoleKeys, RoleToParent, Setup, SuspectLists, Switches,
};
use pillarbox::ipc::message::queue::{DispatcherToQueue, QueueToDispatcher};
use pillarbox::ipc::seal::Key;
use platform::process::{Pid, spawn, wait_for};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use super::process;
use super::wait::SOON;

/// The dispatcher's end of its channel to the queue.
pub type ToQueue = Channel<DispatcherToQueue, QueueToDispatcher>;

/// Credits of the dispatcher at the queue.
pub const CREDITS: u32 = 32;

/// A role that the test has started.
pub struct LoneRole {
    /// The parent's end of its channel.
    pub parent: Channel<ParentToRole, RoleToParent>,
    name: &'static str,
    pid: Pid,
    directory: TempDir,
}

impl LoneRole {
    /// Starts a queue, with an empty spool.
    pub fn queue(config: &str, keys: RoleKeys) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let spool = directory.path().join("spool");
        for name in ["log", "large", "corrupt", "policy", "offline"] {
            fs::create_dir_all(spool.join(name)).unwrap();
        }
        File::create(spool.join("lock")).unwrap();
        Self::start("queue", config, keys, directory)
    }

    /// Starts the holder of private keys, which holds none yet.
    pub fn keys() -> Self {
        Self::start("keys", "match reject", RoleKeys::default(), tempfile::tempdir().unwrap())
    }

    fn start(name: &'static str, config: &str, keys: RoleKeys, directory: TempDir) -> Self {
        let setup = setup(config, keys, directory.path());
        let (ours, theirs) = platform::fd::socketpair().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_smtpd"));
        let arguments = ["smtpd", "-x", name, "-d"].map(Into::into);
        let log = File::create(directory.path().join("log")).unwrap();
        let descriptors = [(theirs.as_fd(), 3), (log.as_fd(), 2)];
        let pid = spawn(program, &arguments, &[], &descriptors, false).unwrap();
        let mut parent = Channel::new(ours).unwrap();
        let piece = Blob(postcard::to_stdvec(&setup).unwrap());
        parent.notice(&ParentToRole::Configure { piece, last: true }, None).unwrap();
        let ready = next(&mut parent).unwrap();
        assert!(matches!(ready.message, Some(RoleToParent::Ready { .. })), "{ready:?}");
        Self { parent, name, pid, directory }
    }

    /// Gives the role a dispatcher: the test.
    pub fn attach<O: Serialize, I: DeserializeOwned>(&mut self) -> Channel<O, I> {
        let (ours, theirs) = platform::fd::socketpair().unwrap();
        let order = ParentToRole::Attach { peer: Peer::Dispatcher };
        self.parent.notice(&order, Some(theirs)).unwrap();
        self.parent.drain().unwrap();
        Channel::new(ours).unwrap()
    }

    /// Whether the process runs still.
    pub fn is_alive(&self) -> bool {
        process::is_alive(self.pid.0)
    }

    /// A place for a file of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }
}

/// What a role is told that runs in a directory of the test.
fn setup(config: &str, keys: RoleKeys, directory: &Path) -> Setup {
    Setup {
        config: parse(config),
        generation: 1,
        server_name: "host.example".to_owned(),
        foreground: true,
        rootless: true,
        daemon_user: "_smtpd".to_owned(),
        overridden: Vec::new(),
        keys,
        switches: Switches::default(),
        descriptors: 1024,
        spool: directory.join("spool").to_str().unwrap().to_owned(),
        empty: directory.to_str().unwrap().to_owned(),
        control_socket: String::new(),
        credits: CREDITS,
        resolvers: Vec::new(),
        suspects: SuspectLists::default(),
    }
}

impl Drop for LoneRole {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of {}:\n{}", self.name, self.log());
        }
        process::send(self.pid.0, KillSignal::SIGKILL);
        // It is our child: nobody else waits for it.
        let _ = wait_for(self.pid);
    }
}

/// The next message on a channel, credits left aside, or how it ended.
pub fn next<O, I>(channel: &mut Channel<O, I>) -> Result<Received<I>, ChannelError>
where
    O: Serialize,
    I: DeserializeOwned + Debug,
{
    let deadline = Instant::now() + SOON;
    loop {
        channel.flush()?;
        if let Some(received) = channel.next_message()? {
            if received.kind == Kind::Credit {
                continue;
            }
            return Ok(received);
        }
        assert!(Instant::now() < deadline, "nothing came on the channel");
        sleep(Duration::from_millis(1));
        channel.fill()?;
    }
}

/// A configuration from its text; it may name no file, host or interface.
pub fn parse(text: &str) -> Config {
    struct OneFile(Vec<u8>);
    impl SourceReader for OneFile {
        fn read(&mut self, _: &str) -> io::Result<Vec<u8>> {
            Ok(self.0.clone())
        }

        fn table_program(&mut self, _: &str) -> bool {
            false
        }
    }
    struct NoNetwork;
    impl Network for NoNetwork {
        fn server_name(&mut self) -> String {
            "host.example".to_owned()
        }
        fn addresses(&mut self) -> Vec<LocalAddress> {
            Vec::new()
        }
        fn interface(&mut self, _: &str) -> Option<Vec<LocalAddress>> {
            None
        }
        fn host(&mut self, _: &str) -> io::Result<Vec<IpAddr>> {
            Ok(Vec::new())
        }
        fn service(&mut self, _: &str) -> Option<u16> {
            None
        }
    }
    let mut file = OneFile(text.as_bytes().to_vec());
    let loaded = config::load("smtpd.conf", &mut file, &mut NoNetwork, &[]);
    loaded.unwrap_or_else(|wrong| panic!("{}", wrong.render(false))).config
}

/// A key that only its number tells from others.
pub fn key(number: u8) -> Key {
    Key::new([number; 32])
}
