//! Other people's mail programs: Postfix, Exim, Dovecot, swaks, Python.
//!
//! They are taken from a Debian root directory of their own (Postfix and Exim exclude each other on
//! one system), named by `PILLARBOX_PEERS`; without it, where `ci/bench` keeps its own. Each runs
//! in a mount and process namespace that ends with it, with its files in the directory of the test.
//! What they said is kept in `target/interop`.
//!
//! Without that directory or without root, tests are skipped with a printed reason, unless
//! `PILLARBOX_REQUIRE_INTEROP=1`.

use std::env;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use platform::privilege::is_root;
use tempfile::TempDir;

use super::account::open_directory;
use super::peer::Peer;
use super::wait::{SOON, wait_until};

/// Binds the test's directory to `/mnt` of the root and becomes a program in it.
const SCRIPT: &str = r#"
set -e
mount --bind "$2" "$1/mnt"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
root=$1
shift 2
exec chroot "$root" "$@"
"#;

/// The root directory with the programs.
#[derive(Clone, Debug)]
pub struct Peers {
    root: PathBuf,
}

impl Peers {
    /// The root directory, if it has all of `programs`.
    pub fn with(programs: &[&str]) -> Option<Self> {
        match Self::find(programs) {
            Ok(peers) => Some(peers),
            Err(reason) => {
                let required = env::var_os("PILLARBOX_REQUIRE_INTEROP").is_some_and(|v| v == "1");
                assert!(!required, "{reason}");
                println!("skipped: {reason}");
                None
            }
        }
    }

    fn find(programs: &[&str]) -> Result<Self, String> {
        if !is_root() {
            return Err("only root can run other mail servers in their own root".to_owned());
        }
        let root = match env::var_os("PILLARBOX_PEERS") {
            Some(named) => PathBuf::from(named),
            None => {
                let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
                let cache =
                    cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
                cache.ok_or("there is no home directory")?.join("pillarbox-bench/bookworm")
            }
        };
        for program in programs {
            let path = root.join(program.trim_start_matches('/'));
            // Links in the root are meant for those who live there.
            if fs::symlink_metadata(&path).is_err() {
                return Err(format!("{} is not there (see PILLARBOX_PEERS)", path.display()));
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

    /// Runs a client to its end; its transcript goes to a file and, if it fails, to the test.
    pub fn run(&self, name: &str, words: &[&str]) {
        let work = open_directory();
        let output = self.command(work.path(), words).stdin(Stdio::null()).output().unwrap();
        let mut transcript = format!("$ {}\n", words.join(" ")).into_bytes();
        transcript.extend(&output.stdout);
        transcript.extend(&output.stderr);
        fs::write(transcripts().join(format!("{name}.log")), &transcript).unwrap();
        let said = String::from_utf8_lossy(&transcript);
        assert!(output.status.success(), "{name}: {}\n{said}", output.status);
    }

    /// Starts a server with its files in `work` and waits until it greets at `address`.
    pub fn serve(
        &self,
        name: &str,
        work: TempDir,
        words: &[&str],
        address: SocketAddr,
    ) -> PeerServer {
        let path = transcripts().join(format!("{name}.log"));
        let log = File::create(&path).unwrap();
        let mut command = self.command(work.path(), words);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let server = PeerServer { child: command.spawn().unwrap(), work, path };
        wait_until(&format!("{name} greets"), SOON, || {
            Peer::connect(address).and_then(|mut peer| peer.reply()).is_ok()
        });
        server
    }
}

/// A running server of somebody else; its namespace ends with this value.
pub struct PeerServer {
    child: Child,
    work: TempDir,
    path: PathBuf,
}

impl PeerServer {
    /// The directory that it has as `/mnt`.
    pub fn work(&self) -> &Path {
        self.work.path()
    }
}

impl Drop for PeerServer {
    fn drop(&mut self) {
        // Its first process takes the others with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = fs::read(&self.path).unwrap_or_default();
            eprintln!("{}:\n{}", self.path.display(), String::from_utf8_lossy(&said));
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
