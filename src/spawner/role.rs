//! The spawner's loop.

mod users;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use platform::Role;
use platform::privilege::{make_undumpable, set_limits_for, set_umask};
use platform::process::{
    ExitStatus, Interest, Pid, PollEntry, Signal, SignalPipe, current_executable, poll, reap,
    signal,
};

use super::auth::AuthWorkers;
use super::filter::Filters;
use super::lookups::{Asker, Entries, Lookups};
use super::mailbox;
use super::program::Programs;
use super::readers::Readers;
use super::worker::{Starter, Worker};
use crate::ipc::blocking::{Channel, ChannelError};
use crate::ipc::frame::Kind;
use crate::ipc::message::spawner::{
    Duty, OfflineOrder, ParentToSpawner, SpawnerSetup, SpawnerToParent, SpawnerToWorker,
    UserAnswer, WorkerOrder, WorkerToSpawner,
};
use crate::ipc::message::worker::Identity;
use crate::process::{PARENT_CHANNEL, StartError, inherited};

/// The channel to the parent.
type Parent = Channel<SpawnerToParent, ParentToSpawner>;

/// Plays the role, on the descriptor that the parent gave. Workers get the same options.
#[must_use]
pub fn run(foreground: bool, verbose: bool) -> ExitCode {
    let mut flags: Vec<OsString> = Vec::new();
    if foreground {
        flags.push("-d".into());
    }
    if verbose {
        flags.push("-v".into());
    }
    let ended = Spawner::begin(flags).and_then(|mut spawner| {
        let ended = spawner.serve();
        spawner.programs.end();
        spawner.filters.end();
        Ok(ended?)
    });
    match ended {
        Ok(()) | Err(StartError::Channel(ChannelError::Closed)) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("fatal: spawner: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Spawner {
    program: PathBuf,
    flags: Vec<OsString>,
    parent: Parent,
    signals: SignalPipe,
    setup: Option<SpawnerSetup>,
    workers: Vec<Delivery>,
    readers: Readers,
    auth_workers: AuthWorkers,
    helper: Option<Worker>,
    submitter: Option<Submitter>,
    lookups: Lookups,
    entries: Entries,
    mailboxes: Vec<Mailbox>,
    programs: Programs,
    filters: Filters,
}

/// A delivery worker and for whom it works.
struct Delivery {
    worker: Worker,
    identity: Identity,
    uid: u32,
    gid: u32,
}

/// The worker that submits what was kept while the server was down.
struct Submitter {
    worker: Worker,
    /// The request that ordered it.
    number: u32,
}

/// A child that has opened a mailbox for a worker.
struct Mailbox {
    pid: Pid,
    worker: Pid,
    deadline: Instant,
}

impl Spawner {
    fn begin(flags: Vec<OsString>) -> Result<Self, StartError> {
        let prepare = |what: &'static str| {
            move |source| StartError::Prepare { what: what.to_owned(), source }
        };
        let parent = Parent::new(inherited(PARENT_CHANNEL)?).map_err(prepare("channel"))?;
        let program = current_executable().map_err(prepare("program"))?;
        std::env::set_current_dir("/").map_err(prepare("/"))?;
        set_umask(0o077);
        set_limits_for(Role::Spawner).map_err(prepare("limits"))?;
        make_undumpable().map_err(prepare("not dumpable"))?;
        // The others are for the parent to act on; here they end nothing.
        let caught = [Signal::Child, Signal::HangUp, Signal::Interrupt, Signal::Terminate];
        let signals = SignalPipe::new(&caught).map_err(prepare("signals"))?;
        let programs = Programs::new(flags.iter().any(|flag| flag == "-d"));
        Ok(Self {
            program,
            flags,
            parent,
            signals,
            setup: None,
            workers: Vec::new(),
            readers: Readers::default(),
            auth_workers: AuthWorkers::default(),
            helper: None,
            submitter: None,
            lookups: Lookups::default(),
            entries: Entries::default(),
            mailboxes: Vec::new(),
            programs,
            filters: Filters::default(),
        })
    }

    /// Serves until the parent is gone. Workers then notice that this process is gone.
    fn serve(&mut self) -> Result<(), ChannelError> {
        loop {
            let ready = self.wait()?;
            if ready.parent {
                self.parent.fill()?;
                self.obey()?;
            }
            self.hear_helper(ready.helper);
            self.hear_submitter(ready.submitter);
            for (index, readable) in ready.workers.into_iter().enumerate() {
                self.hear_worker(index, readable);
            }
            self.readers.hear(&ready.readers);
            self.auth_workers.hear(&ready.auth_workers);
            // Last: it changes the order of workers.
            if ready.signals {
                while self.signals.next()?.is_some() {}
                self.reap()?;
            }
            self.check_deadlines(Instant::now());
            self.parent.flush()?;
        }
    }

    fn wait(&mut self) -> Result<Ready, ChannelError> {
        let interest = |wants_write| if wants_write { Interest::ReadWrite } else { Interest::Read };
        let mut entries = vec![
            PollEntry::new(self.signals.as_fd(), Interest::Read),
            PollEntry::new(self.parent.descriptor(), interest(self.parent.wants_write())),
        ];
        let mut watched = Vec::new();
        for worker in self.everyone() {
            watched.push(worker.control.is_some());
            if let Some(control) = &worker.control {
                let interest = interest(control.wants_write());
                entries.push(PollEntry::new(control.descriptor(), interest));
            }
        }
        let now = Instant::now();
        let deadlines = self.mailboxes.iter().map(|mailbox| mailbox.deadline);
        let deadlines = deadlines.chain(self.everyone().filter_map(|worker| worker.overdue));
        let next = deadlines.chain(self.lookups.deadline()).min();
        poll(&mut entries, next.map(|next| next.saturating_duration_since(now)))?;

        let mut readable = entries.iter().map(PollEntry::readable);
        let signals = readable.next().unwrap_or_default();
        let parent = readable.next().unwrap_or_default();
        let mut workers: Vec<bool> =
            watched.into_iter().map(|is| is && readable.next().unwrap_or_default()).collect();
        let helper = self.helper.is_some() && workers.remove(0);
        let submitter = self.submitter.is_some() && workers.remove(0);
        let mut readers = workers.split_off(self.workers.len());
        let auth_workers = readers.split_off(self.readers.workers().count());
        Ok(Ready { signals, parent, helper, submitter, workers, readers, auth_workers })
    }

    /// The helper, the submitter, the delivery workers, the readers and the auth workers, those of
    /// them that there are.
    fn everyone(&self) -> impl Iterator<Item = &Worker> {
        let submitter = self.submitter.iter().map(|submitter| &submitter.worker);
        let deliveries = self.workers.iter().map(|delivery| &delivery.worker);
        let silent = self.readers.workers().chain(self.auth_workers.workers());
        self.helper.iter().chain(submitter).chain(deliveries).chain(silent)
    }

    /// As [`Spawner::everyone`].
    fn everyone_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        let submitter = self.submitter.iter_mut().map(|submitter| &mut submitter.worker);
        let deliveries = self.workers.iter_mut().map(|delivery| &mut delivery.worker);
        let silent = self.readers.workers_mut().chain(self.auth_workers.workers_mut());
        self.helper.iter_mut().chain(submitter).chain(deliveries).chain(silent)
    }

    fn reap(&mut self) -> io::Result<()> {
        while let Some((pid, status)) = reap()? {
            self.mailboxes.retain(|mailbox| mailbox.pid != pid);
            self.programs.ended(pid, status);
            self.filters.ended(pid, status);
            self.readers.ended(pid, status);
            self.auth_workers.ended(pid, status);
            if let Some(index) = self.workers.iter().position(|d| d.worker.pid == pid) {
                let gone = self.workers.swap_remove(index);
                if matches!(status, ExitStatus::Signaled(_)) {
                    tracing::warn!("warn: worker for {} ended: {status}", gone.worker.name);
                }
            }
            if let Some(submitter) = self.submitter.take_if(|gone| gone.worker.pid == pid) {
                let error = (status != ExitStatus::Exited(0)).then(|| status.to_string());
                self.report_submission(submitter.number, error);
            }
            if self.helper.as_ref().is_some_and(|helper| helper.pid == pid) {
                tracing::warn!("warn: user look-ups ended: {status}");
                self.helper = None;
                self.fail_lookups("the look-up ended without an answer");
            }
        }
        Ok(())
    }

    fn check_deadlines(&mut self, now: Instant) {
        if self.lookups.deadline().is_some_and(|deadline| deadline <= now) {
            // It is not waited for: a process that hangs in the system may take long to die.
            if let Some(mut helper) = self.helper.take() {
                helper.give_up(&"a look-up takes too long");
            }
            self.fail_lookups("the look-up takes too long");
        }
        for worker in self.everyone_mut() {
            if worker.overdue.is_some_and(|overdue| overdue <= now) {
                worker.give_up(&"it does not leave");
            }
        }
        for mailbox in &mut self.mailboxes {
            if mailbox.deadline <= now {
                tracing::warn!("warn: opening a mailbox takes too long");
                // It may have ended this moment, which is what is wanted.
                let _ = signal(mailbox.pid, Signal::Kill);
                mailbox.deadline = now + mailbox::GIVE_UP;
            }
        }
    }

    /// Does what the parent orders.
    fn obey(&mut self) -> Result<(), ChannelError> {
        while let Some(received) = self.parent.next_message()? {
            let number = received.number;
            match received.message {
                None if received.kind == Kind::Reply => {
                    if let Some(asker) = self.entries.end(number) {
                        self.answer(asker, UserAnswer::Failed("the parent refused".to_owned()));
                    }
                }
                None => {}
                Some(ParentToSpawner::Setup(setup)) => {
                    self.setup = Some(setup);
                    self.parent.credit(1);
                }
                Some(ParentToSpawner::User(answer)) => {
                    if let Some(asker) = self.entries.end(number) {
                        self.answer(asker, answer);
                    }
                }
                Some(ParentToSpawner::LookUpUser { name }) => {
                    self.look_up(Asker::Parent(number), name);
                }
                Some(ParentToSpawner::FilterStream { process, stream }) => {
                    let end = self.filters.stream(process, stream);
                    let missing = "there is no such filter program";
                    let error = end.is_none().then(|| missing.to_owned());
                    self.parent.reply(number, &SpawnerToParent::FilterStream { error }, end)?;
                }
                Some(ParentToSpawner::StartFilter(order)) => {
                    let (started, ended) = match &self.setup {
                        Some(setup) => self.filters.start(setup, order, received.descriptor),
                        None => (Err(io::Error::other("there is no set-up")), None),
                    };
                    let error = started.err().map(|error| error.to_string());
                    let answer = SpawnerToParent::FilterStarted { error, ended };
                    self.parent.reply(number, &answer, None)?;
                }
                Some(ParentToSpawner::StartTableProgram(order)) => {
                    let setup = self.setup.as_ref();
                    let setup = setup.ok_or_else(|| io::Error::other("there is no set-up"));
                    let channel = received.descriptor;
                    let started =
                        setup.and_then(|setup| self.programs.start(setup, order, channel));
                    let error = started.err().map(|error| error.to_string());
                    self.parent.reply(number, &SpawnerToParent::Started { error }, None)?;
                }
                Some(ParentToSpawner::StartAuthWorker) => {
                    let starter = starter(&self.program, &self.flags, self.setup.as_ref());
                    let lookup = received.descriptor;
                    let started =
                        starter.and_then(|starter| self.auth_workers.start(&starter, lookup));
                    let error = started.err().map(|error| error.to_string());
                    self.parent.reply(number, &SpawnerToParent::Started { error }, None)?;
                }
                Some(ParentToSpawner::StartReader(order)) => {
                    let starter = starter(&self.program, &self.flags, self.setup.as_ref());
                    let lookup = received.descriptor;
                    let started =
                        starter.and_then(|starter| self.readers.start(&starter, order, lookup));
                    let error = started.err().map(|error| error.to_string());
                    self.parent.reply(number, &SpawnerToParent::Started { error }, None)?;
                }
                Some(ParentToSpawner::StartWorker(order)) => {
                    let error = self.start_worker(order, received.descriptor).err();
                    let error = error.map(|error| error.to_string());
                    self.parent.reply(number, &SpawnerToParent::Started { error }, None)?;
                }
                Some(ParentToSpawner::SubmitOffline(order)) => self.submit_offline(number, order),
            }
        }
        Ok(())
    }

    fn start_worker(&mut self, order: WorkerOrder, jobs: Option<OwnedFd>) -> io::Result<()> {
        let jobs = jobs.ok_or_else(|| io::Error::other("no channel came with the order"))?;
        let (identity, uid, gid) = (order.identity.clone(), order.account.uid, order.account.gid);
        let worker = self.starter()?.start(Duty::Deliver(order), Some(jobs.as_fd()))?;
        self.workers.push(Delivery { worker, identity, uid, gid });
        Ok(())
    }

    fn submit_offline(&mut self, number: u32, order: OfflineOrder) {
        let started = match &self.submitter {
            Some(_) => Err(io::Error::other("it is being done")),
            None => self.starter().and_then(|starter| starter.start(Duty::Submit(order), None)),
        };
        match started {
            Ok(worker) => self.submitter = Some(Submitter { worker, number }),
            Err(error) => self.report_submission(number, Some(error.to_string())),
        }
    }

    fn report_submission(&mut self, number: u32, error: Option<String>) {
        // Small: it always fits a frame.
        let _ = self.parent.reply(number, &SpawnerToParent::Submitted { error }, None);
    }

    /// The submitter says nothing: this sends it its order, and notes that it leaves.
    fn hear_submitter(&mut self, readable: bool) {
        let Some(Submitter { worker, .. }) = &mut self.submitter else { return };
        match worker.exchange(readable) {
            Ok(()) => {}
            Err(ChannelError::Closed) => worker.leaves(),
            Err(error) => worker.give_up(&error),
        }
    }

    fn starter(&self) -> io::Result<Starter<'_>> {
        starter(&self.program, &self.flags, self.setup.as_ref())
    }

    /// Serves a worker, which is not trusted: it asks for its own mailbox or for users, or ends.
    fn hear_worker(&mut self, index: usize, readable: bool) {
        let Some(delivery) = self.workers.get_mut(index) else { return };
        let worker = &mut delivery.worker;
        let mut end = worker.exchange(readable).err();
        let mut questions = Vec::new();
        while let Some(control) = &mut worker.control {
            match control.next_message() {
                Ok(None) => break,
                Ok(Some(received)) => match received.message {
                    None => {}
                    Some(WorkerToSpawner::User(_)) => worker.give_up(&"it answered unasked"),
                    Some(question) => questions.push((received.number, question)),
                },
                Err(error) => {
                    end = Some(error);
                    break;
                }
            }
        }
        match end {
            None => {}
            Some(ChannelError::Closed) => worker.leaves(),
            Some(error) => worker.give_up(&error),
        }
        let pid = worker.pid;
        for (number, question) in questions {
            match question {
                WorkerToSpawner::LookUpUser { name, userbase } => {
                    let asker = Asker::Worker(pid, number);
                    match userbase {
                        Some(userbase) => self.look_up_in(asker, userbase, name),
                        None => self.look_up(asker, name),
                    }
                }
                WorkerToSpawner::OpenMailbox => self.open_mailbox(index, number),
                WorkerToSpawner::User(_) => {}
            }
        }
        if let Some(delivery) = self.workers.get_mut(index)
            && let Err(error) = delivery.worker.exchange(false)
        {
            tracing::debug!("debug: worker for {}: {error}", delivery.worker.name);
            delivery.worker.leaves();
        }
    }

    /// Opens the mailbox of the worker's own identity; one at a time for each worker.
    fn open_mailbox(&mut self, index: usize, number: u32) {
        let Some(delivery) = self.workers.get(index) else { return };
        let pid = delivery.worker.pid;
        let busy = self.mailboxes.iter().filter(|mailbox| mailbox.worker == pid).count() > 1;
        let opened = match (&self.setup, busy) {
            (_, true) => Err(io::Error::other("the worker has a mailbox open")),
            (None, _) => Err(io::Error::other("there is no set-up")),
            (Some(setup), false) => {
                mailbox::start(&setup.mailboxes, &account_of(delivery), setup.rootless)
            }
        };
        let (error, socket) = match opened {
            Ok((child, socket)) => {
                let deadline = Instant::now() + mailbox::GIVE_UP;
                self.mailboxes.push(Mailbox { pid: child, worker: pid, deadline });
                (None, Some(socket))
            }
            Err(error) => (Some(error.to_string()), None),
        };
        let control = self.workers.get_mut(index).and_then(|d| d.worker.control.as_mut());
        if let Some(control) = control {
            // Small: it always fits a frame.
            let _ = control.reply(number, &SpawnerToWorker::Mailbox { error }, socket);
        }
    }
}

/// How workers are started, once the parent has said what holds for all.
fn starter<'a>(
    program: &'a Path,
    flags: &'a [OsString],
    setup: Option<&'a SpawnerSetup>,
) -> io::Result<Starter<'a>> {
    let setup = setup.ok_or_else(|| io::Error::other("there is no set-up"))?;
    if setup.daemon.is_none() && !setup.rootless {
        return Err(io::Error::other("there is no account for the daemon"));
    }
    Ok(Starter { program, flags, setup })
}

/// Whose mailbox a worker may have: its own identity's, or root's if it is there for that.
fn account_of(delivery: &Delivery) -> platform::users::Account {
    let Delivery { identity, uid, gid, .. } = delivery;
    let (uid, gid) = if identity.root_mailbox { (0, 0) } else { (*uid, *gid) };
    platform::users::Account {
        name: identity.account.clone(),
        uid,
        gid,
        gecos: String::new(),
        home: PathBuf::from("/"),
        shell: PathBuf::from("/bin/sh"),
    }
}

/// What has something to read.
struct Ready {
    signals: bool,
    parent: bool,
    helper: bool,
    submitter: bool,
    workers: Vec<bool>,
    readers: Vec<bool>,
    auth_workers: Vec<bool>,
}
