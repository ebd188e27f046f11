//! The log-structured store: segments, group commit, recovery, compaction.
//!
//! Mail queues write mostly once, read once and forget within seconds; so everything is appended to
//! one log, many messages share one sync, and space is won back by removing whole files.
//! `docs/spool.md` has the format and the reasons.
//!
//! | file | what it does |
//! |---|---|
//! | `record`, `segment` | bytes: records, segments, indexes |
//! | `table`, `state` | memory: where everything live is, what each segment is needed for |
//! | `engine`, `batch`, `clean` | the log: segments in turn, batches, compaction |
//! | `recovery` | from files to state |
//! | `keeper`, `reader`, `ids` | work on files, reads, unused ids |
//! | `disk`, `threads` | the file system, the threads |

mod batch;
mod clean;
mod disk;
mod engine;
mod ids;
mod keeper;
#[cfg(test)]
mod model;
mod reader;
mod record;
mod recovery;
#[cfg(test)]
mod rules;
mod segment;
#[cfg(test)]
mod sim;
mod state;
mod table;
mod threads;

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use platform::dir::{Dir, Lock};
use sha2::{Digest, Sha256};

use self::disk::{Disk, Folders};
pub use self::engine::Options;
use self::engine::{Answer, Log, LogBody, Op, lock};
use self::ids::Ids;
use self::reader::{Read, Reader};
use self::state::State;
use self::threads::{
    Files, Inbox, LargeWork, LogThread, Queue, Queues, Reads, refuse, run_files, run_reads,
};
use super::store::{
    Body, Commit, Completion, Cursor, Event, Health, LargeTicket, LargeWriter, NewEnvelope, Page,
    Statistics, Store, StoreError, StoredBody, StoredEnvelope, check_envelopes,
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
            refuse(op, &StoreError::Closed);
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::super::store::MAX_INLINE;
    use super::*;

    /// Sends a completion's value back to the test.
    fn wait<T: Send + 'static>(call: impl FnOnce(Completion<T>)) -> Result<T, StoreError> {
        let (sender, receiver) = mpsc::channel();
        call(Box::new(move |result| sender.send(result).unwrap()));
        receiver.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    fn open(path: &std::path::Path) -> Box<LogStore> {
        let options = Options { free_percent: 0, ..Options::default() };
        let dir = Dir::open(path).unwrap();
        Box::new(LogStore::open(&dir, options, |_| {}).unwrap())
    }

    fn lease(store: &mut LogStore, count: usize) -> Vec<MessageId> {
        wait(|done| store.lease_ids(count, done)).unwrap()
    }

    fn commit(
        store: &mut LogStore,
        message: MessageId,
        body: Body,
        payloads: &[&[u8]],
    ) -> Result<Vec<EnvelopeId>, StoreError> {
        let envelopes: Vec<_> = payloads
            .iter()
            .zip(1..)
            .map(|(payload, low)| NewEnvelope {
                id: message.envelope(NonZeroU32::new(low).unwrap()),
                payload: payload.to_vec(),
            })
            .collect();
        let ids = envelopes.iter().map(|new| new.id).collect();
        let deadline = Instant::now() + Duration::from_secs(30);
        wait(|done| store.commit(Commit { message, body, envelopes, deadline }, done))?;
        Ok(ids)
    }

    fn all(store: &mut LogStore) -> Vec<StoredEnvelope> {
        let mut cursor = Some(Cursor::start());
        let mut found = Vec::new();
        while let Some(from) = cursor.take() {
            let page = wait(|done| store.iterate(from, 3, done)).unwrap();
            found.extend(page.envelopes);
            cursor = page.next;
        }
        found.sort_by_key(|envelope| envelope.id);
        found
    }

    #[test]
    fn a_message_is_stored_read_updated_and_ended_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let message = lease(&mut store, 1)[0];
        let body = Body::Inline(b"Subject: a\n\nb\n".to_vec());
        let ids = commit(&mut store, message, body, &[b"one", b"two", b"three"]).unwrap();
        wait(|done| store.update(ids[1], b"two again".to_vec(), done)).unwrap();
        wait(|done| store.hold(ids[2], true, done)).unwrap();
        store.done(ids[0]);
        store.shutdown();

        let mut store = open(dir.path());
        let found = all(&mut store);
        let seen: Vec<_> = found.iter().map(|e| (e.id, &e.payload[..], e.held)).collect();
        assert_eq!(seen, [(ids[1], &b"two again"[..], false), (ids[2], b"three", true)]);
        assert!(store.known(ids[1]) && !store.known(ids[0]));
        match wait(|done| store.load_body(message, done)).unwrap() {
            StoredBody::Inline(body) => assert_eq!(body, b"Subject: a\n\nb\n"),
            StoredBody::Large { .. } => panic!("small body became large"),
        }
        let bounce = NewEnvelope {
            id: message.envelope(NonZeroU32::new(9).unwrap()),
            payload: b"bounce".to_vec(),
        };
        wait(|done| store.replace(ids[1], vec![bounce.clone()], done)).unwrap();
        wait(|done| store.remove(ids[2], done)).unwrap();
        assert_eq!(all(&mut store).len(), 1);
        wait(|done| store.remove(bounce.id, done)).unwrap();
        let gone = wait(|done| store.load_body(message, done));
        assert!(matches!(gone, Err(StoreError::NotFound)));
        store.shutdown();
        assert!(all(&mut open(dir.path())).is_empty());
    }

    #[test]
    fn a_large_body_is_a_file_and_goes_with_its_message() {
        use std::io::{Read as _, Write as _};
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let ids = lease(&mut store, 2);
        let text = b"0123456789abcde\n".repeat(20_000);
        let mut writer = wait(|done| store.open_large(ids[0], done)).unwrap();
        writer.file.write_all(&text).unwrap();
        let body = Body::Large { ticket: writer.ticket, size: text.len() as u64 };
        let envelopes = commit(&mut store, ids[0], body, &[b"x"]).unwrap();

        let short = wait(|done| store.open_large(ids[1], done)).unwrap();
        let body = Body::Large { ticket: short.ticket, size: 5 };
        assert!(matches!(commit(&mut store, ids[1], body, &[b"y"]), Err(StoreError::Io(_))));
        store.shutdown();

        let mut store = open(dir.path());
        match wait(|done| store.load_body(ids[0], done)).unwrap() {
            StoredBody::Large { mut file, size } => {
                let mut read = Vec::new();
                file.read_to_end(&mut read).unwrap();
                assert_eq!((read.len() as u64, read == text), (size, true));
                assert!(file.write_all(b"x").is_err(), "read-only");
            }
            StoredBody::Inline(_) => panic!("large body became small"),
        }
        wait(|done| store.remove(envelopes[0], done)).unwrap();
        store.shutdown();
        assert_eq!(std::fs::read_dir(dir.path().join("large")).unwrap().count(), 0);
    }

    #[test]
    fn limits_are_checked_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let message = lease(&mut store, 1)[0];
        let inline = |length| Body::Inline(vec![b'x'; length]);
        let long = vec![0; super::super::store::MAX_PAYLOAD + 1];
        let refused = commit(&mut store, message, inline(MAX_INLINE + 1), &[b"x"]);
        assert!(matches!(refused, Err(StoreError::TooLarge)));
        let refused = commit(&mut store, message, inline(1), &[&long]);
        assert!(matches!(refused, Err(StoreError::TooLarge)));
        assert!(matches!(commit(&mut store, message, inline(1), &[]), Err(StoreError::NotFound)));
        commit(&mut store, message, inline(MAX_INLINE), &[b"x"]).unwrap();
        let again = commit(&mut store, message, inline(1), &[b"x"]);
        assert!(matches!(again, Err(StoreError::Duplicate)));
    }

    #[test]
    fn a_commit_past_its_deadline_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let message = lease(&mut store, 1)[0];
        let envelope = NewEnvelope { id: message.envelope(NonZeroU32::MIN), payload: Vec::new() };
        let commit = Commit {
            message,
            body: Body::Inline(Vec::new()),
            envelopes: vec![envelope],
            deadline: Instant::now(),
        };
        let late = wait(|done| store.commit(commit, done));
        assert!(matches!(late, Err(StoreError::Expired)));
        assert!(all(&mut store).is_empty());
    }

    #[test]
    fn a_spool_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let root = Dir::open(dir.path()).unwrap();
        let second = LogStore::open(&root, Options::default(), |_| {});
        assert!(matches!(second, Err(StoreError::Locked)));
        drop(store);
        assert!(LogStore::open(&root, Options::default(), |_| {}).is_ok());
    }

    #[test]
    fn leased_ids_are_unlike_stored_ones() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let first = lease(&mut store, 300);
        for id in first.iter().take(20) {
            commit(&mut store, *id, Body::Inline(Vec::new()), &[b"x"]).unwrap();
        }
        let second = lease(&mut store, 300);
        let all: BTreeSet<_> = first.iter().chain(&second).collect();
        assert_eq!(all.len(), 600);
    }

    #[test]
    fn a_newer_spool_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let log = dir.path().join("log");
        let names = || {
            let mut names: Vec<_> =
                std::fs::read_dir(&log).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let segment = names().into_iter().find(|n| n.to_string_lossy().ends_with("seg")).unwrap();
        let mut bytes = std::fs::read(log.join(&segment)).unwrap();
        bytes[8] = 9;
        let sum = record::crc(0, &bytes[..80]);
        bytes[80..84].copy_from_slice(&sum.to_le_bytes());
        std::fs::write(log.join(&segment), &bytes).unwrap();
        let before = names();
        let (sender, receiver) = mpsc::channel();
        let root = Dir::open(dir.path()).unwrap();
        let mut store =
            LogStore::open(&root, Options::default(), move |event| sender.send(event).unwrap())
                .unwrap();
        let event = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(matches!(&event, Event::Unusable(text) if text.contains("version 9")), "{event:?}");
        assert!(matches!(wait(|done| store.lease_ids(1, done)), Err(StoreError::Closed)));
        drop(store);
        assert_eq!(names(), before);
    }
}
