//! A server that root starts, with accounts of its own.
//!
//! It runs in a mount namespace in which `/etc/passwd`, `/etc/group`, the directories of system
//! mailboxes and of helper programs are files of the test: the machine's own stay as they are. So are
//! `/etc/shadow` and `/etc/pam.d`, if the test puts them below `etc`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use platform::privilege::is_root;
use platform::users::Account;

use super::account::{Programs, open_directory};
use super::server::Server;

/// The daemon's own accounts, as the test numbers them.
pub const SMTPD: u32 = 64_010;
/// The account of the spool.
pub const SMTPQ: u32 = 64_011;
/// A user.
pub const ALICE: u32 = 64_001;
/// Another user.
pub const BOB: u32 = 64_002;

const ACCOUNTS: [(&str, u32); 4] =
    [("_smtpd", SMTPD), ("_smtpq", SMTPQ), ("alice", ALICE), ("bob", BOB)];

/// Makes the mounts that its first argument describes and becomes the rest of its arguments.
const SCRIPT: &str = r#"
set -e
mount --bind "$1/etc/passwd" /etc/passwd
mount --bind "$1/etc/group" /etc/group
if [ -e "$1/etc/shadow" ]; then mount --bind "$1/etc/shadow" /etc/shadow; fi
if [ -d "$1/etc/pam.d" ]; then mount --bind "$1/etc/pam.d" /etc/pam.d; fi
mount --bind "$1/var-mail" /var/mail
mount --bind "$1/libexec" /usr/libexec
shift
exec "$@"
"#;

impl Server {
    /// Starts a server as root; `None`, with a printed reason, where that is not possible.
    pub fn start_as_root(config: &str) -> Option<Self> {
        Self::start_as_root_with(config, |_| {})
    }

    /// As [`Server::start_as_root`], in a directory with more in it: helper programs are in
    /// `libexec/opensmtpd` there.
    pub fn start_as_root_with(config: &str, fill: impl FnOnce(&Path)) -> Option<Self> {
        if !is_root() {
            println!("skipped: only root can start a server that changes users");
            return None;
        }
        let mut probe = Command::new("unshare");
        probe.args(["--mount", "mount", "--bind", "/etc/passwd", "/etc/passwd"]);
        if !probe.status().is_ok_and(|status| status.success()) {
            println!("skipped: this root may not make a mount namespace");
            return None;
        }
        if !Path::new("/usr/libexec").is_dir() {
            println!("skipped: there is no /usr/libexec to put helper programs over");
            return None;
        }
        let directory = open_directory();
        let path = directory.path();
        for name in ["etc", "home", "libexec", "libexec/opensmtpd", "mail", "var-mail"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        fs::set_permissions(path.join("mail"), fs::Permissions::from_mode(0o1777)).unwrap();
        let mut passwd = fs::read_to_string("/etc/passwd").unwrap();
        let mut group = fs::read_to_string("/etc/group").unwrap();
        let known =
            |line: &str| ACCOUNTS.iter().any(|(name, _)| line.split(':').next() == Some(name));
        for text in [&mut passwd, &mut group] {
            *text =
                text.lines().filter(|line| !known(line)).map(|line| format!("{line}\n")).collect();
        }
        for (name, id) in ACCOUNTS {
            let home = path.join("home").join(name);
            fs::create_dir(&home).unwrap();
            chown(&home, Some(id), Some(id)).unwrap();
            passwd.push_str(&format!("{name}:x:{id}:{id}::{}:/bin/sh\n", home.display()));
            group.push_str(&format!("{name}:x:{id}:\n"));
        }
        fs::write(path.join("etc/passwd"), passwd).unwrap();
        fs::write(path.join("etc/group"), group).unwrap();

        let programs = Programs::installed();
        super::install::copy_program(
            programs.path("mail.mda"),
            path.join("libexec/opensmtpd/mail.mda"),
        );

        fill(path);
        let words = ["unshare", "--mount", "sh", "-c", SCRIPT, "sh"].map(OsString::from);
        let words = words.into_iter().chain([path.into()]).collect();
        let root = Account {
            name: "root".to_owned(),
            uid: 0,
            gid: 0,
            gecos: String::new(),
            home: "/root".into(),
            shell: "/bin/sh".into(),
        };
        let mut server = Self::new(directory, root, config, &[]);
        server.start_through(words);
        Some(server)
    }
}
