//! `.forward` files and included lists, read by processes that have the ids of their owners.
//!
//! There is a reader for each identity, started by way of the parent and kept while it is of use: a
//! recipient costs one question and one answer, not a process. What was read is not remembered, since
//! a user who changes a `.forward` expects it to count; only those who ask for the same file while it
//! is being read share the answer.
//!
//! A home that hangs holds up its own reader: the question fails after a while, and further ones at
//! once until the reader is gone.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::expand::IncludedList;
use crate::ipc::link::Link;
use crate::ipc::message::parent::{ParentToRole, RoleToParent};
use crate::ipc::message::reader::{
    ForwardFile, IncludePiece, LookupToReader, ReaderToLookup, Reads,
};
use crate::model::limits::{INCLUDED_LIST, INCLUDED_PIECE};
use crate::process::ParentLink;

/// How long an answer is waited for. (The system ends a reader a little later.)
const DEADLINE: Duration = Duration::from_secs(5);
/// How long a reader that did not answer is not asked again.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a reader is kept that nobody asks.
const IDLE: Duration = Duration::from_secs(15);
/// Readers at once; the one that was not asked for the longest time leaves first.
const READERS: usize = 64;
/// Questions under way to one reader.
const WINDOW: u32 = 64;
/// How often a list that changes while it is read is begun anew.
const TRIES: u32 = 3;

/// The channel to a reader.
type ReaderLink = Link<LookupToReader, ReaderToLookup>;
/// A file that is being read.
type File = (Reads, String);

/// Asks readers.
#[derive(Debug)]
pub(super) struct Readers {
    parent: ParentLink,
    readers: Mutex<HashMap<Reads, Arc<Reader>>>,
    /// Who waits for the answer to a question that somebody else has asked.
    under_way: Mutex<HashMap<File, Vec<oneshot::Sender<ForwardFile>>>>,
}

/// One reader, as long as it is kept.
#[derive(Debug)]
struct Reader {
    /// `None` until it has been started.
    link: tokio::sync::Mutex<Option<ReaderLink>>,
    usage: Mutex<Usage>,
}

#[derive(Clone, Copy, Debug)]
struct Usage {
    /// Questions that are being asked.
    asking: usize,
    /// When the last one ended.
    last: Instant,
    /// It is not asked before that.
    silent_until: Option<Instant>,
}

/// A panic elsewhere leaves these values whole: every change under the lock is one statement.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Readers {
    /// Has readers started by `parent`. Must be called in a runtime.
    pub(super) fn new(parent: &ParentLink) -> Arc<Self> {
        let readers = Arc::new(Self {
            parent: parent.clone(),
            readers: Mutex::default(),
            under_way: Mutex::default(),
        });
        let kept = Arc::downgrade(&readers);
        tokio::spawn(async move {
            while let Some(readers) = kept.upgrade() {
                readers.dismiss_idle(Instant::now());
                drop(readers);
                sleep(IDLE / 3).await;
            }
        });
        readers
    }

    /// Reads the `.forward` in `home` as `reads`.
    pub(super) async fn forward(&self, reads: Reads, home: String) -> ForwardFile {
        let file = (reads, home);
        let shared = match lock(&self.under_way).entry(file.clone()) {
            Entry::Occupied(mut waiting) => {
                let (sender, receiver) = oneshot::channel();
                waiting.get_mut().push(sender);
                Some(receiver)
            }
            Entry::Vacant(none) => {
                none.insert(Vec::new());
                None
            }
        };
        if let Some(shared) = shared {
            let gone = |_| ForwardFile::Failed("whoever asked for it is gone".to_owned());
            return shared.await.unwrap_or_else(gone);
        }
        let reading = UnderWay { readers: self, file, ended: false };
        let question = LookupToReader::Forward { home: reading.file.1.clone() };
        let answer = match self.ask(&reading.file.0, &question).await {
            Ok(ReaderToLookup::Forward(forward)) => forward,
            Ok(ReaderToLookup::Include(_)) => ForwardFile::Failed("not an answer".to_owned()),
            Err(error) => ForwardFile::Failed(format!("{}: {error}", reading.file.1)),
        };
        reading.end(&answer);
        answer
    }

    /// Reads a list that aliases include, as the daemon's own account.
    pub(super) async fn include(&self, path: &str) -> IncludedList {
        for _ in 0..TRIES {
            if let Some(list) = self.pieces(path).await {
                return list;
            }
        }
        IncludedList::Failed("it changes while it is read".to_owned())
    }

    /// Reads a list from its beginning; `None` if it has changed on the way.
    async fn pieces(&self, path: &str) -> Option<IncludedList> {
        let mut text = Vec::new();
        let mut begun = None;
        loop {
            let offset = text.len() as u64;
            let question = LookupToReader::Include { path: path.to_owned(), offset };
            let (bytes, version) = match self.ask(&Reads::Daemon, &question).await {
                Ok(ReaderToLookup::Include(IncludePiece::Piece { bytes, version })) => {
                    (bytes.0, version)
                }
                Ok(ReaderToLookup::Include(IncludePiece::Missing(reason))) => {
                    return Some(IncludedList::Missing(reason));
                }
                Ok(ReaderToLookup::Include(IncludePiece::Failed(reason))) | Err(reason) => {
                    return Some(IncludedList::Failed(reason));
                }
                Ok(ReaderToLookup::Include(IncludePiece::TooLarge)) => {
                    return Some(IncludedList::TooLarge);
                }
                Ok(ReaderToLookup::Forward(_)) => {
                    return Some(IncludedList::Failed("not an answer".to_owned()));
                }
            };
            if *begun.get_or_insert(version) != version {
                return None;
            }
            let is_last = bytes.len() < INCLUDED_PIECE;
            text.extend_from_slice(&bytes);
            if text.len() > INCLUDED_LIST {
                return Some(IncludedList::TooLarge);
            }
            if is_last {
                return Some(IncludedList::Text(text));
            }
        }
    }

    /// Asks a reader, which is started first if there is none.
    async fn ask(
        &self,
        reads: &Reads,
        question: &LookupToReader,
    ) -> Result<ReaderToLookup, String> {
        let asking = self.reader(reads)?;
        let answered = async {
            let link = self.link(reads, &asking.0).await?;
            let answer = link.request(question, None).await;
            answer.map(|(answer, _)| answer).map_err(|error| format!("the reader: {error}"))
        };
        match timeout(DEADLINE, answered).await {
            Ok(answer) => answer,
            Err(_) => {
                lock(&asking.0.usage).silent_until = Some(Instant::now() + SILENCE);
                asking.0.dismiss();
                Err("reading takes too long".to_owned())
            }
        }
    }

    /// The reader of an identity, held until the question has an answer.
    fn reader(&self, reads: &Reads) -> Result<Asking, String> {
        let mut readers = lock(&self.readers);
        if let Some(reader) = readers.get(reads) {
            let silent = lock(&reader.usage).silent_until;
            if silent.is_some_and(|until| Instant::now() < until) {
                return Err("reading took too long a moment ago".to_owned());
            }
            return Ok(Asking::new(reader));
        }
        if readers.len() >= READERS {
            let usages = readers.iter().map(|(reads, reader)| (reads, *lock(&reader.usage)));
            let idle = usages.filter(|(_, usage)| usage.asking == 0);
            let oldest = idle.min_by_key(|(_, usage)| usage.last).map(|(reads, _)| reads.clone());
            let oldest = oldest.ok_or("too many readers are busy")?;
            if let Some(reader) = readers.remove(&oldest) {
                reader.dismiss();
            }
        }
        let usage = Usage { asking: 0, last: Instant::now(), silent_until: None };
        let link = tokio::sync::Mutex::new(None);
        let reader = Arc::new(Reader { link, usage: Mutex::new(usage) });
        readers.insert(reads.clone(), Arc::clone(&reader));
        Ok(Asking::new(&reader))
    }

    /// The channel to a reader. Whoever comes while it is being started waits for that.
    async fn link(&self, reads: &Reads, reader: &Reader) -> Result<ReaderLink, String> {
        let mut current = reader.link.lock().await;
        if let Some(link) = current.as_ref().filter(|link| !link.is_closed()) {
            return Ok(link.clone());
        }
        let request = RoleToParent::StartReader(reads.clone());
        let descriptor = match self.parent.request(&request, None).await {
            Ok((ParentToRole::Reader { error: None }, Some(descriptor))) => descriptor,
            Ok((ParentToRole::Reader { error: Some(error) }, _)) => return Err(error),
            Ok(_) => return Err("the parent did not answer the question".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        // A reader says nothing of its own: whatever it asks is refused.
        let (link, _) = Link::open(descriptor, WINDOW).map_err(|error| error.to_string())?;
        Ok(current.insert(link).clone())
    }

    /// Lets go whom nobody has asked for a while.
    fn dismiss_idle(&self, now: Instant) {
        lock(&self.readers).retain(|_, reader| {
            let usage = *lock(&reader.usage);
            let kept = usage.asking > 0
                || now.duration_since(usage.last) < IDLE
                || usage.silent_until.is_some_and(|until| now < until);
            if !kept {
                reader.dismiss();
            }
            kept
        });
    }
}

impl Reader {
    /// Ends the channel: the reader leaves, and what waits for its answers fails.
    fn dismiss(&self) {
        // Locked, somebody is having it started again; then it is not the one that is meant.
        if let Ok(mut link) = self.link.try_lock()
            && let Some(link) = link.take()
        {
            link.close();
        }
    }
}

/// A reader that is being asked.
struct Asking(Arc<Reader>);

impl Asking {
    fn new(reader: &Arc<Reader>) -> Self {
        lock(&reader.usage).asking += 1;
        Self(Arc::clone(reader))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut usage = lock(&self.0.usage);
        usage.asking = usage.asking.saturating_sub(1);
        usage.last = Instant::now();
    }
}

/// A question that others may wait for with us.
struct UnderWay<'a> {
    readers: &'a Readers,
    file: File,
    ended: bool,
}

impl UnderWay<'_> {
    fn end(mut self, answer: &ForwardFile) {
        self.ended = true;
        let waiting = lock(&self.readers.under_way).remove(&self.file);
        for waiting in waiting.into_iter().flatten() {
            // Who asked may have given up.
            let _gone = waiting.send(answer.clone());
        }
    }
}

impl Drop for UnderWay<'_> {
    /// Without an answer, who waits fails.
    fn drop(&mut self) {
        if !self.ended {
            lock(&self.readers.under_way).remove(&self.file);
        }
    }
}
