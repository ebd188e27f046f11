//! Where hashes are computed: on a few threads, so that who asks for names is not held up.
//!
//! Limits: as many checks at once as there are cores; [`WAITING`] more wait, for [`PATIENCE`] at
//! most. What is beyond that fails, which is temporary.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Checks that wait for a thread at once.
const WAITING: usize = 256;
/// How long one waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// The threads.
#[derive(Debug)]
pub(super) struct Checks {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Too many checks are to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("too many passwords wait to be checked")]
pub(super) struct Overload;

impl Checks {
    /// This many at once.
    pub(super) fn new(threads: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(threads.max(1))), waiting: AtomicUsize::new(0) }
    }

    /// Does `work` on a thread when there is one.
    ///
    /// # Errors
    /// [`Overload`]; also when the work has panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Overload> {
        let waiting = Waiting::new(&self.waiting).ok_or(Overload)?;
        let place = timeout(PATIENCE, Arc::clone(&self.free).acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(Overload) };
        drop(waiting);
        let done = spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        done.await.map_err(|_| Overload)
    }
}

/// One that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Option<Self> {
        let one = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < WAITING).then_some(one)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn no_more_is_done_at_once_than_there_are_threads_and_no_more_waits_than_is_allowed() {
        let checks = Arc::new(Checks::new(2));
        let (begun, count) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let ended = Arc::new(std::sync::Mutex::new(ended));
        let mut running = Vec::new();
        for _ in 0..2 + WAITING {
            let (checks, begun, ended) = (Arc::clone(&checks), begun.clone(), Arc::clone(&ended));
            running.push(tokio::spawn(async move {
                let work = move || {
                    begun.send(()).unwrap();
                    // Until the test has seen enough.
                    let _ended = ended.lock().unwrap().recv();
                };
                checks.run(work).await
            }));
            tokio::task::yield_now().await;
        }
        while checks.free.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(checks.run(|| ()).await, Err(Overload));
        drop(end);
        for task in running {
            assert_eq!(task.await.unwrap(), Ok(()));
        }
        assert_eq!(count.try_iter().count(), 2 + WAITING);
        assert_eq!(checks.run(|| 7).await, Ok(7));
        assert_eq!(checks.run(|| panic!("meant")).await.map(|()| 0), Err(Overload));
        assert_eq!(checks.run(|| 7).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let checks = Checks::new(1);
        let _held = Arc::clone(&checks.free).acquire_owned().await;
        assert_eq!(checks.run(|| ()).await, Err(Overload));
        assert_eq!(checks.waiting.load(Ordering::Relaxed), 0);
    }
}
