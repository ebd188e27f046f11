//! The threads of the store: one writes the log, one works on files, two read.
//!
//! Each has a queue; nothing but these queues and the state is shared. The log thread has one batch
//! in flight: what arrives during a sync makes the next batch.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use platform::dir::Access;

use super::disk::{Disk, Folder};
use super::engine::Log;
use super::keeper::{Job, Report, finish_large, perform};
use super::op::{Answer, LogBody, Op};
use super::reader::{Read, Reader};
use super::record::large_name;
use crate::model::id::MessageId;
use crate::queue::store::{Completion, Event, LargeTicket, LargeWriter, NewEnvelope, StoreError};

/// How long the end of an envelope waits for a batch at most.
const LAZY: Duration = Duration::from_millis(200);

/// Between so many batches one step of compaction is done, if there is one to do.
const BATCHES_A_STEP: u32 = 4;

/// A queue that threads wait on.
pub(super) struct Queue<T> {
    inner: Mutex<T>,
    wake: Condvar,
}

impl<T> Queue<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner: Mutex::new(inner), wake: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it and wakes who waits.
    pub(super) fn with<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.wake.notify_all();
        result
    }
}

/// What waits for the log thread.
#[derive(Default)]
pub(super) struct Inbox {
    pub ops: VecDeque<Op>,
    /// How many of the ops somebody waits for.
    pub urgent: usize,
    /// Since when an op that nobody waits for is there.
    pub lazy_since: Option<Instant>,
    pub reports: Vec<Report>,
    pub tick: Option<Instant>,
    pub closing: bool,
    /// Whether the log thread has left: nothing is taken any more.
    pub closed: bool,
}

impl Inbox {
    /// Adds an op, or gives it back if the log thread has left.
    pub(super) fn push(&mut self, op: Op) -> Option<Op> {
        if self.closed {
            return Some(op);
        }
        match op {
            Op::End { done: None, .. } => {
                self.lazy_since.get_or_insert_with(Instant::now);
            }
            _ => self.urgent += 1,
        }
        self.ops.push_back(op);
        None
    }
}

/// Large bodies' work.
pub(super) enum LargeWork {
    Commit {
        ticket: LargeTicket,
        size: u64,
        envelopes: Vec<NewEnvelope>,
        deadline: Instant,
        answer: Answer,
    },
    Discard(LargeTicket),
    Open(MessageId, Completion<LargeWriter>),
}

/// What waits for the thread that works on files.
#[derive(Default)]
pub(super) struct Files {
    pub jobs: VecDeque<Job>,
    pub large: VecDeque<LargeWork>,
    /// Counts up, for names.
    pub sequence: u64,
    pub closing: bool,
}

/// What waits for readers.
#[derive(Default)]
pub(super) struct Reads {
    pub waiting: VecDeque<Read>,
    pub recovered: bool,
    pub closing: bool,
}

/// The queues.
pub(super) struct Queues {
    pub log: Queue<Inbox>,
    pub files: Queue<Files>,
    pub reads: Queue<Reads>,
}

/// Everything the log thread needs.
pub(super) struct LogThread {
    pub queues: Arc<Queues>,
    pub events: Arc<dyn Fn(Event) + Send + Sync>,
}

impl LogThread {
    /// Recovers, then writes until told to leave. A panic is said and answered like a spool that
    /// cannot be used: nobody waits for ever.
    pub(super) fn run(&self, open: impl FnOnce() -> Result<Log, StoreError>) {
        // What is shared is changed under locks, in steps that leave it whole.
        let ended = catch_unwind(AssertUnwindSafe(|| self.work(open)));
        if ended.is_err() {
            (self.events)(Event::Unusable("the log thread panicked".to_owned()));
            self.leave(VecDeque::new());
        }
    }

    fn work(&self, open: impl FnOnce() -> Result<Log, StoreError>) {
        let mut log = match open() {
            Ok(log) => log,
            Err(error) => {
                (self.events)(Event::Unusable(error.to_string()));
                self.leave(VecDeque::new());
                return;
            }
        };
        self.queues.files.with(|files| files.sequence = log.last_number);
        self.queues.reads.with(|reads| reads.recovered = true);
        self.hand_out(&mut log);
        let mut queue = VecDeque::new();
        let mut batches = 0;
        loop {
            let (reports, tick, closing) = self.wait(&mut queue, &log);
            for report in reports {
                log.report(report);
            }
            if let Some(now) = tick {
                log.tick(now);
            }
            while log.write(&mut queue, Instant::now()) {
                self.hand_out(&mut log);
                self.pull(&mut queue);
                batches += 1;
                if batches % BATCHES_A_STEP == 0 && log.can_clean() {
                    log.clean_step();
                }
            }
            if log.can_clean() {
                log.clean_step();
            }
            log.maintain();
            self.hand_out(&mut log);
            if closing && (queue.is_empty() || !log.is_waiting()) {
                break;
            }
        }
        log.retire(true);
        self.hand_out(&mut log);
        self.leave(queue);
    }

    /// Waits for something to do and takes it.
    fn wait(&self, queue: &mut VecDeque<Op>, log: &Log) -> (Vec<Report>, Option<Instant>, bool) {
        let shared = &self.queues.log;
        let mut inbox = shared.lock();
        // Work of its own is not waited for, unless only a report or a tick can let it go on.
        let own = log.can_clean() || (log.has_own_work() && !log.is_failing());
        loop {
            let now = Instant::now();
            let due = inbox.lazy_since.map(|since| since + LAZY);
            let something = own
                || inbox.urgent > 0
                || !inbox.reports.is_empty()
                || inbox.tick.is_some()
                || inbox.closing
                || due.is_some_and(|due| due <= now);
            if something {
                break;
            }
            inbox = match due {
                None => shared.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let rest = due.saturating_duration_since(now);
                    let waited = shared.wake.wait_timeout(inbox, rest);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        take_ops(&mut inbox, queue);
        (std::mem::take(&mut inbox.reports), inbox.tick.take(), inbox.closing)
    }

    fn pull(&self, queue: &mut VecDeque<Op>) {
        take_ops(&mut self.queues.log.lock(), queue);
    }

    fn hand_out(&self, log: &mut Log) {
        let jobs = log.take_jobs();
        if !jobs.is_empty() {
            self.queues.files.with(|files| files.jobs.extend(jobs));
        }
        for event in log.take_events() {
            (self.events)(event);
        }
    }

    /// Takes nothing any more and answers what is left.
    fn leave(&self, mut queue: VecDeque<Op>) {
        self.queues.log.with(|inbox| {
            inbox.closed = true;
            take_ops(inbox, &mut queue);
        });
        for op in queue {
            op.refuse(&StoreError::Closed);
        }
        self.queues.files.with(|files| files.closing = true);
        self.queues.reads.with(|reads| reads.closing = true);
    }
}

fn take_ops(inbox: &mut Inbox, queue: &mut VecDeque<Op>) {
    queue.append(&mut inbox.ops);
    inbox.urgent = 0;
    inbox.lazy_since = None;
}

/// Works on files until told to leave and nothing is left.
pub(super) fn run_files(disk: &dyn Disk, queues: &Queues) {
    loop {
        let mut files = queues.files.lock();
        let (job, large) = loop {
            if let Some(job) = files.jobs.pop_front() {
                break (Some(job), None);
            }
            if let Some(large) = files.large.pop_front() {
                break (None, Some(large));
            }
            if files.closing {
                return;
            }
            files = queues.files.wake.wait(files).unwrap_or_else(PoisonError::into_inner);
        };
        let sequence = files.sequence + 1;
        files.sequence = sequence;
        drop(files);
        if let Some(job) = job {
            let report = perform(disk, job);
            queues.log.with(|inbox| inbox.reports.push(report));
        }
        if let Some(large) = large {
            work_on_large(disk, queues, large, sequence);
        }
    }
}

fn work_on_large(disk: &dyn Disk, queues: &Queues, work: LargeWork, sequence: u64) {
    match work {
        LargeWork::Open(message, done) => done(open_large(disk, message, sequence)),
        LargeWork::Discard(ticket) => {
            // What stays is found and removed at the next start.
            let _ = disk.unlink(Folder::Large, &large_name(ticket.message, ticket.sequence));
        }
        LargeWork::Commit { ticket, size, envelopes, deadline, answer } => {
            let LargeTicket { message, sequence } = ticket;
            match finish_large(disk, message, sequence, size) {
                Ok(large) => {
                    let body = LogBody::Large(large);
                    let op = Op::Commit { message, body, envelopes, deadline, answer };
                    if let Some(op) = queues.log.with(|inbox| inbox.push(op)) {
                        op.refuse(&StoreError::Closed);
                    }
                }
                Err(error) => {
                    let _ = disk.unlink(Folder::Large, &large_name(message, sequence));
                    answer.give(Err(error.into()));
                }
            }
        }
    }
}

fn open_large(
    disk: &dyn Disk,
    message: MessageId,
    sequence: u64,
) -> Result<LargeWriter, StoreError> {
    let file = disk.open(Folder::Large, &large_name(message, sequence), Access::Create);
    let file = file.and_then(|file| file.descriptor());
    match file {
        Ok(file) => Ok(LargeWriter { file, ticket: LargeTicket { message, sequence } }),
        Err(error) if super::engine::is_no_room(&error) => Err(StoreError::Full),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(StoreError::Duplicate),
        Err(error) => Err(error.into()),
    }
}

/// Reads until told to leave.
pub(super) fn run_reads(reader: &Reader, queues: &Queues) {
    loop {
        let mut reads = queues.reads.lock();
        let next = loop {
            if reads.closing {
                let left = std::mem::take(&mut reads.waiting);
                drop(reads);
                for read in left {
                    read.refuse(StoreError::Closed);
                }
                return;
            }
            if reads.recovered
                && let Some(next) = reads.waiting.pop_front()
            {
                break next;
            }
            reads = queues.reads.wake.wait(reads).unwrap_or_else(PoisonError::into_inner);
        };
        drop(reads);
        // A panic ends this request alone; its completion is dropped.
        let _ = catch_unwind(AssertUnwindSafe(|| reader.perform(next)));
    }
}
