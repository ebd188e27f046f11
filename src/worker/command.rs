//! Running a delivery command: a shell that reads the message and may say something.
//!
//! The command leads a session of its own, has exactly the environment of [`environment`], the
//! message as standard input and one pipe for what it says. After its time the whole group is
//! killed. Who it runs as and in which directory is the worker's own identity and directory.
//!
//! Sources: the queue page of the specification, sections 5.2 and 5.5; smtpd.conf(5) on `mda`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use platform::fd::{pipe, set_nonblocking};
use platform::process::{
    ExitStatus, Interest, Pid, PollEntry, Signal, kill_group, poll, spawn, wait_for,
};

use super::format::for_environment;
use super::report::End;
use crate::model::{Mailbox, ReversePath};

/// How long a command may run.
pub const LIMIT: Duration = Duration::from_secs(300);
/// The shell that reads command lines.
pub const SHELL: &str = "/bin/sh";
/// Where commands are looked for.
pub const SEARCH_PATH: &str = "/usr/bin:/bin";

/// Bytes kept of what a command says: its end.
const OUTPUT: usize = 8 * 1024;

/// Facts of one delivery that its command is told.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Home of the delivery identity.
    pub home: &'a Path,
    /// The recipient's name in the userbase.
    pub username: &'a str,
    /// Sender of the message.
    pub sender: &'a ReversePath,
    /// The address given in RCPT.
    pub recipient: &'a Mailbox,
    /// The address after expansion.
    pub destination: &'a Mailbox,
    /// The sub-address; empty for none, and for commands of aliases.
    pub extension: &'a str,
}

/// The whole environment of a delivery command.
#[must_use]
pub fn environment(facts: &Facts<'_>) -> Vec<(OsString, OsString)> {
    let mut variables: Vec<(OsString, OsString)> = [
        ("PATH", SEARCH_PATH.to_owned()),
        ("DOMAIN", for_environment(facts.recipient.domain())),
        ("ORIGINAL_RECIPIENT", for_environment(facts.recipient.as_str())),
        ("RECIPIENT", for_environment(facts.destination.as_str())),
        ("SHELL", SHELL.to_owned()),
        ("LOCAL", for_environment(facts.recipient.local())),
        ("LOGNAME", facts.username.to_owned()),
        ("USER", facts.username.to_owned()),
        ("SENDER", for_environment(facts.sender.as_str())),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into();
    variables.push(("HOME".into(), facts.home.into()));
    if !facts.extension.is_empty() {
        variables.push(("EXTENSION".into(), for_environment(facts.extension).into()));
    }
    variables
}

/// How a command ended, and the end of what it said.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub end: End,
    /// The last 8 KiB of its standard output and standard error.
    pub output: Vec<u8>,
}

/// Runs `line` with the shell, with `prefix` and `message` as its input, for at most `limit`.
///
/// What the command starts in the background does not keep this from ending.
///
/// # Errors
/// The system's, when it cannot be started, and whatever reading `message` brings (the command is
/// then killed). No error says anything about the recipient: the delivery is tried again.
pub fn run(
    line: &str,
    environment: &[(OsString, OsString)],
    prefix: &str,
    message: &mut dyn BufRead,
    limit: Duration,
) -> io::Result<Finished> {
    let deadline = Instant::now() + limit;
    let (input, to_input) = pipe()?;
    let (from_output, output) = pipe()?;
    set_nonblocking(to_input.as_fd(), true)?;
    set_nonblocking(from_output.as_fd(), true)?;
    let mut feed = Feed { pipe: Some(to_input.into()), prefix: prefix.as_bytes(), message };
    // What fits is there before the command is: a small message is always read in full.
    feed.advance()?;
    let arguments = ["sh", "-c", line].map(OsString::from);
    let fds = [(input.as_fd(), 0), (output.as_fd(), 1), (output.as_fd(), 2)];
    let leader = spawn(Path::new(SHELL), &arguments, environment, &fds, true)?;
    drop((input, output));
    let child = Child::watch(leader)?;
    let mut said = Said { pipe: from_output.into(), tail: VecDeque::new(), open: true };

    let watched = watch(&child, &mut feed, &mut said, deadline);
    if !matches!(watched, Ok(true)) {
        child.kill();
    }
    let status = child.wait()?;
    said.read()?;
    let end = match (watched?, status) {
        (false, _) => End::Timeout,
        (true, ExitStatus::Signaled(signal)) => End::Signal(signal),
        (true, ExitStatus::Exited(0)) if feed.pipe.is_some() || feed.refused() => End::Premature,
        (true, ExitStatus::Exited(status)) => End::Exit(u8::try_from(status).unwrap_or(u8::MAX)),
    };
    Ok(Finished { end, output: said.tail.into() })
}

/// Feeds and listens until the command has ended (`true`) or `deadline` has passed (`false`).
fn watch(
    child: &Child,
    feed: &mut Feed<'_>,
    said: &mut Said,
    deadline: Instant,
) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let mut entries = vec![PollEntry::new(child.ended.as_fd(), Interest::Read)];
        let (listening, feeding) = (said.open, feed.pipe.is_some());
        if listening {
            entries.push(PollEntry::new(said.pipe.as_fd(), Interest::Read));
        }
        if let Some(pipe) = &feed.pipe {
            entries.push(PollEntry::new(pipe.as_fd(), Interest::Write));
        }
        poll(&mut entries, Some(left))?;
        let ended = entries.first().is_some_and(PollEntry::readable);
        let ready = |index: usize| entries.get(index).is_some_and(|e| e.readable() || e.writable());
        let (hear, write) = (listening && ready(1), feeding && ready(1 + usize::from(listening)));
        if ended {
            return Ok(true);
        }
        if hear {
            said.read()?;
        }
        if write {
            feed.advance()?;
        }
    }
}

/// The message on its way into the command.
struct Feed<'a> {
    /// `None` once everything was written.
    pipe: Option<File>,
    prefix: &'a [u8],
    message: &'a mut dyn BufRead,
}

impl Feed<'_> {
    /// Writes what fits, and closes the pipe after the last byte.
    fn advance(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        loop {
            let from_prefix = !self.prefix.is_empty();
            let chunk = if from_prefix { self.prefix } else { self.message.fill_buf()? };
            if chunk.is_empty() {
                break;
            }
            match pipe.write(chunk) {
                Ok(count) if from_prefix => {
                    self.prefix = self.prefix.get(count..).unwrap_or_default();
                }
                Ok(count) => self.message.consume(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // It reads no further; whether that matters is said by how it ends.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error),
            }
        }
        self.pipe = None;
        Ok(())
    }

    /// Whether the command closed its input before it had everything.
    fn refused(&mut self) -> bool {
        !self.prefix.is_empty() || self.message.fill_buf().map_or(true, |rest| !rest.is_empty())
    }
}

/// What the command says.
struct Said {
    pipe: File,
    tail: VecDeque<u8>,
    open: bool,
}

impl Said {
    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        // Bounded, or a background process that never stops talking would be heard for ever.
        for _ in 0..64 {
            match self.pipe.read(&mut buffer) {
                Ok(0) => {
                    self.open = false;
                    return Ok(());
                }
                Ok(count) => {
                    self.tail.extend(buffer.get(..count).unwrap_or_default());
                    let excess = self.tail.len().saturating_sub(OUTPUT);
                    self.tail.drain(..excess);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A running command, with a descriptor that becomes readable when it has ended.
struct Child {
    leader: Pid,
    ended: OwnedFd,
    waiter: thread::JoinHandle<io::Result<ExitStatus>>,
}

impl Child {
    fn watch(leader: Pid) -> io::Result<Self> {
        let (ended, alive) = pipe()?;
        let waiter = thread::Builder::new().name("command".to_owned()).spawn(move || {
            let status = wait_for(leader);
            drop(alive);
            status
        });
        match waiter {
            Ok(waiter) => Ok(Self { leader, ended, waiter }),
            Err(error) => {
                // Without a thread to wait for it, it must not run.
                let _ = kill_group(leader, Signal::Kill);
                wait_for(leader)?;
                Err(error)
            }
        }
    }

    fn kill(&self) {
        // It may have ended this moment, which is what is wanted.
        let _ = kill_group(self.leader, Signal::Kill);
    }

    fn wait(self) -> io::Result<ExitStatus> {
        self.waiter.join().unwrap_or_else(|_| Err(io::Error::other("the command was lost")))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::worker::report::Report;

    fn ran(line: &str, message: &[u8], limit: Duration) -> Finished {
        let mut message = message;
        let path = [("PATH".into(), SEARCH_PATH.into())];
        run(line, &path, "P: 1\n", &mut message, limit).unwrap()
    }

    fn ended(line: &str) -> End {
        ran(line, b"x\n", LIMIT).end
    }

    #[test]
    fn a_command_reads_the_message_and_is_heard() {
        let finished = ran("cat; echo error >&2", b"Subject: a\n\nbody", LIMIT);
        assert_eq!(finished.end, End::Exit(0));
        assert_eq!(finished.output, b"P: 1\nSubject: a\n\nbodyerror\n");
    }

    #[test]
    fn its_end_is_told() {
        // queue cases 136 and 137
        for status in [0, 1, 64, 69, 71, 75, 78] {
            assert_eq!(ended(&format!("exit {status}")), End::Exit(status));
        }
        assert_eq!(ended("kill -9 $$"), End::Signal(9));
        assert_eq!(ended("nosuchcommand 2>/dev/null"), End::Exit(127));
    }

    #[test]
    fn after_its_time_the_whole_group_is_killed() {
        // queue case 138
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let line = format!("(sleep 1; touch {}) & wait", mark.display());
        let finished = ran(&line, b"x", Duration::from_millis(200));
        assert_eq!(finished.end, End::Timeout);
        thread::sleep(Duration::from_millis(1200));
        assert!(!mark.exists(), "what it started was killed too");
    }

    #[test]
    fn success_needs_the_whole_message_to_be_read() {
        // queue case 139
        assert_eq!(ran("true", &vec![b'x'; 10 << 20], LIMIT).end, End::Premature);
        assert_eq!(ran("true", b"small", LIMIT).end, End::Exit(0));
        assert_eq!(ran("exec <&-; sleep 0.1; exit 0", b"small", LIMIT).end, End::Exit(0));
        assert_eq!(ran("exit 75", &vec![b'x'; 10 << 20], LIMIT).end, End::Exit(75));
        let large = ran("cat | wc -c", &vec![b'x'; 10 << 20], LIMIT);
        assert_eq!(large.end, End::Exit(0));
        assert_eq!(String::from_utf8_lossy(&large.output).trim(), "10485765");
    }

    #[test]
    fn a_background_process_does_not_hold_the_delivery_up() {
        let began = Instant::now();
        assert_eq!(ended("sleep 20 & exit 0"), End::Exit(0));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn only_the_end_of_much_output_is_kept() {
        let finished = ran("yes | head -n 100000; echo last; exit 1", b"x", LIMIT);
        assert!(finished.output.len() <= OUTPUT);
        assert!(finished.output.ends_with(b"y\nlast\n"));
        let report = Report::of_program(finished.end, &finished.output);
        assert_eq!(report.stat(), "Error (\"last\")");
    }

    #[test]
    fn the_environment_is_exactly_the_documented_one() {
        // queue case 133
        let (recipient, destination) =
            (Mailbox::parse("alice+Ext@env.test").unwrap(), Mailbox::parse("al$ice@d").unwrap());
        let mut facts = Facts {
            home: Path::new("/home/vmail"),
            username: "alice",
            sender: &ReversePath::NULL,
            recipient: &recipient,
            destination: &destination,
            extension: "ext",
        };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("e");
        let line = format!("env > {}", file.display());
        run(&line, &environment(&facts), "", &mut &b""[..], LIMIT).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let mut lines: Vec<&str> =
            text.lines().filter(|l| !l.starts_with("PWD=") && !l.starts_with('_')).collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "DOMAIN=env.test",
                "EXTENSION=ext",
                "HOME=/home/vmail",
                "LOCAL=alice+Ext",
                "LOGNAME=alice",
                "ORIGINAL_RECIPIENT=alice+Ext@env.test",
                "PATH=/usr/bin:/bin",
                "RECIPIENT=al:ice@d",
                "SENDER=",
                "SHELL=/bin/sh",
                "USER=alice",
            ]
        );
        facts.extension = "";
        assert!(environment(&facts).iter().all(|(name, _)| name != "EXTENSION"));
    }
}
