//! Who may log in: passwords of tables and of accounts, and how often they may be guessed.
//!
//! Nothing of it is done in the loop of the role: hashes are computed on [`checks`]' threads,
//! accounts are checked by processes ([`accounts`]). Wrong passwords are answered after a random time
//! of up to a second, which holds no thread, and counted by address ([`limit`]). A user who is not
//! there costs as much as one who is ([`samples`]). Which forms of hashes there are is in [`hash`].
//!
//! Limits: [`UNDER_WAY`] logins at once, those that are being delayed included; what is beyond fails
//! temporarily. Sessions of the control socket do not log in, and have no address to count.

mod accounts;
mod checks;
mod hash;
mod limit;
mod samples;
mod verifiers;

use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use platform::crypt::Crypt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use self::accounts::Accounts;
use self::checks::Checks;
use self::hash::HashError;
use self::limit::{Admission, Limiter};
use self::samples::{Hash, Samples};
pub(super) use self::verifiers::Verifiers;
use crate::config::TableId;
use crate::ipc::message::lookup::{Credentials as Verdict, Password};
use crate::model::envelope::Source;
use crate::process::ParentLink;
use crate::proto::scram::Verifier;

/// Logins at once.
const UNDER_WAY: usize = 2048;
/// A rejection is delayed by less than this many microseconds.
const LONGEST_DELAY: u32 = 1_000_000;

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
    samples: Samples,
}

impl Logins {
    /// Has accounts checked by way of `parent`. Must be called in a runtime.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn new(parent: &ParentLink, prepared: Prepared) -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self {
            begun: Instant::now(),
            limiter: Mutex::default(),
            free: Semaphore::new(UNDER_WAY),
            crypt: Arc::new(prepared.crypt),
            checks: Checks::new(prepared.threads),
            accounts: Accounts::new(parent),
            samples: Samples::new(secret),
        })
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

    /// Checks a password against the hash of a user, or for the same time if there is none.
    ///
    /// # Errors
    /// The hash is none that can be checked, in words: nobody has this password.
    pub(super) async fn check_hash(
        &self,
        table: TableId,
        user: &str,
        hash: Option<Zeroizing<String>>,
        password: Password,
    ) -> Result<Verdict, HashError> {
        let known = hash.map(Arc::new);
        if let Some(hash) = &known {
            self.samples.remember(table, hash);
        }
        let exists = known.is_some();
        let hash = known.unwrap_or_else(|| self.samples.for_nobody(table, user));
        match self.fits(hash, password.clone()).await {
            Some(Ok(fits)) if exists && fits => Ok(Verdict::Accepted),
            Some(Ok(_)) => Ok(Verdict::Rejected),
            Some(Err(error)) => {
                // Nothing was computed: something else is, whatever comes of it.
                let _spent = self.fits(self.samples.for_nobody(table, ""), password).await;
                if exists { Err(error) } else { Ok(Verdict::Rejected) }
            }
            None => Ok(Verdict::Failed),
        }
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

    /// The verifier that a hash is, or one for a user who has none.
    pub(super) fn verifier(
        &self,
        table: TableId,
        user: &str,
        hash: Option<Zeroizing<String>>,
    ) -> Verifier {
        let known = hash.map(Arc::new);
        if let Some(hash) = &known {
            self.samples.remember(table, hash);
        }
        let verifier = known.and_then(|hash| hash.parse().ok());
        verifier.unwrap_or_else(|| self.samples.verifier(table, user))
    }

    /// Whether hashes of this table have been seen.
    pub(super) fn has_samples(&self, table: TableId) -> bool {
        self.samples.has(table)
    }

    /// A user of this table has this hash.
    pub(super) fn remember(&self, table: TableId, hash: Zeroizing<String>) {
        self.samples.remember(table, &Arc::new(hash));
    }

    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
