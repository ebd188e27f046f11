//! Lookup and spawner as processes, with the test in the place of parent and dispatcher, on a machine
//! with accounts of the test's own.
//!
//! The spawner, and with it every auth worker, runs in a mount namespace where `/etc` is a copy to
//! which the system's own programs have added the accounts.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use pillarbox::config::TableId;
use pillarbox::ipc::blob::Blob;
use pillarbox::ipc::link::Link;
use pillarbox::ipc::message::lookup::{
    Credentials, DispatcherToLookup, LookupToDispatcher, Password,
};
use pillarbox::ipc::message::parent::{
    ParentToRole, Peer, RoleKeys, RoleToParent, Setup, SuspectLists, Switches,
};
use pillarbox::ipc::message::spawner::{Account, ParentToSpawner, SpawnerSetup, SpawnerToParent};
use pillarbox::model::envelope::Source;
use pillarbox::process::PARENT_WINDOW;
use platform::privilege::is_root;
use platform::process::{Pid, spawn, wait_for};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::account::open_directory;
use super::role::{key, parse};
use super::wait::SOON;
use super::{process, root};

/// Requests of the dispatcher under way at once.
const CREDITS: u32 = 512;

/// The password of every account.
pub const PASSWORD: &str = "correct horse";

/// Puts a copy over `/etc`, makes the accounts, and becomes the rest of its arguments.
const SCRIPT: &str = r#"
set -e
mount --bind "$1" /etc
shift
for name in alice expired stale locked; do
    useradd --no-log-init --no-create-home --no-user-group --shell /bin/sh "$name"
    echo "$name:correct horse" | chpasswd
done
chage --expiredate 1 expired
chage --lastday 0 stale
passwd --quiet --lock locked
exec "$@"
"#;

/// The two roles.
pub struct Logins {
    directory: TempDir,
    spawner: Pid,
    lookup: Pid,
    _to_lookup: Link<ParentToRole, RoleToParent>,
    dispatcher: Link<DispatcherToLookup, LookupToDispatcher>,
}

impl Logins {
    /// Starts them; `None`, with a printed reason, where that is not possible. Lookup has the tables of
    /// `config`.
    pub async fn start(config: &str) -> Option<Self> {
        if !can_make_accounts() {
            return None;
        }
        let directory = open_directory();
        let log = File::create(directory.path().join("log")).unwrap();
        let (spawner_pid, spawner) = start_spawner(directory.path(), &log).await;
        let (lookup_pid, to_lookup) = start_lookup(directory.path(), &log, config, spawner).await;
        let (ours, theirs) = platform::fd::socketpair().unwrap();
        let attach = ParentToRole::Attach { peer: Peer::Dispatcher };
        to_lookup.notice(&attach, Some(theirs)).await.unwrap();
        let (dispatcher, _) = Link::open(ours, CREDITS).unwrap();
        Some(Self {
            directory,
            spawner: spawner_pid,
            lookup: lookup_pid,
            _to_lookup: to_lookup,
            dispatcher,
        })
    }

    /// What a client at `address` is told that logs in; without a table, to an account.
    pub async fn log_in(
        &self,
        table: Option<TableId>,
        user: &str,
        password: &str,
        address: IpAddr,
    ) -> Credentials {
        let question = DispatcherToLookup::Authenticate {
            table,
            user: Blob(user.as_bytes().to_vec()),
            password: Password(password.as_bytes().to_vec().into()),
            source: Source::Ip(address),
        };
        match self.ask(&question).await {
            LookupToDispatcher::Authenticated(verdict) => verdict,
            other => panic!("{other:?}"),
        }
    }

    /// The answer to a question of the dispatcher.
    pub async fn ask(&self, question: &DispatcherToLookup) -> LookupToDispatcher {
        let answer = timeout(SOON * 2, self.dispatcher.request(question, None)).await;
        match answer {
            Ok(Ok((answer, _))) => answer,
            other => panic!("{question:?}: {other:?}:\n{}", self.log()),
        }
    }

    /// What both have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

impl Drop for Logins {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log:\n{}", self.log());
        }
        for pid in [self.lookup, self.spawner] {
            process::send(pid.0, Signal::SIGKILL);
            // They are our children: nobody else waits for them.
            let _ = wait_for(pid);
        }
    }
}

fn can_make_accounts() -> bool {
    if !is_root() {
        println!("skipped: only root can check accounts of others");
        return false;
    }
    let mut probe = Command::new("unshare");
    probe.args([
        "--mount",
        "sh",
        "-c",
        "mount --bind /etc /etc && command -v useradd chage passwd",
    ]);
    if !probe.output().is_ok_and(|output| output.status.success()) {
        println!("skipped: no mount namespace can be made here, or useradd is missing");
        return false;
    }
    true
}

async fn start_spawner(
    directory: &Path,
    log: &File,
) -> (Pid, Link<ParentToSpawner, SpawnerToParent>) {
    let etc = directory.join("etc");
    let copied = Command::new("cp").arg("-a").arg("/etc").arg(&etc).status().unwrap();
    assert!(copied.success());
    fs::set_permissions(&etc, fs::Permissions::from_mode(0o755)).unwrap();
    let service = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/pam");
    let debian = etc.join("pam.d/common-auth").is_file();
    let service = service.join(if debian { "smtpd.debian" } else { "smtpd.linux" });
    fs::copy(service, etc.join("pam.d/smtpd")).unwrap();

    let (ours, theirs) = platform::fd::socketpair().unwrap();
    let mut words: Vec<OsString> =
        ["unshare", "--mount", "sh", "-c", SCRIPT, "sh"].map(Into::into).to_vec();
    words.push(etc.into());
    words.extend([env!("CARGO_BIN_EXE_smtpd"), "-x", "spawner", "-d"].map(Into::into));
    let environment = [("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())];
    let descriptors = [(theirs.as_fd(), 3), (log.as_fd(), 2)];
    let unshare = Path::new("/usr/bin/unshare");
    let pid = spawn(unshare, &words, &environment, &descriptors, false).unwrap();
    let (link, _) = Link::open(ours, PARENT_WINDOW).unwrap();
    let setup = SpawnerSetup {
        daemon: Some(Account {
            name: "_smtpd".to_owned(),
            uid: root::SMTPD,
            gid: root::SMTPD,
            groups: vec![root::SMTPD],
            home: "/".to_owned(),
        }),
        mailboxes: "/nowhere".to_owned(),
        libexec: "/nowhere".to_owned(),
        server_name: "host.example".to_owned(),
        rootless: false,
    };
    link.notice(&ParentToSpawner::Setup(setup), None).await.unwrap();
    (pid, link)
}

async fn start_lookup(
    directory: &Path,
    log: &File,
    config: &str,
    spawner: Link<ParentToSpawner, SpawnerToParent>,
) -> (Pid, Link<ParentToRole, RoleToParent>) {
    let setup = Setup {
        config: parse(config),
        generation: 1,
        server_name: "host.example".to_owned(),
        foreground: true,
        rootless: true,
        daemon_user: "_smtpd".to_owned(),
        overridden: Vec::new(),
        keys: RoleKeys { route: Some(key(1)), ..RoleKeys::default() },
        switches: Switches::default(),
        descriptors: 1024,
        spool: directory.to_str().unwrap().to_owned(),
        empty: directory.to_str().unwrap().to_owned(),
        control_socket: String::new(),
        credits: CREDITS,
        resolvers: vec!["127.0.0.1:9".parse().unwrap()],
        suspects: SuspectLists::default(),
    };
    let (ours, theirs) = platform::fd::socketpair().unwrap();
    let arguments = ["smtpd", "-x", "lookup", "-d"].map(Into::into);
    let descriptors = [(theirs.as_fd(), 3), (log.as_fd(), 2)];
    let program = Path::new(env!("CARGO_BIN_EXE_smtpd"));
    let pid = spawn(program, &arguments, &[], &descriptors, false).unwrap();
    let (link, mut orders) = Link::<ParentToRole, RoleToParent>::open(ours, PARENT_WINDOW).unwrap();
    let piece = Blob(postcard::to_stdvec(&setup).unwrap());
    link.notice(&ParentToRole::Configure { piece, last: true }, None).await.unwrap();
    let (ready, is_ready) = oneshot::channel();
    tokio::spawn(async move {
        let mut ready = Some(ready);
        while let Some(order) = orders.recv().await {
            match order.message {
                RoleToParent::Ready { .. } => drop(ready.take().map(|ready| ready.send(()))),
                RoleToParent::StartAuthWorker => {
                    let spawner = spawner.clone();
                    tokio::spawn(async move {
                        let (ours, theirs) = platform::fd::socketpair().unwrap();
                        let order_of_ours = ParentToSpawner::StartAuthWorker;
                        let started = spawner.request(&order_of_ours, Some(theirs)).await;
                        let Ok((SpawnerToParent::Started { error }, _)) = started else {
                            panic!("{started:?}");
                        };
                        let answer = ParentToRole::AuthWorker { error };
                        // Lookup may have given up.
                        let _gone = order.responder.reply(&answer, Some(ours));
                    });
                }
                _ => {}
            }
        }
    });
    timeout(SOON, is_ready).await.expect("lookup is slow").expect("lookup has ended");
    (pid, link)
}
