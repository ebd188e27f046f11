//! A running server with its own state directory, configuration and port, stopped when dropped.
//!
//! A server is rootless unless the test asks for one that root starts. The latter gets a mount
//! namespace in which the accounts of the test exist, so that those of the machine stay as they
//! are.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use platform::users::Account;
use tempfile::TempDir;

use super::account::{Programs, become_account, give, open_directory, ordinary_account};
use super::dns;
use super::maildir::Maildir;
use super::peer::Peer;
use super::process::{self, Process};
use super::wait::{SOON, wait_for};

/// A rule set that delivers everything for `example.org` to Maildirs named by the recipient.
pub const DELIVER: &str = r#"
@LISTEN@
table users { "@" = "@USER@" }
action "local" maildir "@DIR@/mail/%{rcpt.user}" virtual <users>
match from any for domain "example.org" action "local"
"#;

/// A server of its own.
pub struct Server {
    address: SocketAddr,
    account: Account,
    programs: Arc<Programs>,
    directory: TempDir,
    arguments: Vec<OsString>,
    prefix: Vec<OsString>,
    child: Option<Child>,
}

impl Server {
    /// Starts a rootless server. In `config`, `@LISTEN@` becomes a listener on a free loopback
    /// port, `@DIR@` the directory of the test and `@USER@` the account that can be delivered to.
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// As [`Server::start`], with more options on the command line.
    pub fn start_with(config: &str, options: &[&str]) -> Self {
        let mut server = Self::prepare(config, options);
        server.run();
        server
    }

    /// Makes everything ready and does not start it.
    pub fn prepare(config: &str, options: &[&str]) -> Self {
        let directory = open_directory();
        let account = ordinary_account();
        let server = Self::new(directory, account, config, options);
        for name in ["mail", "state"] {
            let path = server.path(name);
            fs::create_dir(&path).unwrap();
            give(&path, &server.account);
        }
        server
    }

    /// A server in a directory that the caller has filled with what it needs.
    pub fn new(directory: TempDir, account: Account, config: &str, options: &[&str]) -> Self {
        Self::at(free_address(), directory, account, config, options)
    }

    /// As [`Server::new`], where `config` itself says that it listens at `address`.
    pub fn at(
        address: SocketAddr,
        directory: TempDir,
        account: Account,
        config: &str,
        options: &[&str],
    ) -> Self {
        let config = config
            .replace("@LISTEN@", &format!("listen on {} port {}", address.ip(), address.port()))
            .replace("@DIR@", directory.path().to_str().unwrap())
            .replace("@USER@", &account.name);
        fs::write(directory.path().join("smtpd.conf"), config).unwrap();
        let state = directory.path().join("state");
        let mut arguments: Vec<OsString> = vec!["-d".into(), "-v".into(), "-f".into()];
        arguments.push(directory.path().join("smtpd.conf").into());
        arguments.push("--state".into());
        arguments.push(state.into());
        arguments.extend(options.iter().map(OsString::from));
        if !options.contains(&"--resolver") {
            arguments.extend(["--resolver".into(), dns::shared().into()]);
        }
        let programs = Programs::installed();
        Self { address, account, programs, directory, arguments, prefix: Vec::new(), child: None }
    }

    /// Starts the program through these words, which must end up being it.
    pub fn start_through(&mut self, words: Vec<OsString>) {
        self.prefix = words;
        self.run();
    }

    /// Starts it and waits until it serves and knows what is in its spool.
    pub fn run(&mut self) {
        let starts = self.recoveries();
        self.spawn();
        let address = self.address;
        let limit = Instant::now() + SOON;
        let pid_file = self.state().join("run/smtpd.pid");
        let parent = self.parent().to_string();
        // The pid file is written when every role is ready.
        while fs::read_to_string(&pid_file).map_or(true, |text| text.trim() != parent)
            || Peer::connect(address).and_then(|mut peer| peer.reply()).is_err()
            || self.recoveries() == starts
        {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            assert!(Instant::now() < limit, "the server does not answer:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How often a queue has said that it knows what is in the spool.
    fn recoveries(&self) -> usize {
        self.log().matches(" envelopes of ").count()
    }

    /// Starts it and waits for nothing.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the server runs");
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let program = self.program("smtpd");
        let mut command = match self.prefix.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => {
                let mut command = Command::new(program);
                become_account(&mut command, &self.account);
                command
            }
        };
        command.args(&self.arguments).current_dir("/");
        // Programs of the test's own stand before those under test.
        let own = self.path("libexec");
        let libexec = if own.is_dir() { &own } else { self.programs.directory() };
        command.env("PILLARBOX_LIBEXEC", libexec);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The account of the server, and of its mailboxes.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// A program under test.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.path(name)
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Something in the directory of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A Maildir below the directory of mailboxes.
    pub fn maildir(&self, name: &str) -> Maildir {
        Maildir::new(self.path("mail").join(name))
    }

    /// A greeted session.
    pub fn peer(&self) -> Peer {
        Peer::greeted(self.address).unwrap_or_else(|error| panic!("{error}:\n{}", self.log()))
    }

    /// Submits one message in a session of its own and expects that it is taken.
    pub fn accept(&self, to: &[&str], content: &str) {
        let mut peer = self.peer();
        let reply = peer.submit("sender@client.example", to, content).unwrap();
        assert_eq!(reply.code, 250, "{reply:?}");
        // Whether it says good-bye is another test.
        let _ = peer.quit();
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.path("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for a log line that holds `text`.
    pub fn wait_for_log(&self, text: &str) -> String {
        wait_for(&format!("log line with {text:?}"), SOON, || {
            self.log().lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    /// The number of the parent.
    pub fn parent(&self) -> i32 {
        let child = self.child.as_ref().expect("the server runs");
        i32::try_from(child.id()).unwrap()
    }

    /// The process that plays a role; waits until there is one.
    pub fn role(&self, name: &str) -> Process {
        wait_for(&format!("a process called {name}"), SOON, || {
            process::children(self.parent()).into_iter().find(|process| process.name == name)
        })
    }

    /// All processes of the server, the parent left out.
    pub fn processes(&self) -> Vec<Process> {
        process::descendants(self.parent())
    }

    /// Asks it to end and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        process::send(self.parent(), Signal::SIGTERM);
        let mut child = self.child.take().expect("the server runs");
        wait_for("the server ends", SOON, || child.try_wait().unwrap())
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the server runs");
        wait_for("the server ends", SOON, || child.try_wait().unwrap())
    }

    /// Kills the parent and waits until nothing is left of the server.
    pub fn kill(&mut self) {
        let left = self.processes();
        let mut child = self.child.take().expect("the server runs");
        child.kill().unwrap();
        child.wait().unwrap();
        process::wait_until_gone(&left);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let start = log.len().saturating_sub(8192);
            eprintln!("log of the server:\n{}", log.get(start..).unwrap_or(&log));
        }
        if let Some(mut child) = self.child.take() {
            let processes = process::descendants(i32::try_from(child.id()).unwrap());
            // It may have ended already, and then there is nothing to end.
            let _ = child.kill();
            let _ = child.wait();
            for process in processes {
                process::send(process.pid, Signal::SIGKILL);
            }
        }
    }
}

/// A loopback address of a network that no other test program is likely to use, for servers on ports
/// that cannot be chosen.
pub fn own_address(last: u8) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | high, low, last)
}

/// A loopback address that nobody listens on, and that no other test of this program was given. Its port
/// is below those that most systems choose for connections, one of which could take it meanwhile.
pub fn free_address() -> SocketAddr {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + std::process::id().wrapping_mul(61).wrapping_add(step) % 20_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).unwrap()));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
