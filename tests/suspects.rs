//! An envelope that is in flight whenever roles crash is found, held, and let go again.
//!
//! The crashes are made from outside: the test kills a role whenever the listing of the queue shows
//! the envelope in flight, to a server that never greets. Needs `/proc`; elsewhere it is skipped with
//! a line that says so.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

#[path = "common/install.rs"]
mod install;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use platform::privilege::is_root;
use platform::users::Account;

use install::copy_program;

const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon of its own, stopped when dropped. Root runs it under the account `nobody`.
struct Daemon {
    child: Child,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

fn unprivileged() -> Option<Account> {
    is_root().then(|| platform::users::user_by_name("nobody").unwrap().expect("nobody exists"))
}

fn as_unprivileged(command: &mut Command) {
    if let Some(account) = unprivileged() {
        command.uid(account.uid).gid(account.gid);
    }
}

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < limit, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Daemon {
    /// Starts a daemon that relays `one.example` and `two.example` to these servers.
    fn start(one: SocketAddr, two: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(path("state")).unwrap();
        if let Some(account) = unprivileged() {
            chown(path("state"), Some(account.uid), Some(account.gid)).unwrap();
        }
        // An ordinary account may not be able to reach the directory of the build.
        copy_program(env!("CARGO_BIN_EXE_smtpd"), path("smtpd"));
        copy_program(env!("CARGO_BIN_EXE_smtpctl"), path("smtpctl"));
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "listen on 127.0.0.1 port {}\n\
             action \"one\" relay host \"smtp://{one}\"\n\
             action \"two\" relay host \"smtp://{two}\"\n\
             match from any for domain \"one.example\" action \"one\"\n\
             match from any for domain \"two.example\" action \"two\"\n",
            free.port()
        );
        fs::write(path("smtpd.conf"), config).unwrap();
        let log = File::create(path("log")).unwrap();
        let mut command = Command::new(path("smtpd"));
        as_unprivileged(&mut command);
        command.arg("-d").arg("-f").arg(path("smtpd.conf")).arg("--state").arg(path("state"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir("/");
        let daemon = Self { child: command.spawn().unwrap(), address: free, directory };
        until("the daemon listens", || TcpStream::connect(free).ok());
        daemon
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    fn submit(&self, recipient: &str) {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut replies = BufReader::new(stream.try_clone().unwrap());
        let mut commands = stream;
        let mail = "Subject: x\r\n\r\nbody\r\n.";
        let recipient = format!("RCPT TO:<{recipient}>");
        let said =
            ["HELO client.example", "MAIL FROM:<a@client.example>", &recipient, "DATA", mail];
        for line in [""].into_iter().chain(said) {
            if !line.is_empty() {
                write!(commands, "{line}\r\n").unwrap();
            }
            let mut reply = String::new();
            replies.read_line(&mut reply).unwrap();
            assert!(reply.starts_with('2') || reply.starts_with('3'), "{line}: {reply}");
        }
    }

    fn control(&self, words: &[&str]) -> Option<String> {
        let mut command = Command::new(self.path("smtpctl"));
        as_unprivileged(&mut command);
        command.arg("--state").arg(self.path("state")).args(words).current_dir("/");
        let output = command.stdin(Stdio::null()).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// The fields of the one envelope to `recipient` in the listing, once they are as asked for.
    fn listed(&self, recipient: &str, what: &str, wanted: impl Fn(&[&str]) -> bool) -> String {
        until(&format!("{recipient} {what}"), || {
            let listing = self.control(&["show", "queue"])?;
            let line = listing.lines().find(|line| line.contains(recipient))?;
            wanted(&line.split('|').collect::<Vec<_>>()).then(|| line.to_owned())
        })
    }

    fn in_flight(&self, recipient: &str) -> String {
        self.listed(recipient, "in flight", |fields| fields.contains(&"inflight"))
    }

    /// Kills a role, and waits until another process plays it.
    fn crash(&self, role: &str) {
        let one = until("role", || role_of(&self.child, role));
        kill(Pid::from_raw(one), Signal::SIGKILL).unwrap();
        until("another process plays the role", || {
            role_of(&self.child, role).filter(|other| *other != one)
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of the daemon:\n{}", self.log());
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _gone = kill(pid, Signal::SIGTERM);
        let _waited = self.child.wait();
    }
}

/// The child that plays `role`: its process has that name (proc(5), `stat`).
fn role_of(parent: &Child, role: &str) -> Option<i32> {
    let parent = parent.id().to_string();
    fs::read_dir("/proc").unwrap().find_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let lives = fields.next() != Some("Z");
        let ours = fields.next() == Some(parent.as_str()) && head.ends_with(&format!("({role}"));
        (lives && ours).then_some(pid)
    })
}

/// A server that takes connections and never says a word.
fn mute_server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn is_held(fields: &[&str]) -> bool {
    fields.get(3).is_some_and(|flags| flags.split(',').any(|flag| flag == "hold"))
}

fn held_after(crashes: [&str; 3]) {
    if !Path::new("/proc/self/stat").exists() {
        println!("skipped: no /proc on this system");
        return;
    }
    let ((_one, one), (_two, two)) = (mute_server(), mute_server());
    let daemon = Daemon::start(one, two);
    daemon.submit("bad@one.example");
    for role in crashes {
        let line = daemon.in_flight("bad@one.example");
        assert!(!is_held(&line.split('|').collect::<Vec<_>>()), "{line}");
        daemon.crash(role);
    }
    let line = daemon.listed("bad@one.example", "held", is_held);
    assert!(line.contains("|pending|"), "{line}");
    let id = line.split('|').next().unwrap();
    let warning = format!("warn: envelope {id} ");
    let warnings = || daemon.log().lines().filter(|line| line.starts_with(&warning)).count();
    assert_eq!(warnings(), 1, "{}", daemon.log());

    // The others go on.
    daemon.submit("good@two.example");
    daemon.in_flight("good@two.example");
    daemon.listed("bad@one.example", "held", is_held);
    assert_eq!(daemon.control(&["schedule", id]).as_deref(), Some("1 envelope scheduled\n"));
    daemon.in_flight("bad@one.example");
    assert_eq!(warnings(), 1, "{}", daemon.log());
}

#[test]
fn an_envelope_in_flight_in_three_crashes_of_the_dispatcher_is_held_until_it_is_scheduled() {
    held_after(["dispatcher"; 3]);
}

#[test]
fn an_envelope_in_flight_in_three_crashes_of_either_role_is_held_until_it_is_scheduled() {
    held_after(["queue", "dispatcher", "queue"]);
}
