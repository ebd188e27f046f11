//! Table programs: programs of others that answer questions about a table.
//!
//! Each runs under the daemon's own user, in a session of its own, with one socket as standard input
//! and output and the environment of [`environment`]; what it writes to standard error joins our own
//! log in the foreground, and is lost otherwise. Who talks to it is not the spawner's business: it only sees that
//! there is one program for each table at most, and none when the daemon has gone.
//!
//! Source: smtpd-tables(7).

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use platform::privilege::Identity;
use platform::process::{ExitStatus, Pid, Signal, kill_group, spawn_as};

use crate::ipc::message::spawner::{Account, ProgramOrder, SpawnerSetup};

/// Where programs look for others.
const SEARCH_PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin";

/// The programs that run.
#[derive(Debug)]
pub(super) struct Programs {
    /// The log is on standard error.
    foreground: bool,
    running: Vec<Program>,
}

#[derive(Debug)]
struct Program {
    pid: Pid,
    table: String,
    /// It was told to end, and how it does so is its own affair.
    dismissed: bool,
}

impl Programs {
    /// None yet, of a daemon that runs in the foreground or not.
    pub(super) fn new(foreground: bool) -> Self {
        Self { foreground, running: Vec::new() }
    }

    /// Starts the program of a table, and ends the one that there was; `channel` is its end of the
    /// socket.
    pub(super) fn start(
        &mut self,
        setup: &SpawnerSetup,
        order: ProgramOrder,
        channel: Option<OwnedFd>,
    ) -> io::Result<()> {
        let channel = channel.ok_or_else(|| io::Error::other("no channel came with the order"))?;
        let ProgramOrder { table, backend, parameter } = order;
        if backend.is_empty() || backend.contains('/') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of a program"));
        }
        let identity = match &setup.daemon {
            Some(account) => Some(identity_of(account)),
            None if setup.rootless => None,
            None => return Err(io::Error::other("there is no account for the daemon")),
        };
        for program in self.running.iter_mut().filter(|program| program.table == table) {
            program.dismiss();
        }
        let path = Path::new(&setup.libexec).join(format!("table-{backend}"));
        let mut arguments = vec![OsString::from(&table)];
        arguments.extend(parameter.map(OsString::from));
        let errors = io::stderr();
        let mut descriptors = vec![(channel.as_fd(), 0), (channel.as_fd(), 1)];
        // Whoever started a daemon may have closed this one long ago.
        descriptors.extend(self.foreground.then_some((errors.as_fd(), 2)));
        let environment = environment(setup.daemon.as_ref());
        let pid = spawn_as(identity.as_ref(), &path, &arguments, &environment, &descriptors)?;
        self.running.push(Program { pid, table, dismissed: false });
        Ok(())
    }

    /// Notes that this child has ended, if it was one of them.
    pub(super) fn ended(&mut self, pid: Pid, status: ExitStatus) {
        let Some(index) = self.running.iter().position(|program| program.pid == pid) else {
            return;
        };
        let program = self.running.swap_remove(index);
        match status {
            ExitStatus::Signaled(_) if !program.dismissed => {
                tracing::warn!("warn: program of table {} ended: {status}", program.table);
            }
            _ => tracing::debug!("debug: program of table {} ended: {status}", program.table),
        }
    }

    /// Ends all of them: the daemon ends.
    pub(super) fn end(&mut self) {
        for program in &mut self.running {
            program.dismiss();
        }
    }
}

impl Program {
    fn dismiss(&mut self) {
        self.dismissed = true;
        // It may have ended this moment, which is what is wanted.
        let _ = kill_group(self.pid, Signal::Kill);
    }
}

fn identity_of(account: &Account) -> Identity {
    Identity { uid: account.uid, gid: account.gid, groups: account.groups.clone() }
}

/// The whole environment of a program.
pub(super) fn environment(account: Option<&Account>) -> Vec<(OsString, OsString)> {
    let home = account.map_or("/", |account| account.home.as_str());
    let mut variables = vec![("PATH", SEARCH_PATH), ("SHELL", "/bin/sh"), ("HOME", home)];
    if let Some(account) = account {
        variables.extend([("USER", account.name.as_str()), ("LOGNAME", account.name.as_str())]);
    }
    variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream;

    use platform::process::wait_for;

    use super::*;

    fn setup(libexec: &Path) -> SpawnerSetup {
        SpawnerSetup {
            daemon: None,
            mailboxes: String::new(),
            libexec: libexec.to_str().unwrap().to_owned(),
            server_name: String::new(),
            rootless: true,
        }
    }

    fn order(backend: &str) -> ProgramOrder {
        ProgramOrder {
            table: "users".to_owned(),
            backend: backend.to_owned(),
            parameter: Some("/etc/users".to_owned()),
        }
    }

    fn start(programs: &mut Programs, setup: &SpawnerSetup) -> UnixStream {
        let (ours, theirs) = platform::fd::socketpair().unwrap();
        programs.start(setup, order("say"), Some(theirs)).unwrap();
        UnixStream::from(ours)
    }

    #[test]
    fn a_program_has_its_words_one_socket_and_a_clean_environment() {
        let directory = tempfile::tempdir().unwrap();
        let (text, path) = (directory.path().join("text"), directory.path().join("table-say"));
        let script = "#!/bin/sh\nread line\necho \"$line ${0##*/} $1 $#\"\nenv | sort\nsleep 60\n";
        fs::write(&text, script).unwrap();
        fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
        // By a process of its own: what a child of another thread has open for writing cannot be
        // executed.
        let copied = std::process::Command::new("cp").arg(&text).arg(&path).status();
        assert!(copied.unwrap().success());
        let (mut programs, setup) = (Programs::new(true), setup(directory.path()));

        let mut first = start(&mut programs, &setup);
        io::Write::write_all(&mut first, b"hello\n").unwrap();
        let mut said = String::new();
        // A second program for the same table ends the first: only then is this socket at its end.
        let second = start(&mut programs, &setup);
        let ended = programs.running[0].pid;
        assert_eq!(wait_for(ended).unwrap(), ExitStatus::Signaled(9));
        programs.ended(ended, ExitStatus::Signaled(9));
        assert_eq!(programs.running.len(), 1);
        // How far the first came is its own affair.
        let _ = first.read_to_string(&mut said);

        let mut third = second;
        io::Write::write_all(&mut third, b"hello\n").unwrap();
        let mut text = String::new();
        while !text.contains("SHELL=/bin/sh\n") {
            let mut buffer = [0; 512];
            let count = third.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "{text}");
            text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        assert!(text.starts_with("hello table-say /etc/users 1\n"), "{text}");
        let foreign = text.lines().skip(1).find(|line| {
            let known = ["HOME=/", "PATH=", "PWD=", "SHELL=", "SHLVL=", "_=", "OLDPWD="];
            !known.iter().any(|known| line.starts_with(known))
        });
        assert_eq!(foreign, None, "{text}");
        let last = programs.running[0].pid;
        programs.end();
        assert_eq!(wait_for(last).unwrap(), ExitStatus::Signaled(9));
    }

    #[test]
    fn what_is_no_program_is_not_started() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("table-plain"), "").unwrap();
        let (mut programs, setup) = (Programs::new(true), setup(directory.path()));
        let cases = [
            ("plain", io::ErrorKind::PermissionDenied),
            ("none", io::ErrorKind::NotFound),
            ("../x", io::ErrorKind::InvalidInput),
            ("", io::ErrorKind::InvalidInput),
        ];
        for (backend, expected) in cases {
            let (_ours, theirs) = platform::fd::socketpair().unwrap();
            let error = programs.start(&setup, order(backend), Some(theirs)).unwrap_err();
            assert_eq!(error.kind(), expected, "{backend}");
        }
        assert!(programs.running.is_empty());
    }
}
