//! Submitting the messages that `sendmail` kept while the server was down.
//!
//! The parent orders it once after a start. Each file is opened here, without following links and
//! before anything is believed about it; a child then becomes its owner for good and runs
//! `sendmail` with the descriptor. A file is locked while it is being submitted, by this process
//! and by the child alike, so that none is submitted twice whoever of them ends early.
//!
//! This is the one duty of a worker that keeps the spawner's rights: it has no message of anybody
//! in its memory but the first line of a file.
//!
//! Sources: the queue page of the specification, 1.10; cases 194 and 196; smtpctl(8), option `-S`.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use platform::dir::{Access, Dir, Lock};
use platform::privilege::{Identity, drop_to, effective_uid};
use platform::process::{
    ExitStatus, Interest, Pid, PollEntry, Signal, SignalPipe, close_all_except, exec, poll, reap,
    run_in_child, set_standard_streams, signal,
};
use platform::users::{supplementary_groups, user_by_uid};

use super::command::SEARCH_PATH;
use super::serve::Control;
use crate::ipc::message::spawner::OfflineOrder;

/// Files of one pass.
const PASS: usize = 21;
/// Time between the end of a pass and the next one.
const PAUSE: Duration = Duration::from_millis(100);
/// Submissions at once.
const AT_ONCE: usize = 5;
/// How long one submission may take.
const LIMIT: Duration = Duration::from_secs(300);
/// Longest first line, in bytes: about what a system takes as arguments.
const MAX_LINE: u64 = 1 << 20;

/// Submits what is in the directory of `order`; stops early when the spawner is gone.
///
/// # Errors
/// The directory cannot be read, or the system refuses to wait. Single files are only logged.
pub(super) fn submit(control: Control, order: &OfflineOrder, rootless: bool) -> io::Result<()> {
    let path = PathBuf::from(&order.directory);
    let directory = Dir::open(&path)?;
    let group = File::from(directory.as_fd().try_clone_to_owned()?).metadata()?.gid();
    let mut names = directory.names()?;
    // Those that begin with a dot are being written. The others begin with the time.
    names.retain(|name| !name.starts_with('.'));
    names.sort_unstable();
    let program = platform::process::current_executable()?.with_file_name("smtpctl");
    let signals = SignalPipe::new(&[Signal::Child])?;
    let place = Place { path, directory, group, owner: rootless.then(effective_uid) };
    let sendmail = Sendmail { program, state: order.state.clone(), rootless };
    let mut scan = Scan { place, sendmail, control: Some(control), signals, running: Vec::new() };
    scan.run(names.into())
}

/// A pass over the directory under way.
struct Scan {
    place: Place,
    sendmail: Sendmail,
    /// `None` once the spawner is gone.
    control: Option<Control>,
    signals: SignalPipe,
    running: Vec<Submission>,
}

/// A file whose `sendmail` runs.
struct Submission {
    name: String,
    pid: Pid,
    deadline: Instant,
    _lock: Lock,
}

impl Scan {
    fn run(&mut self, mut names: VecDeque<String>) -> io::Result<()> {
        let mut pace = Pace::new();
        loop {
            while self.control.is_some()
                && self.running.len() < AT_ONCE
                && !names.is_empty()
                && pace.allows(Instant::now())
            {
                if let Some(name) = names.pop_front() {
                    self.begin(name);
                }
            }
            if self.control.is_none() {
                names.clear();
            }
            if self.running.is_empty() && names.is_empty() {
                return Ok(());
            }
            let pause = if names.is_empty() { None } else { pace.resumes() };
            self.wait(pause)?;
            self.reap()?;
        }
    }

    fn begin(&mut self, name: String) {
        let started = self.place.take(&name).and_then(|taken| match taken {
            Taken::Nothing => Ok(None),
            Taken::Message { file, lock, owner, arguments } => {
                let pid = run_in_child(|| self.sendmail.run(&file, owner, &arguments))?;
                Ok(Some((pid, lock)))
            }
        });
        match started {
            Ok(None) => {}
            Ok(Some((pid, lock))) => {
                let deadline = Instant::now() + LIMIT;
                self.running.push(Submission { name, pid, deadline, _lock: lock });
            }
            Err(error) => {
                let path = self.place.path.join(&name);
                tracing::warn!("warn: smtpd: offline message {}: {error}", path.display());
            }
        }
    }

    /// Waits until a submission has ended, the next pass begins or the spawner is gone.
    fn wait(&mut self, pause: Option<Instant>) -> io::Result<()> {
        let deadlines = self.running.iter().map(|submission| submission.deadline);
        let next = deadlines.chain(pause).min();
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        let mut entries = vec![PollEntry::new(self.signals.as_fd(), Interest::Read)];
        let control = self.control.iter().map(Control::descriptor);
        entries.extend(control.map(|control| PollEntry::new(control, Interest::Read)));
        poll(&mut entries, left)?;
        let spoke = entries.get(1).is_some_and(PollEntry::readable);
        drop(entries);
        while self.signals.next()?.is_some() {}
        // It says nothing after the order: this is its end.
        if spoke && let Some(control) = &mut self.control {
            let ended = control.fill().is_err() || control.next_message().is_err();
            if ended {
                self.control = None;
            }
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        while let Some((pid, status)) = reap()? {
            let index = self.running.iter().position(|submission| submission.pid == pid);
            if let Some(index) = index {
                let submission = self.running.swap_remove(index);
                self.place.settle(&submission.name, status);
            }
        }
        let now = Instant::now();
        for submission in &mut self.running {
            if submission.deadline <= now {
                // It may have ended this moment, which is what is wanted.
                let _ = signal(submission.pid, Signal::Kill);
                submission.deadline = now + LIMIT;
            }
        }
        Ok(())
    }
}

/// When files may be begun: [`PASS`] of them, then a pause.
#[derive(Debug)]
struct Pace {
    left: usize,
    resumes: Option<Instant>,
}

impl Pace {
    const fn new() -> Self {
        Self { left: PASS, resumes: None }
    }

    /// Whether the next file may be begun at `now`; counts it if so.
    fn allows(&mut self, now: Instant) -> bool {
        if self.resumes.is_some_and(|resumes| resumes <= now) {
            *self = Self::new();
        }
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        if self.left == 0 {
            self.resumes = Some(now + PAUSE);
        }
        true
    }

    /// When a pause ends, if there is one.
    const fn resumes(&self) -> Option<Instant> {
        self.resumes
    }
}

/// The directory, and what a file in it must be.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    directory: Dir,
    /// The group of the directory, which only `sendmail` can give a file.
    group: u32,
    /// The only owner that counts; everybody when the ids can be changed.
    owner: Option<u32>,
}

/// What a name stood for.
#[derive(Debug)]
enum Taken {
    /// A message to submit, read up to the end of its first line.
    Message { file: File, lock: Lock, owner: u32, arguments: Vec<OsString> },
    /// Nothing to do: it was empty, is gone, or is being submitted.
    Nothing,
}

impl Place {
    /// Opens and locks a file; an empty one is removed.
    fn take(&self, name: &str) -> io::Result<Taken> {
        let refused = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why.to_owned()));
        let mut file = match self.directory.open_file(name, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Taken::Nothing),
            Err(error) => return Err(error),
        };
        if !file.metadata()?.is_file() {
            return refused("not a regular file");
        }
        let Some(lock) = Lock::try_exclusive(file.try_clone()?)? else { return Ok(Taken::Nothing) };
        // Only now: whoever had the lock may have submitted it.
        let found = file.metadata()?;
        match found.nlink() {
            0 => return Ok(Taken::Nothing),
            1 => {}
            _ => return refused("it has other names"),
        }
        if found.gid() != self.group {
            return refused("its group is not that of the directory");
        }
        if self.owner.is_some_and(|owner| owner != found.uid()) {
            return refused("it belongs to somebody else");
        }
        if found.len() == 0 {
            self.directory.unlink(name)?;
            return Ok(Taken::Nothing);
        }
        let arguments = read_arguments(&mut file)?;
        Ok(Taken::Message { file, lock, owner: found.uid(), arguments })
    }

    /// Removes what was submitted; says what was not.
    fn settle(&self, name: &str, status: ExitStatus) {
        let path = self.path.join(name);
        let path = path.display();
        let cause = match status {
            ExitStatus::Exited(0) => {
                if let Err(error) = self.directory.unlink(name) {
                    tracing::warn!("warn: smtpd: offline message {path} stays: {error}");
                }
                return;
            }
            ExitStatus::Exited(_) => "exited abnormally".to_owned(),
            ExitStatus::Signaled(signal) => format!("terminated; signal {signal}"),
        };
        tracing::warn!("warn: smtpd: couldn't enqueue offline message {path}; smtpctl {cause}");
    }
}

/// Reads the first line, and leaves the file where the message begins.
fn read_arguments(file: &mut File) -> io::Result<Vec<OsString>> {
    let mut line = Vec::new();
    BufReader::new((&*file).take(MAX_LINE)).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its first line does not end"));
    }
    file.seek(SeekFrom::Start(line.len() as u64 + 1))?;
    if line.is_empty() {
        return Ok(Vec::new());
    }
    let words = line.split(|byte| *byte == b'|');
    Ok(words.map(|word| OsStr::from_bytes(word).to_owned()).collect())
}

/// How `sendmail` is run.
#[derive(Debug)]
struct Sendmail {
    program: PathBuf,
    state: Option<String>,
    rootless: bool,
}

impl Sendmail {
    /// In a child: becomes the owner of the message and then `sendmail`. Answers if that failed.
    fn run(&self, file: &File, owner: u32, arguments: &[OsString]) -> i32 {
        let words = self.words(arguments);
        let ready = self.become_owner(owner).and_then(|()| {
            set_standard_streams(file)?;
            close_all_except(&[0, 1, 2]);
            Ok(())
        });
        match ready {
            Ok(()) => {
                let environment = [("PATH".into(), SEARCH_PATH.into())];
                let _why = exec(&self.program, &words, &environment);
                127
            }
            Err(error) => {
                tracing::warn!("warn: smtpd: offline message of user {owner}: {error}");
                1
            }
        }
    }

    fn words(&self, arguments: &[OsString]) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["sendmail".into(), "-S".into()];
        // As an option it counts for root, too, and whoever owns the directory.
        words.extend(self.state.iter().flat_map(|state| ["--state".into(), state.into()]));
        words.extend_from_slice(arguments);
        words
    }

    fn become_owner(&self, owner: u32) -> io::Result<()> {
        let account = user_by_uid(owner)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such account"))?;
        if !self.rootless {
            let groups = supplementary_groups(&account.name, account.gid)?;
            drop_to(&Identity { uid: owner, gid: account.gid, groups })?;
        }
        std::env::set_current_dir(&account.home)
            .or_else(|_| std::env::set_current_dir(Path::new("/")))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn place(directory: &Path) -> Place {
        let group = fs::metadata(directory).unwrap().gid();
        let (path, directory) = (directory.to_owned(), Dir::open(directory).unwrap());
        Place { path, directory, group, owner: Some(effective_uid()) }
    }

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    // queue case 194
    #[test]
    fn the_first_line_is_the_command_line_and_the_rest_the_message() {
        let directory = tempfile::tempdir().unwrap();
        let long = format!("{}\nx", "a".repeat(1 << 20));
        let cases = [
            (
                "-t|-f||a b\nSubject: x\n\ny\n",
                Some((words(&["-t", "-f", "", "a b"]), "Subject: x\n\ny\n")),
            ),
            ("\nx", Some((vec![], "x"))),
            ("-t\n", Some((words(&["-t"]), ""))),
            ("-t", None),
            (long.as_str(), None),
        ];
        for (content, expected) in cases {
            fs::write(directory.path().join("1.a"), content).unwrap();
            let taken = place(directory.path()).take("1.a");
            let found = taken.ok().map(|taken| match taken {
                Taken::Message { mut file, arguments, .. } => {
                    let mut rest = String::new();
                    file.read_to_string(&mut rest).unwrap();
                    (arguments, rest)
                }
                Taken::Nothing => panic!("not taken"),
            });
            let expected = expected.map(|(arguments, rest)| (arguments, rest.to_owned()));
            assert_eq!(found, expected);
        }
    }

    // queue case 196
    #[test]
    fn an_empty_file_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("1.a"), "").unwrap();
        assert!(matches!(place(directory.path()).take("1.a").unwrap(), Taken::Nothing));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(matches!(place(directory.path()).take("1.a").unwrap(), Taken::Nothing));
    }

    #[test]
    fn what_could_be_a_trick_is_refused_and_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::write(path.join("named"), "-t\nx").unwrap();
        fs::hard_link(path.join("named"), path.join("twice")).unwrap();
        symlink("/etc/passwd", path.join("link")).unwrap();
        fs::create_dir(path.join("directory")).unwrap();
        fs::write(path.join("plain"), "-t\nx").unwrap();
        let own = place(path);
        for name in ["named", "twice", "link", "directory"] {
            assert!(own.take(name).is_err(), "{name}");
        }
        assert!(matches!(own.take("plain").unwrap(), Taken::Message { .. }));
        let strict = [
            Place { owner: Some(effective_uid() + 1), ..place(path) },
            Place { group: own.group + 1, ..place(path) },
        ];
        for place in strict {
            assert!(place.take("plain").is_err(), "{place:?}");
        }
        assert_eq!(fs::read_dir(path).unwrap().count(), 5);
    }

    #[test]
    fn a_file_is_submitted_by_one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("1.a"), "-t\nx").unwrap();
        let held = place(directory.path()).take("1.a").unwrap();
        assert!(matches!(held, Taken::Message { .. }));
        assert!(matches!(place(directory.path()).take("1.a").unwrap(), Taken::Nothing));
        drop(held);
        assert!(matches!(place(directory.path()).take("1.a").unwrap(), Taken::Message { .. }));
    }

    #[test]
    fn only_what_was_submitted_goes() {
        let directory = tempfile::tempdir().unwrap();
        for (status, stays) in [
            (ExitStatus::Exited(75), true),
            (ExitStatus::Signaled(9), true),
            (ExitStatus::Exited(0), false),
        ] {
            fs::write(directory.path().join("1.a"), "-t\nx").unwrap();
            place(directory.path()).settle("1.a", status);
            assert_eq!(directory.path().join("1.a").exists(), stays, "{status}");
        }
    }

    #[test]
    fn twenty_one_files_are_begun_before_a_pause() {
        let (mut pace, start) = (Pace::new(), Instant::now());
        for pass in 0..3 {
            let now = start + PAUSE * pass;
            for _ in 0..21 {
                assert!(pace.allows(now));
            }
            assert!(!pace.allows(now));
            assert!(!pace.allows(now + PAUSE - Duration::from_millis(1)));
            assert_eq!(pace.resumes(), Some(now + PAUSE));
        }
    }

    #[test]
    fn the_server_that_is_meant_is_named_before_the_operands() {
        let program = PathBuf::from("/smtpctl");
        let mut sendmail = Sendmail { program, state: None, rootless: false };
        let given = words(&["--", "a@b"]);
        assert_eq!(sendmail.words(&given), words(&["sendmail", "-S", "--", "a@b"]));
        sendmail.state = Some("/s".to_owned());
        let expected = words(&["sendmail", "-S", "--state", "/s", "--", "a@b"]);
        assert_eq!(sendmail.words(&given), expected);
    }
}
