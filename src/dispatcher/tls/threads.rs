//! Threads for handshakes: what computes for long or waits for *keys* runs there, and a session's
//! task goes on when it is done.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use rustls::ServerConnection;
use tokio::sync::{Semaphore, oneshot};

/// Steps that wait for a thread at most; who comes later waits for room, in its own task.
const QUEUE: usize = 256;

/// The queue of the threads. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct HandshakeThreads {
    queue: Arc<Queue>,
    room: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    waiting: Condvar,
}

#[derive(Debug)]
struct Job {
    connection: Box<ServerConnection>,
    done: oneshot::Sender<Step>,
}

/// A connection after a step, and how it went.
pub(super) type Step = (Box<ServerConnection>, Result<(), rustls::Error>);

impl Default for HandshakeThreads {
    fn default() -> Self {
        Self { queue: Arc::default(), room: Arc::new(Semaphore::new(QUEUE)) }
    }
}

impl HandshakeThreads {
    /// Starts so many threads, which run as long as the process.
    ///
    /// # Errors
    /// There are no threads to be had.
    pub(super) fn start(&self, count: usize) -> std::io::Result<()> {
        for _ in 0..count.max(1) {
            let queue = Arc::clone(&self.queue);
            thread::Builder::new().name("handshake".to_owned()).spawn(move || queue.work())?;
        }
        Ok(())
    }

    /// Has a connection deal with what it has received; `None` if that made a thread panic.
    pub(super) async fn step(&self, connection: Box<ServerConnection>) -> Option<Step> {
        let _room = self.room.acquire().await.ok()?;
        let (done, finished) = oneshot::channel();
        self.queue.push(Job { connection, done });
        finished.await.ok()
    }
}

impl Queue {
    fn push(&self, job: Job) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
        self.waiting.notify_one();
    }

    fn work(&self) {
        loop {
            let job = self.next();
            // Nobody may wait any more: the session's time was up.
            if job.done.is_closed() {
                continue;
            }
            let Job { mut connection, done } = job;
            let step = move || {
                let result = connection.process_new_packets().map(drop);
                (connection, result)
            };
            match catch_unwind(AssertUnwindSafe(step)) {
                Ok(step) => {
                    let _gone = done.send(step);
                }
                Err(_) => tracing::error!("warn: dispatcher: a handshake has failed badly"),
            }
        }
    }

    fn next(&self) -> Job {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(job) = jobs.pop_front() {
                return job;
            }
            jobs = self.waiting.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
