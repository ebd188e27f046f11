//! Who may log in: passwords of tables and of accounts, and how often they may be guessed.
//!
//! Nothing of it is done in the loop of the role: hashes are computed on [`checks`]' threads,
//! accounts are checked by processes ([`accounts`]). Wrong passwords are answered after a random time
//! of up to a second, which holds no thread, and counted by address ([`limit`]). A user who is not
//! there costs as much as one who is ([`survey`]). Which forms of hashes there are is in [`hash`].
//!
//! Limits: [`UNDER_WAY`] logins at once, those that are being delayed included; what is beyond fails
//! temporarily. Sessions of the control socket do not log in, and have no address to count.

mod accounts;
mod checks;
mod hash;
mod limit;
mod survey;

use std::any::Any;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use platform::crypt::Crypt;
use sha2::Sha256;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use self::accounts::Accounts;
use self::checks::Checks;
use self::hash::HashError;
use self::limit::{Admission, Limiter};
pub(super) use self::survey::Survey;
use self::survey::{Hash, Surveys};
use crate::config::TableId;
use crate::ipc::message::lookup::{Credentials as Verdict, Password};
use crate::ipc::seal::Key;
use crate::model::envelope::Source;
use crate::process::ParentLink;
use crate::proto::scram::{Cost, Verifier};

/// Logins at once.
const UNDER_WAY: usize = 2048;
/// A rejection is delayed by less than this many microseconds.
const LONGEST_DELAY: u32 = 1_000_000;
/// What the key is for that decides about users who are not there.
const NOBODY: &str = "pillarbox nobody 1";
/// What is computed where no hash has been seen: the form and cost of new ones.
const INVENTED: &str = "$y$j9T$inventedinvented$0gBD67sgmJgRX3RZ6wHHO7sHimQEWGCWN85o4Twogh2";

/// What the role prepares before it is confined.
#[derive(Debug)]
pub(super) struct Prepared {
    crypt: Option<Crypt>,
    threads: usize,
}

impl Prepared {
    /// Loads the system's crypt(3), if it has one, and counts cores.
    pub(super) fn load() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self { crypt: Crypt::load(), threads }
    }
}

/// Checks logins.
#[derive(Debug)]
pub(super) struct Logins {
    begun: Instant,
    limiter: Mutex<Limiter>,
    free: Semaphore,
    crypt: Arc<Option<Crypt>>,
    checks: Checks,
    accounts: Accounts,
    surveys: Surveys,
    /// Decides about users who are not there.
    secret: Zeroizing<[u8; 32]>,
}

impl Logins {
    /// Has accounts checked by way of `parent`. What users are told who are not there, follows from
    /// `key`: it is to be the same one in every lookup role of a daemon. Must be called in a runtime.
    pub(super) fn new(parent: &ParentLink, prepared: Prepared, key: &Key) -> Self {
        Self {
            begun: Instant::now(),
            limiter: Mutex::default(),
            free: Semaphore::new(UNDER_WAY),
            crypt: Arc::new(prepared.crypt),
            checks: Checks::new(prepared.threads),
            accounts: Accounts::new(parent),
            surveys: Surveys::default(),
            secret: key.derived_bytes(NOBODY),
        }
    }

    /// What a client is told whose password is checked by `check`.
    pub(super) async fn judge(
        &self,
        source: Source,
        check: impl Future<Output = Verdict>,
    ) -> Verdict {
        let Ok(_place) = self.free.try_acquire() else { return Verdict::Failed };
        let Source::Ip(address) = source else { return self.delayed(check.await).await };
        match self.limiter().begin(self.begun.elapsed(), address) {
            Admission::Welcome => {}
            Admission::Busy => return Verdict::Failed,
            Admission::Refused => return Verdict::Limited,
        }
        let mut attempt = Attempt { logins: self, address, failed: false };
        let verdict = check.await;
        attempt.failed = verdict == Verdict::Rejected;
        drop(attempt);
        self.delayed(verdict).await
    }

    /// What a client is told of whose proof somebody else has judged.
    pub(super) async fn judged(&self, source: Source, accepted: bool) -> Verdict {
        let verdict = if accepted { Verdict::Accepted } else { Verdict::Rejected };
        self.judge(source, std::future::ready(verdict)).await
    }

    /// Whether a client is refused whatever it sends.
    pub(super) fn refuses(&self, source: Source) -> bool {
        match source {
            Source::Ip(address) => self.limiter().refuses(self.begun.elapsed(), address),
            Source::Local => false,
        }
    }

    /// Gives the verdict when it is time to.
    async fn delayed(&self, verdict: Verdict) -> Verdict {
        if verdict == Verdict::Rejected {
            // Without random numbers the delay is the longest.
            let drawn = getrandom::u32().unwrap_or(u32::MAX);
            let micros = (u64::from(drawn) * u64::from(LONGEST_DELAY)) >> 32;
            sleep(Duration::from_micros(micros)).await;
        }
        verdict
    }

    /// Checks the password of an account of the system.
    pub(super) async fn check_account(
        &self,
        user: Vec<u8>,
        password: Password,
        source: Source,
    ) -> Verdict {
        let remote = match source {
            Source::Ip(address) => Some(address),
            Source::Local => None,
        };
        match self.accounts.check(user, password, remote).await {
            Ok(true) => Verdict::Accepted,
            Ok(false) => Verdict::Rejected,
            Err(reason) => {
                tracing::warn!("warn: lookup: authentication: {reason}");
                Verdict::Failed
            }
        }
    }

    /// What a table is like whose contents these are, by `look`.
    pub(super) async fn survey<T: Any + Send + Sync>(
        &self,
        table: TableId,
        contents: Arc<T>,
        look: impl FnOnce(&T) -> Survey + Send + 'static,
    ) -> Arc<Survey> {
        self.surveys.of(table, contents, look).await
    }

    /// What a table is like that cannot be looked through, as far as it has shown; `hash` is the one
    /// that it shows now.
    pub(super) async fn seen(
        &self,
        table: TableId,
        hash: Option<&Zeroizing<String>>,
    ) -> Arc<Survey> {
        if let Some(hash) = hash {
            self.surveys.learn(table, hash).await;
        }
        self.surveys.seen(table).await
    }

    /// Checks a password against the hash of a user, or for the same time if there is none. `survey`
    /// is what the user's table is like.
    ///
    /// # Errors
    /// The hash is none that can be checked, in words: nobody has this password.
    pub(super) async fn check_hash(
        &self,
        survey: &Survey,
        user: &str,
        hash: Option<Zeroizing<String>>,
        password: Password,
    ) -> Result<Verdict, HashError> {
        let Some(hash) = hash else { return Ok(self.spend(survey, user, password).await) };
        match self.fits(Arc::new(hash), password.clone()).await {
            Some(Ok(true)) => Ok(Verdict::Accepted),
            Some(Ok(false)) => Ok(Verdict::Rejected),
            // Nothing was computed.
            Some(Err(error)) => match self.spend(survey, user, password).await {
                Verdict::Failed => Ok(Verdict::Failed),
                _ => Err(error),
            },
            None => Ok(Verdict::Failed),
        }
    }

    /// Takes as long as the check of a wrong password.
    async fn spend(&self, survey: &Survey, user: &str, password: Password) -> Verdict {
        let kind = survey.kind_of(self.number(user));
        let hash = kind.map_or_else(invented, |kind| Arc::clone(kind.hash()));
        let spent = match self.fits(hash, password.clone()).await {
            // This system cannot compute those either.
            Some(Err(_)) => self.fits(invented(), password).await,
            spent => spent,
        };
        if spent.is_none() { Verdict::Failed } else { Verdict::Rejected }
    }

    async fn fits(&self, hash: Hash, password: Password) -> Option<Result<bool, HashError>> {
        let crypt = Arc::clone(&self.crypt);
        let check = move || hash::fits(&hash, &password.0, Option::as_ref(&crypt));
        match self.checks.run(check).await {
            Ok(fits) => Some(fits),
            Err(overload) => {
                tracing::warn!("warn: lookup: authentication: {overload}");
                None
            }
        }
    }

    /// The verifier that a user has, or one that no password fits for a user who is not there; `None`
    /// for a user with a hash of another form, and for as many of those who are not there as there
    /// are of these. `survey` is what the user's table is like.
    pub(super) fn verifier(
        &self,
        survey: &Survey,
        user: &str,
        hash: Option<&Zeroizing<String>>,
    ) -> Option<Verifier> {
        // Made in any case: it takes a moment that can be measured.
        let cost = match survey.kind_of(self.number(user)) {
            Some(kind) => kind.cost(),
            None => Some(Cost::default()),
        };
        let invented = Verifier::invented(&self.secret, user, cost.unwrap_or_default());
        match hash {
            Some(hash) => match hash.parse() {
                Ok(verifier) => Some(verifier),
                Err(_) if hash::kind(hash).is_ok() => None,
                // Nobody can log in with that: it is as if the user was not there.
                Err(_) => cost.map(|_| invented),
            },
            None => cost.map(|_| invented),
        }
    }

    /// A number that only the secret and the name decide.
    fn number(&self, user: &str) -> u64 {
        let mut block = Zeroizing::new([0; 64]);
        block[..32].copy_from_slice(&*self.secret);
        let mut mac = Hmac::<Sha256>::new((&*block).into());
        mac.update(b"kind\0");
        mac.update(user.as_bytes());
        let code: [u8; 32] = mac.finalize().into_bytes().into();
        u64::from_be_bytes(*code.first_chunk().unwrap_or(&[0; 8]))
    }

    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn invented() -> Hash {
    Arc::new(Zeroizing::new(INVENTED.to_owned()))
}

/// A check under way, which ends whatever happens to it.
struct Attempt<'a> {
    logins: &'a Logins,
    address: IpAddr,
    failed: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let now = self.logins.begun.elapsed();
        self.logins.limiter().end(now, self.address, self.failed);
    }
}

#[cfg(test)]
mod tests;
