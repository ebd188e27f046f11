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

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

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
    /// A reader has answered, and may make room for another.
    freed: Arc<Notify>,
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
            freed: Arc::default(),
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
        let deadline = Instant::now() + DEADLINE;
        let asking = timeout_at(deadline, self.place(reads)).await;
        let asking = asking.unwrap_or_else(|_| Err("too many readers are busy".to_owned()))?;
        let answered = async {
            let link = self.link(reads, &asking.reader).await?;
            let answer = link.request(question, None).await;
            answer.map(|(answer, _)| answer).map_err(|error| format!("the reader: {error}"))
        };
        match timeout_at(deadline, answered).await {
            Ok(answer) => answer,
            Err(_) => {
                lock(&asking.reader.usage).silent_until = Some(Instant::now() + SILENCE);
                asking.reader.dismiss();
                Err("reading takes too long".to_owned())
            }
        }
    }

    /// The reader of an identity, held until the question has an answer. Waits for a place if all
    /// are busy.
    async fn place(&self, reads: &Reads) -> Result<Asking, String> {
        loop {
            let freed = self.freed.notified();
            if let Some(asking) = self.reader(reads)? {
                return Ok(asking);
            }
            freed.await;
        }
    }

    /// As [`Readers::place`]; `None` if all are busy.
    fn reader(&self, reads: &Reads) -> Result<Option<Asking>, String> {
        let mut readers = lock(&self.readers);
        if let Some(reader) = readers.get(reads) {
            let silent = lock(&reader.usage).silent_until;
            if silent.is_some_and(|until| Instant::now() < until) {
                return Err("reading took too long a moment ago".to_owned());
            }
            return Ok(Some(Asking::new(reader, &self.freed)));
        }
        if readers.len() >= READERS {
            let usages = readers.iter().map(|(reads, reader)| (reads, *lock(&reader.usage)));
            let idle = usages.filter(|(_, usage)| usage.asking == 0);
            let oldest = idle.min_by_key(|(_, usage)| usage.last).map(|(reads, _)| reads.clone());
            let Some(oldest) = oldest else { return Ok(None) };
            if let Some(reader) = readers.remove(&oldest) {
                reader.dismiss();
            }
        }
        let usage = Usage { asking: 0, last: Instant::now(), silent_until: None };
        let link = tokio::sync::Mutex::new(None);
        let reader = Arc::new(Reader { link, usage: Mutex::new(usage) });
        readers.insert(reads.clone(), Arc::clone(&reader));
        Ok(Some(Asking::new(&reader, &self.freed)))
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
struct Asking {
    reader: Arc<Reader>,
    freed: Arc<Notify>,
}

impl Asking {
    fn new(reader: &Arc<Reader>, freed: &Arc<Notify>) -> Self {
        lock(&reader.usage).asking += 1;
        Self { reader: Arc::clone(reader), freed: Arc::clone(freed) }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut usage = lock(&self.reader.usage);
        usage.asking = usage.asking.saturating_sub(1);
        usage.last = Instant::now();
        if usage.asking == 0 {
            self.freed.notify_one();
        }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::mpsc::UnboundedReceiver;

    use super::*;
    use crate::ipc::blob::Blob;
    use crate::ipc::link::Arrived;
    use crate::ipc::message::reader::Version;

    type Asked = UnboundedReceiver<Arrived<ReaderToLookup, LookupToReader>>;

    /// How often a reader was started, and how often one was asked.
    #[derive(Default)]
    struct Count {
        started: AtomicUsize,
        asked: AtomicUsize,
    }

    /// Readers whose parent starts tasks that answer with what `answer` says to the question of this
    /// number.
    fn readers(
        answer: impl Fn(usize, &LookupToReader) -> ReaderToLookup + Clone + Send + 'static,
    ) -> (Arc<Readers>, Arc<Count>) {
        let (ours, theirs) = platform::fd::socketpair().unwrap();
        let (role, _) = Link::open(ours, 256).unwrap();
        let (_, mut orders) = Link::<ParentToRole, RoleToParent>::open(theirs, 256).unwrap();
        let count = Arc::new(Count::default());
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            while let Some(order) = orders.recv().await {
                assert!(matches!(order.message, RoleToParent::StartReader(_)));
                counted.started.fetch_add(1, Ordering::Relaxed);
                let (near, far) = platform::fd::socketpair().unwrap();
                let (_, asked) = Link::open(near, WINDOW).unwrap();
                tokio::spawn(serve(asked, Arc::clone(&counted), answer.clone()));
                let started = ParentToRole::Reader { error: None };
                order.responder.reply(&started, Some(far)).unwrap();
            }
        });
        (Readers::new(&role), count)
    }

    async fn serve(
        mut asked: Asked,
        count: Arc<Count>,
        answer: impl Fn(usize, &LookupToReader) -> ReaderToLookup,
    ) {
        while let Some(asked) = asked.recv().await {
            let number = count.asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            asked.responder.reply(&answer(number, &asked.message), None).unwrap();
        }
    }

    fn text(number: usize) -> ForwardFile {
        ForwardFile::Text(Blob(number.to_string().into_bytes()))
    }

    fn numbered(number: usize, _: &LookupToReader) -> ReaderToLookup {
        ReaderToLookup::Forward(text(number))
    }

    fn system(number: usize) -> Reads {
        Reads::System(format!("user{number}"))
    }

    #[tokio::test]
    async fn those_who_ask_together_share_an_answer_and_nothing_is_remembered() {
        let (readers, count) = readers(numbered);
        let ask = || {
            let readers = Arc::clone(&readers);
            tokio::spawn(async move { readers.forward(system(1), "/home/a".to_owned()).await })
        };
        let together: Vec<_> = (0..10).map(|_| ask()).collect();
        for answer in together {
            assert_eq!(answer.await.unwrap(), text(0));
        }
        assert_eq!(ask().await.unwrap(), text(1));
        let other = readers.forward(system(1), "/home/other".to_owned()).await;
        assert_eq!(other, text(2));
        let started = count.started.load(Ordering::Relaxed);
        assert_eq!(started, 1, "one reader for one identity");
    }

    #[tokio::test]
    async fn there_are_never_more_readers_than_places() {
        let (readers, count) = readers(numbered);
        let asked: Vec<_> = (0..3 * READERS)
            .map(|number| {
                let readers = Arc::clone(&readers);
                tokio::spawn(async move {
                    let answer = readers.forward(system(number), "/".to_owned()).await;
                    assert!(lock(&readers.readers).len() <= READERS);
                    answer
                })
            })
            .collect();
        for answer in asked {
            let answer = answer.await.unwrap();
            assert!(matches!(answer, ForwardFile::Text(_)), "{answer:?}");
        }
        assert_eq!(count.started.load(Ordering::Relaxed), 3 * READERS);
        // Whoever was asked last is still there.
        let last = system(3 * READERS - 1);
        assert!(matches!(readers.forward(last, "/".to_owned()).await, ForwardFile::Text(_)));
        assert_eq!(count.started.load(Ordering::Relaxed), 3 * READERS);
        readers.dismiss_idle(Instant::now() + IDLE);
        assert!(lock(&readers.readers).is_empty());
    }

    #[tokio::test]
    async fn a_list_comes_in_pieces_and_is_begun_anew_if_it_changes() {
        let length = INCLUDED_PIECE + 5;
        let piece = move |number: usize, question: &LookupToReader| {
            let LookupToReader::Include { offset, .. } = question else { panic!("{question:?}") };
            // It changes after the first piece was read.
            let version =
                Version { inode: 1, length: length as u64, modified: (number > 0).into() };
            let left = length - usize::try_from(*offset).unwrap();
            let bytes = Blob(vec![b'x'; left.min(INCLUDED_PIECE)]);
            ReaderToLookup::Include(IncludePiece::Piece { bytes, version })
        };
        let (readers, count) = readers(piece);
        assert_eq!(readers.include("/list").await, IncludedList::Text(vec![b'x'; length]));
        assert_eq!(count.asked.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn what_is_no_answer_is_a_failure() {
        let (readers, _) = readers(numbered);
        assert!(matches!(readers.include("/list").await, IncludedList::Failed(_)));
        let (ours, theirs) = platform::fd::socketpair().unwrap();
        let (role, _) = Link::open(ours, 256).unwrap();
        drop(theirs);
        let forward = Readers::new(&role).forward(system(1), "/".to_owned()).await;
        assert!(matches!(forward, ForwardFile::Failed(_)), "{forward:?}");
    }
}
