//! Making several files durable at once.
//!
//! A disk that syncs one file in milliseconds syncs sixteen in hardly more when asked at the same
//! time. Where a sync costs next to nothing, as in memory, handing it to another thread costs
//! more than the sync: what the last batch took decides. Threads are started when first needed.

use std::fs::File;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use platform::durable::{durable, durable_dir};

/// Files synced at once.
pub const WIDTH: usize = 16;
/// A sync faster than this is done where it is asked for.
const QUICK: Duration = Duration::from_micros(100);

/// What is to be durable.
#[derive(Clone, Debug)]
pub enum Target {
    /// The names in a directory.
    Directory(Arc<File>),
    /// The bytes of a file.
    File(Arc<File>),
}

/// Syncs files, up to [`WIDTH`] at once.
#[derive(Debug, Default)]
pub struct Syncer {
    slow: bool,
    threads: Vec<thread::JoinHandle<()>>,
    work: Option<Work>,
}

type Task = (usize, Target, Sender<(usize, io::Result<()>)>);

#[derive(Debug)]
struct Work {
    sender: Sender<Task>,
    receiver: Arc<Mutex<Receiver<Task>>>,
}

impl Target {
    fn sync(&self) -> io::Result<()> {
        match self {
            Self::Directory(directory) => durable_dir(&**directory),
            Self::File(file) => durable(&**file),
        }
    }
}

impl Syncer {
    /// One that has no threads yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Syncs all `targets`; the answers are in their order.
    pub fn sync(&mut self, targets: &[Target]) -> Vec<io::Result<()>> {
        let began = Instant::now();
        let Some((own, others)) = targets.split_first() else { return Vec::new() };
        if !self.slow || others.is_empty() {
            let answers = targets.iter().map(Target::sync).collect();
            let each = began.elapsed() / u32::try_from(targets.len()).unwrap_or(u32::MAX);
            self.slow = each >= QUICK;
            return answers;
        }
        let (answer, answers) = mpsc::channel();
        let mut results: Vec<_> =
            targets.iter().map(|_| Err(io::Error::other("the sync was not done"))).collect();
        for (index, target) in others.iter().enumerate() {
            let task = (index + 1, target.clone(), answer.clone());
            if let Err((index, target, answer)) = self.hand_over(task, others.len()) {
                // Without threads the work is done here; the receiver below is alive.
                let _ = answer.send((index, target.sync()));
            }
        }
        drop(answer);
        if let Some(first) = results.first_mut() {
            *first = own.sync();
        }
        for (index, result) in answers {
            if let Some(slot) = results.get_mut(index) {
                *slot = result;
            }
        }
        self.slow = began.elapsed() >= QUICK;
        results
    }

    fn hand_over(&mut self, task: Task, wanted: usize) -> Result<(), Task> {
        let work = self.work.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel();
            Work { sender, receiver: Arc::new(Mutex::new(receiver)) }
        });
        while self.threads.len() < wanted.min(WIDTH - 1) {
            let receiver = Arc::clone(&work.receiver);
            let thread = thread::Builder::new().name("sync".to_owned()).stack_size(64 * 1024);
            match thread.spawn(move || serve(&receiver)) {
                Ok(thread) => self.threads.push(thread),
                Err(_) => break,
            }
        }
        if self.threads.is_empty() {
            return Err(task);
        }
        work.sender.send(task).map_err(|mpsc::SendError(task)| task)
    }
}

fn serve(tasks: &Mutex<Receiver<Task>>) {
    loop {
        let next = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((index, target, answer)) = next else { return };
        // A batch that no longer waits for the answer is gone with its worker.
        let _ = answer.send((index, target.sync()));
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.work = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to be waited for.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_keep_their_order_with_and_without_threads() {
        let directory = tempfile::tempdir().unwrap();
        let good = || Target::File(Arc::new(tempfile::tempfile().unwrap()));
        let bad = || {
            // A socket cannot be synced.
            let socket = std::os::unix::net::UnixStream::pair().unwrap().0;
            Target::File(Arc::new(File::from(std::os::fd::OwnedFd::from(socket))))
        };
        let names = || Target::Directory(Arc::new(File::open(directory.path()).unwrap()));
        for slow in [false, true] {
            let mut syncer = Syncer::new();
            syncer.slow = slow;
            for _ in 0..3 {
                let targets = [bad(), good(), names(), bad(), good()];
                let answers: Vec<bool> =
                    syncer.sync(&targets).iter().map(io::Result::is_ok).collect();
                assert_eq!(answers, [false, true, true, false, true], "slow: {slow}");
                syncer.slow = slow;
            }
            assert_eq!(syncer.threads.len(), if slow { 4 } else { 0 });
        }
        assert!(Syncer::new().sync(&[]).is_empty());
    }
}
