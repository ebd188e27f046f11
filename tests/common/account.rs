//! Who the server runs as, and where its programs are for that account.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use platform::privilege::{effective_uid, is_root};
use platform::users::{Account, user_by_name, user_by_uid};
use tempfile::TempDir;

/// Programs under test by the names under which they are called.
const PROGRAMS: [(&str, &str); 5] = [
    ("mail.lmtp", env!("CARGO_BIN_EXE_mail-lmtp")),
    ("mail.mda", env!("CARGO_BIN_EXE_mail-mda")),
    ("smtp", env!("CARGO_BIN_EXE_smtp")),
    ("smtpctl", env!("CARGO_BIN_EXE_smtpctl")),
    ("smtpd", env!("CARGO_BIN_EXE_smtpd")),
];

/// The account of a rootless server: who runs the tests, or `nobody` if that is root.
pub fn ordinary_account() -> Account {
    let found = if is_root() { user_by_name("nobody") } else { user_by_uid(effective_uid()) };
    found.unwrap().expect("the account exists")
}

/// Lets `command` run as `account`, if the tests may choose.
pub fn become_account(command: &mut Command, account: &Account) {
    if is_root() {
        command.uid(account.uid).gid(account.gid);
    }
}

/// Gives `path` to `account`, if the tests may choose.
pub fn give(path: &Path, account: &Account) {
    if is_root() {
        chown(path, Some(account.uid), Some(account.gid)).unwrap();
    }
}

/// A temporary directory that every account may enter.
pub fn open_directory() -> TempDir {
    let directory = tempfile::Builder::new().prefix("pillarbox-").tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// The programs under their installed names, where every account can start them.
pub struct Programs {
    directory: TempDir,
}

impl Programs {
    /// Links to the programs as built, or copies if an ordinary account cannot reach those.
    pub fn installed() -> Arc<Self> {
        // Shared by the servers of this process, and removed with the last of them.
        static SHARED: Mutex<Weak<Programs>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(programs) = shared.upgrade() {
            return programs;
        }
        let programs = Arc::new(Self { directory: open_directory() });
        for (name, built) in PROGRAMS {
            symlink(built, programs.path(name)).unwrap();
        }
        if !programs.can_be_started() {
            for (name, built) in PROGRAMS {
                fs::remove_file(programs.path(name)).unwrap();
                super::install::copy_program(built, programs.path(name));
            }
        }
        *shared = Arc::downgrade(&programs);
        programs
    }

    fn can_be_started(&self) -> bool {
        let mut command = Command::new(self.path("smtpd"));
        command.arg("-h").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        become_account(&mut command, &ordinary_account());
        command.status().is_ok()
    }

    /// Where a program is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where all are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}
