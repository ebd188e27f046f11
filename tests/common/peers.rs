//! Other people's programs: Postfix, Exim, Dovecot, swaks, Python; table programs and their servers;
//! filters.
//!
//! They are taken from Debian root directories of their own (Postfix and Exim exclude each other on
//! one system), named by `PILLARBOX_PEERS`, `PILLARBOX_TABLE_PEERS`, `PILLARBOX_FILTER_PEERS` and
//! `PILLARBOX_TLS_PEERS`; without them, where `ci/bench` keeps its own. Each runs in a mount and
//! process namespace that ends with it, with its files in the
//! directory of the test. What they said is kept in `target/interop`.
//!
//! Without these directories or without root, tests are skipped with a printed reason, unless
//! `PILLARBOX_REQUIRE_INTEROP=1`.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use platform::privilege::is_root;
use tempfile::TempDir;

use super::account::open_directory;
use super::install::copy_program;
use super::peer::Peer;
use super::server::Server;
use super::wait::{SOON, wait_until};

/// Binds the test's directory to `/mnt` of the root and runs a program in it. It stays: a first
/// process that became somebody else would not end with the one that started it.
const SCRIPT: &str = r#"
set -e
mount --bind "$2" "$1/mnt"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
root=$1
shift 2
chroot "$root" "$@" && exit 0 || exit $?
"#;

/// Makes the directory of the test and its helper programs known under their own names in the root,
/// and becomes the copy of the program in there, as an ordinary user.
const HOST_SCRIPT: &str = r#"
set -e
root=$1 directory=$2 user=$3
shift 4
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root$directory"
mount --bind "$directory" "$root$directory"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
export PILLARBOX_LIBEXEC="$directory/libexec"
exec chroot --userspec="$user" "$root" "$directory/smtpd" "$@"
"#;

/// A root directory with programs.
#[derive(Clone, Debug)]
pub struct Peers {
    root: PathBuf,
}

impl Peers {
    /// The root directory with mail programs, if it has all of `programs`.
    pub fn with(programs: &[&str]) -> Option<Self> {
        Self::or_skipped(Self::find("PILLARBOX_PEERS", "bookworm", programs))
    }

    /// The root directory with table programs, if it has all of `programs`.
    pub fn of_tables(programs: &[&str]) -> Option<Self> {
        Self::or_skipped(Self::find("PILLARBOX_TABLE_PEERS", "tables", programs))
    }

    /// The root directory with programs that look for weaknesses of TLS, if it has all of `programs`.
    pub fn of_scanners(programs: &[&str]) -> Option<Self> {
        Self::or_skipped(Self::find("PILLARBOX_TLS_PEERS", "scanners", programs))
    }

    /// The root directory with filters, if it has all of `programs`.
    pub fn of_filters(programs: &[&str]) -> Option<Self> {
        Self::or_skipped(Self::find("PILLARBOX_FILTER_PEERS", "filters", programs))
    }

    fn or_skipped(found: Result<Self, String>) -> Option<Self> {
        match found {
            Ok(peers) => Some(peers),
            Err(reason) => {
                let required = env::var_os("PILLARBOX_REQUIRE_INTEROP").is_some_and(|v| v == "1");
                assert!(!required, "{reason}");
                println!("skipped: {reason}");
                None
            }
        }
    }

    fn find(variable: &str, name: &str, programs: &[&str]) -> Result<Self, String> {
        if !is_root() {
            return Err("only root can run the programs of others in their own root".to_owned());
        }
        let root = match env::var_os(variable) {
            Some(named) => PathBuf::from(named),
            None => {
                let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
                let cache =
                    cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
                cache.ok_or("there is no home directory")?.join("pillarbox-bench").join(name)
            }
        };
        for program in programs {
            let path = root.join(program.trim_start_matches('/'));
            // Links in the root are meant for those who live there.
            if fs::symlink_metadata(&path).is_err() {
                return Err(format!("{} is not there (see {variable})", path.display()));
            }
        }
        Ok(Self { root })
    }

    /// The user id of an account in the root.
    pub fn uid(&self, account: &str) -> u32 {
        let accounts = fs::read_to_string(self.root.join("etc/passwd")).unwrap();
        let found = accounts.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == account).then(|| fields.nth(1)?.parse().ok())?
        });
        found.unwrap_or_else(|| panic!("the root has no account {account}"))
    }

    fn command(&self, work: &Path, words: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", SCRIPT, "sh"]);
        command.arg(&self.root).arg(work).args(words);
        command
    }

    /// Runs a client to its end; its transcript goes to a file and, if it fails, to the test. What it
    /// said.
    pub fn run(&self, name: &str, words: &[&str]) -> String {
        self.run_in(name, open_directory().path(), words)
    }

    /// As [`Peers::run`], with its files in `work`.
    pub fn run_in(&self, name: &str, work: &Path, words: &[&str]) -> String {
        let output = self.command(work, words).stdin(Stdio::null()).output().unwrap();
        let mut transcript = format!("$ {}\n", words.join(" ")).into_bytes();
        transcript.extend(&output.stdout);
        transcript.extend(&output.stderr);
        fs::write(transcripts().join(format!("{name}.log")), &transcript).unwrap();
        let said = String::from_utf8_lossy(&transcript);
        assert!(output.status.success(), "{name}: {}\n{said}", output.status);
        said.into_owned()
    }

    /// Starts `server` in this root, with the directory `libexec` in its own for helper programs.
    pub fn host(&self, server: &mut Server) {
        let directory = server.path("");
        copy_program(server.program("smtpd"), directory.join("smtpd"));
        let user = format!("{}:{}", server.account().uid, server.account().gid);
        let words = ["unshare", "--mount", "sh", "-c", HOST_SCRIPT, "sh"].map(OsString::from);
        let given = [self.root.clone().into(), directory.into(), OsString::from(user)];
        server.start_through(words.into_iter().chain(given).collect());
    }

    /// Starts a program with its files in `work`; `name` is that of its transcript.
    pub fn start(&self, name: &str, work: &Path, words: &[&str]) -> PeerProcess {
        let path = transcripts().join(format!("{name}.log"));
        let log = File::create(&path).unwrap();
        let mut command = self.command(work, words);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        PeerProcess { child: command.spawn().unwrap(), path }
    }

    /// Starts a server with its files in `work` and waits until it greets at `address`.
    pub fn serve(
        &self,
        name: &str,
        work: TempDir,
        words: &[&str],
        address: SocketAddr,
    ) -> PeerServer {
        let process = self.start(name, work.path(), words);
        let server = PeerServer { _process: process, work };
        wait_until(&format!("{name} greets"), SOON, || {
            Peer::connect(address).and_then(|mut peer| peer.reply()).is_ok()
        });
        server
    }
}

/// A running program of somebody else, killed when dropped, and its namespace with it.
pub struct PeerProcess {
    child: Child,
    path: PathBuf,
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        // Its first process takes the others with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = fs::read(&self.path).unwrap_or_default();
            eprintln!("{}:\n{}", self.path.display(), String::from_utf8_lossy(&said));
        }
    }
}

/// A running server of somebody else.
pub struct PeerServer {
    // Kept: ends with this value, before its directory.
    _process: PeerProcess,
    work: TempDir,
}

impl PeerServer {
    /// The directory that it has as `/mnt`.
    pub fn work(&self) -> &Path {
        self.work.path()
    }
}

impl Drop for PeerServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["log", "logs/mainlog", "logs/paniclog"] {
                if let Ok(text) = fs::read_to_string(self.work.path().join(name)) {
                    eprintln!("{name}:\n{text}");
                }
            }
        }
    }
}

/// Where transcripts are kept.
pub fn transcripts() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../interop");
    fs::create_dir_all(&path).unwrap();
    path
}
