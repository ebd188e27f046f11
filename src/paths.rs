//! Where this daemon keeps its things: the system's places, or everything under one directory.

use std::path::{Path, PathBuf};

/// Places of one instance.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Places {
    /// The spool.
    pub spool: PathBuf,
    /// The control socket.
    pub control_socket: PathBuf,
    /// The pid file.
    pub pid_file: PathBuf,
    /// File whose first line is the name of this server.
    pub mailname: PathBuf,
    /// The configuration, unless another is named.
    pub config_file: PathBuf,
    /// Directory of helper programs.
    pub libexec: PathBuf,
    /// Directory of mailboxes.
    pub mailboxes: PathBuf,
    /// An empty directory, the root of roles that need no file.
    pub empty: PathBuf,
}

impl Places {
    /// The system's places, or those under `state` (smtpd(8), option `--state`).
    #[must_use]
    pub fn new(state: Option<&Path>) -> Self {
        let system = platform::paths();
        let base = Self {
            spool: system.spool,
            control_socket: system.control_socket,
            pid_file: system.pid_file,
            mailname: system.mailname,
            config_file: system.config_file,
            libexec: system.libexec,
            mailboxes: system.mbox_spool,
            empty: system.empty_dir,
        };
        let Some(state) = state else { return base };
        Self {
            spool: state.join("spool"),
            control_socket: state.join("run/smtpd.sock"),
            pid_file: state.join("run/smtpd.pid"),
            mailname: state.join("etc/mailname"),
            empty: state.join("run/empty"),
            ..base
        }
    }
}
