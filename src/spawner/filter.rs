//! Filter programs: programs of others that decide about sessions.
//!
//! Each runs through the shell, under the user that is configured for it, in a session of its own,
//! with a pipe each as standard input, output and error, and the environment of [`environment`]. Who talks to it is not the spawner's business: it only sees that there is one
//! for each number at most, and none when the daemon has gone; and it remembers how the last one
//! ended.
//!
//! Source: section 5.2 of the SMTP page; smtpd-filters(7).

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use platform::privilege::Identity;
use platform::process::{ExitStatus, Pid, Signal, kill_group, spawn_in};

use super::program::environment;
use crate::ipc::message::spawner::{FilterOrder, FilterStream, SpawnerSetup};

/// Longest command, in bytes.
const MAX_COMMAND: usize = 4096;

/// The filter programs that run.
#[derive(Debug, Default)]
pub(super) struct Filters {
    running: Vec<Filter>,
    /// How those ended that do not run, by number.
    ended: HashMap<u32, String>,
    /// Ends to read from that nobody has asked for yet, by number. A program may have ended by then:
    /// what it said is there all the same.
    streams: HashMap<(u32, FilterStream), OwnedFd>,
}

#[derive(Debug)]
struct Filter {
    pid: Pid,
    process: u32,
    /// It was told to end, and how it does so is its own affair.
    dismissed: bool,
}

impl Filters {
    /// Starts a program, and ends the one that there was; `input` is its standard input. Answers how its predecessor had ended by itself.
    pub(super) fn start(
        &mut self,
        setup: &SpawnerSetup,
        order: FilterOrder,
        input: Option<OwnedFd>,
    ) -> (io::Result<()>, Option<String>) {
        let ended = self.ended.remove(&order.process);
        for filter in self.running.iter_mut().filter(|filter| filter.process == order.process) {
            filter.dismiss();
        }
        (self.launch(setup, order, input), ended)
    }

    fn launch(
        &mut self,
        setup: &SpawnerSetup,
        order: FilterOrder,
        input: Option<OwnedFd>,
    ) -> io::Result<()> {
        let input = input.ok_or_else(|| io::Error::other("no input came with the order"))?;
        let FilterOrder { process, command, account, group, root } = order;
        let identity = match &account {
            Some(account) => {
                let gid = group.unwrap_or(account.gid);
                Some(Identity { uid: account.uid, gid, groups: vec![gid] })
            }
            None if setup.rootless => None,
            None => return Err(io::Error::other("there is no account for it")),
        };
        let begin = if command.starts_with('/') {
            "exec ".to_owned()
        } else {
            format!("exec {}/", setup.libexec)
        };
        let line = format!("{begin}{command}");
        if line.len() > MAX_COMMAND {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "exec path too long"));
        }
        let (output, their_output) = platform::fd::pipe()?;
        let (errors, their_errors) = platform::fd::pipe()?;
        let arguments = ["sh".into(), "-c".into(), OsString::from(line)];
        let descriptors =
            [(input.as_fd(), 0), (their_output.as_fd(), 1), (their_errors.as_fd(), 2)];
        let started = spawn_in(
            root.as_deref().map(Path::new),
            identity.as_ref(),
            Path::new("/bin/sh"),
            &arguments,
            &environment(account.as_ref()),
            &descriptors,
        );
        // Most often the directory is not there, or has no shell in it.
        let pid = started.map_err(|error| match root {
            Some(root) => io::Error::new(error.kind(), format!("chroot {root}: {error}")),
            None => error,
        })?;
        self.streams.insert((process, FilterStream::Output), output);
        self.streams.insert((process, FilterStream::Errors), errors);
        self.running.push(Filter { pid, process, dismissed: false });
        Ok(())
    }

    /// Hands out what a program writes to, once.
    pub(super) fn stream(&mut self, process: u32, stream: FilterStream) -> Option<OwnedFd> {
        self.streams.remove(&(process, stream))
    }

    /// Notes that this child has ended, if it was one of them.
    pub(super) fn ended(&mut self, pid: Pid, status: ExitStatus) {
        let Some(index) = self.running.iter().position(|filter| filter.pid == pid) else { return };
        let filter = self.running.swap_remove(index);
        if filter.dismissed {
            return;
        }
        // What it has started may hold the channel open, which then seems to be served. As long as
        // there is any of that, nobody else gets the number.
        let _ = kill_group(filter.pid, Signal::Kill);
        let how = match status {
            ExitStatus::Exited(_) => "exited abnormally".to_owned(),
            ExitStatus::Signaled(signal) => format!("terminated; signal {signal}"),
        };
        self.ended.insert(filter.process, how);
    }

    /// Ends all of them: the daemon ends.
    pub(super) fn end(&mut self) {
        for filter in &mut self.running {
            filter.dismiss();
        }
    }
}

impl Filter {
    fn dismiss(&mut self) {
        self.dismissed = true;
        // It may have ended this moment, which is what is wanted.
        let _ = kill_group(self.pid, Signal::Kill);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    use platform::process::wait_for;

    use super::*;
    use crate::spec_case::ran;

    fn setup(libexec: &str) -> SpawnerSetup {
        SpawnerSetup {
            daemon: None,
            mailboxes: String::new(),
            libexec: libexec.to_owned(),
            server_name: String::new(),
            rootless: true,
        }
    }

    fn order(command: &str) -> FilterOrder {
        let (account, group, root) = (None, None, None);
        FilterOrder { process: 7, command: command.to_owned(), account, group, root }
    }

    /// Starts a program; the end to write its input to, and how its predecessor had ended.
    fn start(filters: &mut Filters, libexec: &str, command: &str) -> (OwnedFd, Option<String>) {
        let (theirs, ours) = platform::fd::pipe().unwrap();
        let (started, ended) = filters.start(&setup(libexec), order(command), Some(theirs));
        started.unwrap();
        (ours, ended)
    }

    /// All that the program writes to one of its streams.
    fn all(filters: &mut Filters, stream: FilterStream) -> String {
        let mut text = String::new();
        File::from(filters.stream(7, stream).unwrap()).read_to_string(&mut text).unwrap();
        text
    }

    /// Waits for the end of the program that was started last.
    fn end(filters: &mut Filters) -> ExitStatus {
        let pid = filters.running.last().unwrap().pid;
        let status = wait_for(pid).unwrap();
        filters.ended(pid, status);
        status
    }

    #[test]
    fn commands_run_through_the_shell_from_the_directory_of_helpers_or_as_they_are() {
        let mut filters = Filters::default();
        for (libexec, command) in [("/nowhere", "/bin/echo -a"), ("/bin", "echo -a")] {
            let (_input, ended) = start(&mut filters, libexec, command);
            let said = all(&mut filters, FilterStream::Output);
            assert_eq!((said.as_str(), ended), ("-a\n", None));
            end(&mut filters);
            filters.ended.clear();
        }
        ran("filter", 12);
    }

    #[test]
    fn how_a_program_ended_is_told_to_who_starts_the_next() {
        let mut filters = Filters::default();
        start(&mut filters, "/bin", "true");
        end(&mut filters);
        let (_, ended) = start(&mut filters, "/bin", "sh -c 'kill -9 $$'");
        assert_eq!(ended.as_deref(), Some("exited abnormally"));
        end(&mut filters);
        let (_input, ended) = start(&mut filters, "/bin", "sleep 60");
        assert_eq!(ended.as_deref(), Some("terminated; signal 9"));
        // One that runs makes place for the next, and that is nobody's fault.
        let sleeper = filters.running.last().unwrap().pid;
        let (_, ended) = start(&mut filters, "/bin", "true");
        assert_eq!(ended, None);
        let status = wait_for(sleeper).unwrap();
        assert_eq!(status, ExitStatus::Signaled(9));
        filters.ended(sleeper, status);
        end(&mut filters);
    }

    #[test]
    fn the_end_of_a_program_closes_its_channel_whatever_it_has_started() {
        let mut filters = Filters::default();
        let (_input, _) = start(&mut filters, "/bin", "sh -c 'sleep 60 & kill -9 $$'");
        end(&mut filters);
        let begun = std::time::Instant::now();
        assert_eq!(all(&mut filters, FilterStream::Output), "");
        assert!(begun.elapsed() < std::time::Duration::from_secs(20));
    }

    #[test]
    fn what_a_program_writes_is_handed_out_once() {
        let mut filters = Filters::default();
        let command = "sh -c 'read line; echo \"$line\"; echo hi >/dev/stderr; echo \"$SHELL$LD_PRELOAD\" >&2'";
        let (input, _) = start(&mut filters, "/bin", command);
        File::from(input).write_all(b"line\n").unwrap();
        assert_eq!(all(&mut filters, FilterStream::Errors), "hi\n/bin/sh\n");
        assert_eq!(all(&mut filters, FilterStream::Output), "line\n");
        for stream in [FilterStream::Errors, FilterStream::Output] {
            assert!(filters.stream(7, stream).is_none() && filters.stream(8, stream).is_none());
        }
        end(&mut filters);
        // What does not exist says so there: the shell does.
        start(&mut filters, "/nowhere", "program");
        assert_eq!(end(&mut filters), ExitStatus::Exited(127));
        assert!(all(&mut filters, FilterStream::Errors).contains("not found"));
        ran("filter", 13);
    }

    #[test]
    fn what_cannot_be_started_is_told() {
        let mut filters = Filters::default();
        let (theirs, _ours) = platform::fd::pipe().unwrap();
        let long = order(&"x".repeat(5000));
        let (error, _) = filters.start(&setup("/bin"), long, Some(theirs));
        assert_eq!(error.unwrap_err().to_string(), "exec path too long");
        let (error, _) = filters.start(&setup("/bin"), order("true"), None);
        assert!(error.is_err() && filters.running.is_empty());
        let (theirs, _ours) = platform::fd::pipe().unwrap();
        let nobody = SpawnerSetup { rootless: false, ..setup("/bin") };
        let (error, _) = filters.start(&nobody, order("true"), Some(theirs));
        assert!(error.is_err());
    }
}
