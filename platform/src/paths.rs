//! Where things are on a system. Only defaults: options and `--state` override them.
//!
//! A packager sets another default in the environment of the build: `PILLARBOX_BUILD_CONFIG_DIR`,
//! `…_ALIASES`, `…_SPOOL`, `…_RUN_DIR`, `…_LIBEXEC`, `…_MBOX_SPOOL`, `…_EMPTY_DIR`.

use std::path::PathBuf;

use crate::{Host, Os};

/// The files and directories that the server uses on this system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Paths {
    /// Directory of `smtpd.conf` and `mailname`.
    pub config_dir: PathBuf,
    /// `smtpd.conf`.
    pub config_file: PathBuf,
    /// The server's name, first line.
    pub mailname: PathBuf,
    /// The system's aliases.
    pub aliases: PathBuf,
    /// The mail queue, and root directory of the queue process.
    pub spool: PathBuf,
    /// Directory of the control socket and the pid file.
    pub run_dir: PathBuf,
    /// The control socket.
    pub control_socket: PathBuf,
    /// The pid file.
    pub pid_file: PathBuf,
    /// Directory of helper, filter and table programs.
    pub libexec: PathBuf,
    /// Directory of users' mbox files.
    pub mbox_spool: PathBuf,
    /// An empty directory that nobody but root may write: root directory of most processes.
    pub empty_dir: PathBuf,
}

/// The part of [`Paths`] in which systems differ.
pub(crate) struct Places {
    pub(crate) config_dir: &'static str,
    pub(crate) aliases: &'static str,
    pub(crate) spool: &'static str,
    pub(crate) run_dir: &'static str,
    pub(crate) libexec: &'static str,
    pub(crate) mbox_spool: &'static str,
    pub(crate) empty_dir: &'static str,
}

impl Places {
    /// These places, or what the build said instead.
    pub(crate) fn paths(&self) -> Paths {
        let chosen = |built: Option<&str>, own: &str| PathBuf::from(built.unwrap_or(own));
        let config_dir = chosen(option_env!("PILLARBOX_BUILD_CONFIG_DIR"), self.config_dir);
        let run_dir = chosen(option_env!("PILLARBOX_BUILD_RUN_DIR"), self.run_dir);
        Paths {
            config_file: config_dir.join("smtpd.conf"),
            mailname: config_dir.join("mailname"),
            aliases: chosen(option_env!("PILLARBOX_BUILD_ALIASES"), self.aliases),
            spool: chosen(option_env!("PILLARBOX_BUILD_SPOOL"), self.spool),
            control_socket: run_dir.join("smtpd.sock"),
            pid_file: run_dir.join("smtpd.pid"),
            libexec: chosen(option_env!("PILLARBOX_BUILD_LIBEXEC"), self.libexec),
            mbox_spool: chosen(option_env!("PILLARBOX_BUILD_MBOX_SPOOL"), self.mbox_spool),
            empty_dir: chosen(option_env!("PILLARBOX_BUILD_EMPTY_DIR"), self.empty_dir),
            config_dir,
            run_dir,
        }
    }
}

/// Where things are on this system.
pub fn paths() -> Paths {
    Host.paths()
}

/// Files that may hold the certificates of public authorities; the first readable one counts.
pub const CA_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
    "/etc/openssl/certs/ca-certificates.crt",
];

#[cfg(test)]
mod tests {
    use super::paths;

    #[test]
    fn every_default_is_an_absolute_path_and_names_follow_their_directories() {
        let paths = paths();
        for path in [
            &paths.config_dir,
            &paths.config_file,
            &paths.mailname,
            &paths.aliases,
            &paths.spool,
            &paths.control_socket,
            &paths.pid_file,
            &paths.libexec,
            &paths.mbox_spool,
            &paths.empty_dir,
        ] {
            assert!(path.is_absolute(), "{path:?}");
        }
        assert_eq!(paths.config_file.parent(), Some(paths.config_dir.as_path()));
        assert_eq!(paths.control_socket, paths.run_dir.join("smtpd.sock"));
    }
}
