//! Accounts of the system, each checked by a process of its own.
//!
//! The parent has the process started and passes its channel; the password goes over that channel
//! alone. A check that hangs in the system's modules holds up nobody else.
//!
//! Limits: [`WORKERS`] at once, [`WAITING`] wait, and after [`DEADLINE`] the answer is that it is not
//! known.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::ipc::blob::Blob;
use crate::ipc::link::Link;
use crate::ipc::message::auth::{AuthToLookup, LookupToAuth};
use crate::ipc::message::lookup::Password;
use crate::ipc::message::parent::{ParentToRole, RoleToParent};
use crate::process::ParentLink;

/// Auth workers at once: wrong passwords may take their time without delaying right ones.
const WORKERS: usize = 64;
/// Checks that wait for one.
const WAITING: usize = 256;
/// How long a check may take, the wait for its turn included.
const DEADLINE: Duration = Duration::from_secs(30);

/// Asks auth workers.
#[derive(Debug)]
pub(super) struct Accounts {
    parent: ParentLink,
    free: Semaphore,
    /// Checks that run or wait.
    begun: AtomicUsize,
}

impl Accounts {
    /// Has workers started by `parent`.
    pub(super) fn new(parent: &ParentLink) -> Self {
        let free = Semaphore::new(WORKERS);
        Self { parent: parent.clone(), free, begun: AtomicUsize::new(0) }
    }

    /// Whether this is the password of an account that may log in.
    ///
    /// # Errors
    /// It is not known, for this reason.
    pub(super) async fn check(
        &self,
        user: Vec<u8>,
        password: Password,
        remote: Option<IpAddr>,
    ) -> Result<bool, String> {
        let begun = Begun::new(&self.begun).ok_or("too many passwords wait to be checked")?;
        let check = LookupToAuth::Check { user: Blob(user), password, remote };
        let answer = timeout(DEADLINE, self.ask(&check)).await;
        drop(begun);
        answer.unwrap_or_else(|_| Err("the check takes too long".to_owned()))
    }

    async fn ask(&self, check: &LookupToAuth) -> Result<bool, String> {
        let gone = |_| "lookup ends".to_owned();
        let _place = self.free.acquire().await.map_err(gone)?;
        let descriptor = match self.parent.request(&RoleToParent::StartAuthWorker, None).await {
            Ok((ParentToRole::AuthWorker { error: None }, Some(descriptor))) => descriptor,
            Ok((ParentToRole::AuthWorker { error: Some(error) }, _)) => return Err(error),
            Ok(_) => return Err("the parent did not answer the question".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        // It says nothing of its own: whatever it asks is refused.
        let (worker, _) = Link::open(descriptor, 1).map_err(|error| error.to_string())?;
        let worker = Asked(worker);
        match worker.0.request(check, None).await {
            Ok((AuthToLookup::Checked(checked), _)) => checked,
            Err(error) => Err(format!("the auth worker: {error}")),
        }
    }
}

/// A worker, whose channel ends with its answer, and also when nobody waits for that any more.
struct Asked(Link<LookupToAuth, AuthToLookup>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A check that runs or waits.
struct Begun<'a>(&'a AtomicUsize);

impl<'a> Begun<'a> {
    fn new(count: &'a AtomicUsize) -> Option<Self> {
        let one = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < WORKERS + WAITING).then_some(one)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zeroize::Zeroizing;

    use super::*;

    /// Accounts whose workers find only `right` right, do not answer to `slow`, and are not started
    /// once there have been `most`; and how many slow ones were left to themselves.
    fn accounts(most: usize) -> (Arc<Accounts>, Arc<AtomicUsize>) {
        let left = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&left);
        let (ours, theirs) = platform::fd::socketpair().unwrap();
        let (parent, _) = Link::open(ours, 512).unwrap();
        tokio::spawn(async move {
            let (_link, mut orders) =
                Link::<ParentToRole, RoleToParent>::open(theirs, 512).unwrap();
            let mut started = 0;
            while let Some(order) = orders.recv().await {
                assert_eq!(order.message, RoleToParent::StartAuthWorker);
                started += 1;
                if started > most {
                    let error = Some("no more".to_owned());
                    order.responder.reply(&ParentToRole::AuthWorker { error }, None).unwrap();
                    continue;
                }
                let (near, far) = platform::fd::socketpair().unwrap();
                tokio::spawn(work(near, Arc::clone(&count)));
                let answer = ParentToRole::AuthWorker { error: None };
                order.responder.reply(&answer, Some(far)).unwrap();
            }
        });
        (Arc::new(Accounts::new(&parent)), left)
    }

    async fn work(channel: std::os::fd::OwnedFd, left: Arc<AtomicUsize>) {
        let (_link, mut asked) = Link::<AuthToLookup, LookupToAuth>::open(channel, 1).unwrap();
        let Some(question) = asked.recv().await else { return };
        let LookupToAuth::Check { password, .. } = question.message;
        let checked = match &password.0[..] {
            b"slow" => {
                assert!(asked.recv().await.is_none());
                left.fetch_add(1, Ordering::Relaxed);
                return;
            }
            b"broken" => Err("no directory".to_owned()),
            other => Ok(other == b"right"),
        };
        // Nobody may wait any more.
        let _gone = question.responder.reply(&AuthToLookup::Checked(checked), None);
    }

    fn password(text: &str) -> Password {
        Password(Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[tokio::test]
    async fn a_worker_says_whether_a_password_is_right() {
        let (accounts, _) = accounts(3);
        for (sent, expected) in [
            ("right", Ok(true)),
            ("wrong", Ok(false)),
            ("broken", Err("no directory".to_owned())),
            ("right", Err("no more".to_owned())),
        ] {
            let checked = accounts.check(b"alice".to_vec(), password(sent), None).await;
            assert_eq!(checked, expected, "{sent}");
        }
        assert_eq!(accounts.begun.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn workers_that_hang_hold_up_only_their_own_checks() {
        let (accounts, left) = accounts(usize::MAX);
        let check = |sent: &'static str| {
            let accounts = Arc::clone(&accounts);
            tokio::spawn(
                async move { accounts.check(b"alice".to_vec(), password(sent), None).await },
            )
        };
        let slow: Vec<_> = (0..WORKERS - 1).map(|_| check("slow")).collect();
        tokio::task::yield_now().await;
        assert_eq!(check("right").await.unwrap(), Ok(true));
        let slow = slow.into_iter().chain((0..WAITING + 1).map(|_| check("slow")));
        let slow: Vec<_> = slow.collect();
        while accounts.begun.load(Ordering::Relaxed) < WORKERS + WAITING {
            tokio::task::yield_now().await;
        }
        let over = check("right").await.unwrap();
        assert_eq!(over, Err("too many passwords wait to be checked".to_owned()));
        for task in slow {
            assert_eq!(task.await.unwrap(), Err("the check takes too long".to_owned()));
        }
        assert_eq!(check("right").await.unwrap(), Ok(true));
        // Nothing of them is kept until they end.
        for _ in 0..100_000 {
            if left.load(Ordering::Relaxed) >= WORKERS {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{left:?}");
    }
}
