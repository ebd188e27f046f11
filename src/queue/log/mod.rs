//! The log-structured store: segments, group commit, recovery, compaction.
//!
//! Mail queues write mostly once, read once and forget within seconds; so everything is appended to
//! one log, many messages share one sync, and space is won back by removing whole files.
//! `docs/spool.md` has the format and the reasons.
//!
//! | file | what it does |
//! |---|---|
//! | `record`, `segment` | bytes: records, segments, indexes |
//! | `table`, `place`, `state`, `apply` | memory: where everything live is, what each segment is needed for |
//! | `op`, `engine`, `batch`, `refuse`, `clean` | the log: requests, segments in turn, batches, refusals, compaction |
//! | `recovery` | from files to state |
//! | `keeper`, `reader`, `ids` | work on files, reads, unused ids |
//! | `disk`, `threads` | the file system, the threads |

mod apply;
mod batch;
mod clean;
#[cfg(test)]
mod crash;
mod disk;
mod engine;
mod gather;
mod ids;
mod keeper;
#[cfg(test)]
mod model;
mod op;
mod place;
mod reader;
mod record;
mod recovery;
mod refuse;
#[cfg(test)]
mod rules;
mod segment;
#[cfg(test)]
mod sim;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod threads;

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use platform::dir::{Dir, Lock};
use sha2::{Digest, Sha256};

use self::disk::{Disk, Folders};
pub use self::engine::Options;
use self::engine::{Log, lock};
use self::ids::Ids;
use self::op::{Answer, LogBody, Op};
use self::reader::{Read, Reader};
use self::state::State;
use self::threads::{
    Files, Inbox, LargeWork, LogThread, Queue, Queues, Reads, run_files, run_reads,
};
use super::store::{
    Body, Commit, Completion, Cursor, Event, Health, LargeTicket, LargeWriter, NewEnvelope, Page,
    Statistics, Store, StoreError, StoredBody, StoredEnvelope, check_envelopes, check_extension,
};
use crate::model::id::{EnvelopeId, MessageId};

/// Threads that read.
const READERS: usize = 2;

/// The store on the disk.
pub struct LogStore {
    queues: Arc<Queues>,
    state: Arc<Mutex<State>>,
    /// Commits not answered yet, about in the order of their deadlines.
    waiting: VecDeque<(Instant, Answer)>,
    threads: Vec<JoinHandle<()>>,
    _lock: Lock,
}

impl LogStore {
    /// Opens the spool in `root` and returns at once: recovery goes on in a thread, and everything
    /// that needs it waits. `events` is called on the store's threads.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process uses the spool; [`StoreError::Io`] if its folders
    /// cannot be made, the system has no randomness or no threads.
    pub fn open(
        root: &Dir,
        options: Options,
        events: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let held = Lock::try_exclusive(root.open_lock("lock")?)?.ok_or(StoreError::Locked)?;
        let disk: Arc<dyn Disk> = Arc::new(Folders::open(root)?);
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| std::io::Error::other(error.to_string()))?;
        let mut store = Self {
            queues: Arc::new(Queues {
                log: Queue::new(Inbox::default()),
                files: Queue::new(Files::default()),
                reads: Queue::new(Reads::default()),
            }),
            state: Arc::new(Mutex::new(State::new())),
            waiting: VecDeque::new(),
            threads: Vec::new(),
            _lock: held,
        };
        store.start(disk, options, Arc::new(events), seed)?;
        Ok(store)
    }

    fn start(
        &mut self,
        disk: Arc<dyn Disk>,
        options: Options,
        events: Arc<dyn Fn(Event) + Send + Sync>,
        seed: [u8; 32],
    ) -> Result<(), StoreError> {
        let mut draws = draws(seed);
        let reader = Arc::new(Reader {
            disk: Arc::clone(&disk),
            state: Arc::clone(&self.state),
            ids: Mutex::new(Ids::new(draws() as u64)),
            events: Arc::clone(&events),
            reported: Mutex::new(BTreeSet::new()),
        });
        for _ in 0..READERS {
            let (reader, queues) = (Arc::clone(&reader), Arc::clone(&self.queues));
            self.spawn("spool-read", move || run_reads(&reader, &queues))?;
        }
        let (files, queues) = (Arc::clone(&disk), Arc::clone(&self.queues));
        self.spawn("spool-files", move || run_files(&*files, &queues))?;
        let thread = LogThread { queues: Arc::clone(&self.queues), events };
        let state = Arc::clone(&self.state);
        self.spawn("spool-log", move || {
            thread.run(move || Log::open(disk, options, Box::new(draws), state));
        })
    }

    fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), StoreError> {
        self.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(work)?);
        Ok(())
    }

    fn push(&self, op: Op) {
        if let Some(op) = self.queues.log.with(|inbox| inbox.push(op)) {
            op.refuse(&StoreError::Closed);
        }
    }

    fn work_on_large(&self, work: LargeWork) {
        let refused = self.queues.files.with(|files| {
            if files.closing {
                return Some(work);
            }
            files.large.push_back(work);
            None
        });
        match refused {
            Some(LargeWork::Open(_, done)) => done(Err(StoreError::Closed)),
            Some(LargeWork::Commit { answer, .. }) => {
                answer.give(Err(StoreError::Closed));
            }
            // Left over files are removed at the next start.
            Some(LargeWork::Discard(_)) | None => {}
        }
    }

    fn read(&self, read: Read) {
        let refused = self.queues.reads.with(|reads| {
            if reads.closing {
                return Some(read);
            }
            reads.waiting.push_back(read);
            None
        });
        if let Some(read) = refused {
            read.refuse(StoreError::Closed);
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((deadline, answer)) = self.waiting.front() {
            if *deadline <= now {
                answer.give(Err(StoreError::Expired));
            } else if !answer.is_given() {
                break;
            }
            self.waiting.pop_front();
        }
    }

    fn close(&mut self) {
        self.queues.log.with(|inbox| inbox.closing = true);
        for thread in self.threads.drain(..) {
            // A thread that panicked left its requests behind; there is nothing to wait for.
            let _ = thread.join();
        }
    }
}

/// Numbers that nobody can guess from others: hashes of a seed and a counter.
fn draws(seed: [u8; 32]) -> impl FnMut() -> u128 + Send {
    let mut counter = 0_u64;
    move || {
        counter += 1;
        let hash = Sha256::new().chain_update(seed).chain_update(counter.to_le_bytes()).finalize();
        hash.iter().take(16).fold(0, |number, byte| (number << 8) | u128::from(*byte))
    }
}

impl Store for LogStore {
    fn lease_ids(&mut self, count: usize, done: Completion<Vec<MessageId>>) {
        self.read(Read::Lease(count, done));
    }

    fn commit(&mut self, commit: Commit, done: Completion<()>) {
        if let Err(error) = commit.check() {
            if let Body::Large { ticket, .. } = commit.body {
                self.discard_large(ticket);
            }
            return done(Err(error));
        }
        let Commit { message, body, envelopes, deadline } = commit;
        let answer = Answer::new(done);
        self.expire(Instant::now());
        self.waiting.push_back((deadline, answer.clone()));
        match body {
            Body::Inline(bytes) => {
                let body = LogBody::Inline(bytes);
                self.push(Op::Commit { message, body, envelopes, deadline, answer });
            }
            Body::Large { ticket, size } => {
                let work = LargeWork::Commit { ticket, size, envelopes, deadline, answer };
                self.work_on_large(work);
            }
        }
    }

    fn update(&mut self, envelope: EnvelopeId, payload: Vec<u8>, done: Completion<()>) {
        if payload.len() > super::store::MAX_PAYLOAD {
            return done(Err(StoreError::TooLarge));
        }
        self.push(Op::Update { envelope, payload, done });
    }

    fn extend(&mut self, update: NewEnvelope, new: Vec<NewEnvelope>, done: Completion<()>) {
        if let Err(error) = check_extension(&update, &new) {
            return done(Err(error));
        }
        self.push(Op::Extend { update, new, done });
    }

    fn done(&mut self, envelope: EnvelopeId) {
        self.push(Op::End { envelope, done: None });
    }

    fn replace(&mut self, end: EnvelopeId, new: Vec<NewEnvelope>, done: Completion<()>) {
        if let Err(error) = check_envelopes(end.message(), &new) {
            return done(Err(error));
        }
        self.push(Op::Replace { end, new, done });
    }

    fn hold(&mut self, envelope: EnvelopeId, held: bool, done: Completion<()>) {
        self.push(Op::Hold { envelope, held, done });
    }

    fn remove(&mut self, envelope: EnvelopeId, done: Completion<()>) {
        self.push(Op::End { envelope, done: Some(done) });
    }

    fn load_envelope(&mut self, envelope: EnvelopeId, done: Completion<StoredEnvelope>) {
        self.read(Read::Envelope(envelope, done));
    }

    fn load_body(&mut self, message: MessageId, done: Completion<StoredBody>) {
        self.read(Read::Body(message, done));
    }

    fn open_large(&mut self, message: MessageId, done: Completion<LargeWriter>) {
        match self.statistics().health {
            Health::Accepting => {}
            Health::Failing => return done(Err(StoreError::Failing)),
            Health::Full | Health::Stopped => return done(Err(StoreError::Full)),
        }
        self.work_on_large(LargeWork::Open(message, done));
    }

    fn discard_large(&mut self, ticket: LargeTicket) {
        self.work_on_large(LargeWork::Discard(ticket));
    }

    fn iterate(&mut self, cursor: Cursor, limit: usize, done: Completion<Page>) {
        self.read(Read::Page(cursor, limit, done));
    }

    fn known(&self, envelope: EnvelopeId) -> bool {
        lock(&self.state).envelope(envelope).is_some()
    }

    fn statistics(&self) -> Statistics {
        Log::statistics(&lock(&self.state))
    }

    fn tick(&mut self, now: Instant) {
        self.expire(now);
        self.queues.log.with(|inbox| inbox.tick = Some(now));
    }

    fn shutdown(mut self: Box<Self>) {
        self.close();
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.close();
    }
}
