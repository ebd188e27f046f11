//! A worker's life: it learns who it is, gives up everything else, and does jobs until there are
//! none for a while.
//!
//! It starts with the spawner's rights on two descriptors: the control channel to the spawner and,
//! for deliveries, the job channel to the dispatcher (for readers, the channel to lookup). It takes the ids of its identity before it
//! looks at a job, does only jobs that are sealed for it, and answers each once.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use platform::Role;
use platform::fd::set_nonblocking;
use platform::privilege::{Identity, drop_to, make_undumpable, set_limits_for, set_umask};
use platform::process::{Interest, PollEntry, poll};

use super::auth;
use super::intake::{Intake, Order};
use super::offline;
use super::perform::{Job, LockedMailbox, Office, Performer};
use super::reader::{self, Questions};
use super::report::{Failed, OS_ERROR, Report};
use super::users;
use crate::ipc::blocking::{Channel, ChannelError};
use crate::ipc::message::spawner::{
    Account, Duty, SpawnerSetup, SpawnerToWorker, UserAnswer, WorkerOrder, WorkerToSpawner,
};
use crate::ipc::message::worker::{DispatcherToWorker, WorkerToDispatcher};
use crate::process::{JOB_CHANNEL, PARENT_CHANNEL, StartError, inherited};

/// Deliveries into Maildirs done together: several rounds of file syncs for one sync of each
/// directory.
const BATCH: usize = 4 * super::sync::WIDTH;
/// How long a worker waits for its next job. Longer than the dispatcher keeps an idle worker in
/// mind (15 s), so that no job is sent to one that is leaving.
const IDLE: Duration = Duration::from_secs(20);
/// Shortest wait for a message that is under way.
const LEAST_WAIT: Duration = Duration::from_millis(100);
/// How long the spawner's answer about a mailbox or a user is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The channel to the spawner.
pub(super) type Control = Channel<WorkerToSpawner, SpawnerToWorker>;
/// The channel to the dispatcher.
type Jobs = Channel<WorkerToDispatcher, DispatcherToWorker>;

/// Plays the role, on the descriptors that the spawner gave.
#[must_use]
pub fn run() -> ExitCode {
    match begin() {
        Ok(()) | Err(StartError::Channel(ChannelError::Closed)) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("fatal: worker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn begin() -> Result<(), StartError> {
    let mut control =
        Control::new(inherited(PARENT_CHANNEL)?).map_err(prepare("control channel"))?;
    let Some(SpawnerToWorker::Begin { setup, duty }) = control.receive()?.message else {
        return Err(StartError::Setup);
    };
    control.credit(1);
    // The zone is a file: it is read once, here.
    let _zone = crate::time::local_zone();
    match *duty {
        Duty::Authenticate => {
            let mut questions = auth::Questions::new(inherited(JOB_CHANNEL)?)
                .map_err(prepare("question channel"))?;
            set_umask(0o077);
            set_limits_for(Role::Auth).map_err(confine("limits"))?;
            make_undumpable().map_err(confine("not dumpable"))?;
            Ok(auth::serve(&mut questions, &setup)?)
        }
        Duty::Submit(order) => {
            set_umask(0o077);
            set_limits_for(Role::Worker).map_err(confine("limits"))?;
            make_undumpable().map_err(confine("not dumpable"))?;
            offline::submit(control, &order, setup.rootless).map_err(prepare("offline messages"))
        }
        Duty::Read(order) => {
            let mut questions =
                Questions::new(inherited(JOB_CHANNEL)?).map_err(prepare("question channel"))?;
            become_reader(&order.account, setup.rootless)?;
            Ok(reader::serve(&mut control, &mut questions, order.lists)?)
        }
        Duty::Users => {
            if let Some(daemon) = &setup.daemon {
                become_account(daemon, setup.rootless)?;
            }
            Ok(users::serve(&mut control)?)
        }
        Duty::Deliver(order) => {
            let jobs = Jobs::new(inherited(JOB_CHANNEL)?).map_err(prepare("job channel"))?;
            become_account(&order.account, setup.rootless)?;
            settle(&order)?;
            Ok(deliver(control, jobs, &setup, order)?)
        }
    }
}

fn prepare(what: &str) -> impl FnOnce(io::Error) -> StartError {
    let what = what.to_owned();
    move |source| StartError::Prepare { what, source }
}

fn confine(step: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Confine { role: Role::Worker.name(), step, source }
}

/// Takes the ids of who delivers. Nobody delivers as root.
fn become_account(account: &Account, rootless: bool) -> Result<(), StartError> {
    if !rootless && account.uid == 0 {
        return Err(confine("ids")(io::Error::from(io::ErrorKind::PermissionDenied)));
    }
    take_ids(account, rootless)
}

/// Takes the ids of who reads, and gives up everything but reading. Root's own `.forward` is the one
/// thing that nobody else could read.
fn become_reader(account: &Account, rootless: bool) -> Result<(), StartError> {
    take_ids(account, rootless)?;
    std::env::set_current_dir("/").map_err(prepare("/"))?;
    platform::sandbox::confine_worker(&[PathBuf::from("/")]).map_err(confine("sandbox"))?;
    Ok(())
}

fn take_ids(account: &Account, rootless: bool) -> Result<(), StartError> {
    set_umask(0o077);
    set_limits_for(Role::Worker).map_err(confine("limits"))?;
    if !rootless {
        let Account { uid, gid, groups, .. } = account;
        let identity = Identity { uid: *uid, gid: *gid, groups: groups.clone() };
        drop_to(&identity).map_err(confine("ids"))?;
    }
    make_undumpable().map_err(confine("not dumpable"))?;
    Ok(())
}

/// Goes home, and gives up starting programs unless that is what the jobs are about.
fn settle(order: &WorkerOrder) -> Result<(), StartError> {
    if std::env::set_current_dir(&order.account.home).is_err() {
        std::env::set_current_dir("/").map_err(prepare("/"))?;
    }
    if order.identity.programs {
        return Ok(());
    }
    // Where mail goes is data of the jobs; the ids say which of it may be written.
    let reachable = if order.identity.root_mailbox { vec![] } else { vec![PathBuf::from("/")] };
    platform::sandbox::confine_worker(&reachable).map_err(confine("sandbox"))?;
    Ok(())
}

fn deliver(
    control: Control,
    mut jobs: Jobs,
    setup: &SpawnerSetup,
    order: WorkerOrder,
) -> Result<(), ChannelError> {
    let mut spawner = Spawner { control, next: 1, gone: false };
    let root_mailbox = order.identity.root_mailbox;
    let mut performer =
        Performer::new(order.account, root_mailbox, &setup.libexec, &setup.server_name);
    let mut intake = Intake::new(order.key, order.identity);
    let mut waiting: VecDeque<Order> = VecDeque::new();
    let mut idle_since = Instant::now();
    loop {
        while let Some(first) = waiting.pop_front() {
            let batch = gather(first, &mut waiting);
            perform(&mut performer, batch, &mut spawner, &mut jobs)?;
            idle_since = Instant::now();
        }
        let left = IDLE.saturating_sub(idle_since.elapsed());
        if spawner.gone || (left.is_zero() && !intake.is_waiting()) {
            return jobs.drain();
        }
        let interest = if jobs.wants_write() { Interest::ReadWrite } else { Interest::Read };
        let mut entries = [
            PollEntry::new(jobs.descriptor(), interest),
            PollEntry::new(spawner.control.descriptor(), Interest::Read),
        ];
        poll(&mut entries, Some(left.max(LEAST_WAIT)))?;
        let [said, ordered] = entries.map(|entry| entry.readable());
        jobs.flush()?;
        if said {
            jobs.fill()?;
            take(&mut jobs, &mut intake, &mut waiting)?;
        }
        if ordered {
            spawner.listen()?;
        }
    }
}

/// Takes what the dispatcher has said; refuses what is not sealed for this worker.
fn take(
    jobs: &mut Jobs,
    intake: &mut Intake,
    waiting: &mut VecDeque<Order>,
) -> Result<(), ChannelError> {
    loop {
        let received = match jobs.next_message() {
            Ok(Some(received)) => received,
            Ok(None) => return Ok(()),
            // What came whole is done before the worker leaves with the channel.
            Err(ChannelError::Closed) if !waiting.is_empty() => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(message) = received.message else { continue };
        match message {
            DispatcherToWorker::Deliver { ticket, body } => {
                match intake.deliver(received.number, &ticket, body, received.descriptor) {
                    Ok(order) => waiting.extend(order),
                    Err(refused) => answer(jobs, received.number, Report::temporary(refused))?,
                }
            }
            DispatcherToWorker::Piece { job, bytes } => {
                jobs.credit(1);
                waiting.extend(intake.piece(job, &bytes.0));
            }
        }
    }
}

/// The jobs done together with `first`: Maildir deliveries that wait already, or it alone.
fn gather(first: Order, waiting: &mut VecDeque<Order>) -> Vec<Order> {
    let mut batch = vec![first];
    let batched = |order: &Order| Performer::is_batched(&order.job.record);
    if !batch.iter().all(batched) {
        return batch;
    }
    let mut others = VecDeque::new();
    while let Some(order) = waiting.pop_front() {
        if batch.len() < BATCH && batched(&order) {
            batch.push(order);
        } else {
            others.push_back(order);
        }
    }
    *waiting = others;
    batch
}

fn perform(
    performer: &mut Performer,
    batch: Vec<Order>,
    spawner: &mut Spawner,
    jobs: &mut Jobs,
) -> Result<(), ChannelError> {
    let (numbers, batch): (Vec<u32>, Vec<Job>) =
        batch.into_iter().map(|order| (order.number, order.job)).unzip();
    let reports = performer.perform(&batch, spawner);
    for (number, report) in numbers.into_iter().zip(reports) {
        answer(jobs, number, report)?;
    }
    jobs.flush()
}

fn answer(jobs: &mut Jobs, number: u32, report: Report) -> Result<(), ChannelError> {
    Ok(jobs.reply(number, &WorkerToDispatcher::Outcome(report), None)?)
}

/// The spawner, as an office of this worker.
struct Spawner {
    control: Control,
    next: u32,
    gone: bool,
}

impl Spawner {
    /// Notes whether the control channel has ended: then the worker leaves.
    fn listen(&mut self) -> Result<(), ChannelError> {
        self.control.fill()?;
        loop {
            match self.control.next_message() {
                // Late answers, and credits.
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(_) => {
                    self.gone = true;
                    return Ok(());
                }
            }
        }
    }

    fn ask(
        &mut self,
        question: &WorkerToSpawner,
    ) -> Result<(SpawnerToWorker, Option<OwnedFd>), String> {
        let number = self.next;
        self.next = self.next.wrapping_add(1).max(1);
        let deadline = Instant::now() + PATIENCE;
        let gone = |error: &dyn std::fmt::Display| format!("spawner: {error}");
        self.control.request(number, question, None).map_err(|error| gone(&error))?;
        loop {
            self.control.flush().map_err(|error| gone(&error))?;
            self.control.fill().map_err(|error| gone(&error))?;
            match self.control.next_message() {
                Ok(Some(received)) if received.number == number => {
                    let message = received.message.ok_or("the spawner refused")?;
                    return Ok((message, received.descriptor));
                }
                Ok(Some(_)) => continue,
                Ok(None) => {}
                Err(error) => {
                    self.gone = true;
                    return Err(gone(&error));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("the spawner did not answer".to_owned());
            }
            let interest =
                if self.control.wants_write() { Interest::ReadWrite } else { Interest::Read };
            poll(&mut [PollEntry::new(self.control.descriptor(), interest)], Some(left))
                .map_err(|error| gone(&error))?;
        }
    }
}

impl Office for Spawner {
    fn look_up(&mut self, name: &str, userbase: Option<&str>) -> UserAnswer {
        let userbase = userbase.map(str::to_owned);
        match self.ask(&WorkerToSpawner::LookUpUser { name: name.to_owned(), userbase }) {
            Ok((SpawnerToWorker::User(answer), _)) => answer,
            Ok(_) => UserAnswer::Failed("the spawner answered something else".to_owned()),
            Err(error) => UserAnswer::Failed(error),
        }
    }

    fn open_mailbox(&mut self) -> Result<LockedMailbox, Failed> {
        let failed = |text: &str| Failed::new(OS_ERROR, "mail.local", text);
        match self.ask(&WorkerToSpawner::OpenMailbox).map_err(|error| failed(&error))? {
            (SpawnerToWorker::Mailbox { error: None }, Some(lock)) => receive_mailbox(lock),
            (SpawnerToWorker::Mailbox { error: Some(error) }, _) => Err(failed(&error)),
            _ => Err(failed("the mailbox did not come")),
        }
    }
}

/// Waits for the mailbox on the socket that keeps its lock: a status byte, with 0 the descriptor,
/// otherwise the text of what went wrong.
fn receive_mailbox(lock: OwnedFd) -> Result<LockedMailbox, Failed> {
    let system = |error: io::Error| Failed::system(OS_ERROR, "mail.local", "mailbox", &error);
    set_nonblocking(lock.as_fd(), true).map_err(system)?;
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 512];
    let mut passed = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failed::new(OS_ERROR, "mail.local", "the mailbox did not come"));
        }
        poll(&mut [PollEntry::new(lock.as_fd(), Interest::Read)], Some(left)).map_err(system)?;
        match platform::fd::recv(lock.as_fd(), &mut buffer, &mut passed) {
            Ok(count) => {
                let said = buffer.get(..count).unwrap_or_default();
                return match (said.split_first(), passed.pop()) {
                    (Some((0, _)), Some(file)) => {
                        set_nonblocking(lock.as_fd(), false).map_err(system)?;
                        Ok(LockedMailbox { file: file.into(), lock: Some(lock.into()) })
                    }
                    (Some((status @ 1.., text)), _) => {
                        let text = String::from_utf8_lossy(text);
                        Err(Failed::new(*status, "mail.local", text))
                    }
                    _ => Err(Failed::new(OS_ERROR, "mail.local", "the mailbox did not come")),
                };
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(system(error)),
        }
    }
}
