//! Signatures from *keys*: a few channels, each for one thread at a time.
//!
//! A signature has 2 s. Within them a thread waits for a channel too: a *keys* that was replaced
//! meanwhile costs a handshake that much, and not its life. After three in a row that were missed
//! *keys* counts as out of reach, and sessions answer 454 until it has answered something again.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::ipc::blob::Blob;
use crate::ipc::blocking::{Channel, ChannelError};
use crate::ipc::message::keys::{Sign, Signed};
use crate::model::tls::KeyId;
use crate::tls::{SignError, Signatory};

/// How long a signature may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// Signatures missed in a row after which *keys* is out of reach.
const MISSES: u32 = 3;

/// The channels to *keys* on which signatures are asked for.
#[derive(Debug, Default)]
pub(super) struct Signers {
    pool: Mutex<Pool>,
    /// A channel is free.
    freed: Condvar,
    missed: AtomicU32,
    /// *keys* has come in or out of reach.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Line>,
    /// Which *keys* they lead to.
    generation: u64,
}

#[derive(Debug)]
struct Line {
    channel: Channel<Sign, Signed>,
    /// Number of the latest question.
    number: u32,
}

impl Signers {
    /// Uses these channels from now on, each an end of a socket pair whose other end is served.
    pub(super) fn replace(&self, descriptors: Vec<OwnedFd>) {
        let lines = descriptors.into_iter().filter_map(|descriptor| {
            let channel = Channel::new(descriptor).ok()?;
            Some(Line { channel, number: 0 })
        });
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.idle = lines.collect();
        pool.generation += 1;
        drop(pool);
        self.freed.notify_all();
        self.reached();
    }

    /// Whether signatures can be had.
    pub(super) fn is_reachable(&self) -> bool {
        self.missed.load(Ordering::Relaxed) < MISSES
    }

    /// Notes that *keys* has answered.
    fn reached(&self) {
        if self.missed.swap(0, Ordering::Relaxed) >= MISSES {
            self.changed.notify_one();
        }
    }

    fn missed(&self) -> SignError {
        if self.missed.fetch_add(1, Ordering::Relaxed) + 1 == MISSES {
            tracing::warn!("warn: keys does not sign: no TLS until it does");
            self.changed.notify_one();
        }
        SignError::Unreachable
    }

    /// A free channel; `None` if there is none before the deadline.
    fn take(&self, deadline: Instant) -> Option<(u64, Line)> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = pool.idle.pop() {
                return Some((pool.generation, line));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.freed.wait_timeout(pool, left);
            pool = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn give_back(&self, generation: u64, line: Line) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.generation == generation {
            pool.idle.push(line);
            drop(pool);
            self.freed.notify_one();
        }
    }
}

impl Line {
    /// Asks, and waits for the answer.
    fn ask(&mut self, question: &Sign, deadline: Instant) -> Result<Signed, ChannelError> {
        self.number = self.number.wrapping_add(1);
        self.channel.request(self.number, question, None)?;
        loop {
            let received = self.channel.receive_before(Some(deadline))?;
            // What comes late answers a question that nobody waits for any more.
            if received.number == self.number {
                return Ok(received.message.unwrap_or(Signed(None)));
            }
        }
    }
}

impl Signatory for Signers {
    fn sign(&self, key: KeyId, scheme: u16, message: &[u8]) -> Result<Vec<u8>, SignError> {
        // Whoever waits in line for a thread would wait for nothing.
        if !self.is_reachable() {
            return Err(SignError::Unreachable);
        }
        let deadline = Instant::now() + DEADLINE;
        let question = Sign { key, scheme, message: Blob(message.to_vec()) };
        loop {
            let Some((generation, mut line)) = self.take(deadline) else {
                return Err(self.missed());
            };
            match line.ask(&question, deadline) {
                Ok(Signed(signature)) => {
                    self.give_back(generation, line);
                    self.reached();
                    return signature.map(|blob| blob.0).ok_or(SignError::Refused);
                }
                Err(ChannelError::Late) => {
                    self.give_back(generation, line);
                    return Err(self.missed());
                }
                // It is gone: another may be there in time.
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    const KEY: KeyId = KeyId([1; 32]);

    /// The other end of a channel: answers each question with its own message after a while.
    fn serve(descriptor: OwnedFd, pause: Duration) {
        thread::spawn(move || {
            let mut channel = Channel::<Signed, Sign>::new(descriptor).unwrap();
            while let Ok(received) = channel.receive() {
                thread::sleep(pause);
                let answer = Signed(received.message.map(|question| question.message));
                channel.reply(received.number, &answer, None).unwrap();
                if channel.flush().is_err() {
                    return;
                }
            }
        });
    }

    fn line(signers: &Signers, pause: Duration) {
        let (ours, theirs) = platform::fd::socketpair().unwrap();
        serve(theirs, pause);
        signers.replace(vec![ours]);
    }

    #[test]
    fn many_threads_share_few_channels() {
        let signers = Arc::new(Signers::default());
        line(&signers, Duration::from_millis(1));
        let threads = (0_u8..8).map(|number| {
            let signers = Arc::clone(&signers);
            thread::spawn(move || signers.sign(KEY, 1, &[number]) == Ok(vec![number]))
        });
        let threads: Vec<_> = threads.collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    }

    #[test]
    fn a_signature_waits_for_the_next_keys() {
        let signers = Arc::new(Signers::default());
        let (ours, theirs) = platform::fd::socketpair().unwrap();
        signers.replace(vec![ours]);
        drop(theirs);
        let waiting = Arc::clone(&signers);
        let waiting = thread::spawn(move || waiting.sign(KEY, 1, b"x"));
        thread::sleep(Duration::from_millis(100));
        line(&signers, Duration::ZERO);
        assert_eq!(waiting.join().unwrap(), Ok(b"x".to_vec()));
    }

    #[test]
    fn three_missed_signatures_put_keys_out_of_reach_until_it_answers() {
        let signers = Arc::new(Signers::default());
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let signers = Arc::clone(&signers);
                thread::spawn(move || signers.sign(KEY, 1, b"x"))
            })
            .collect();
        assert!(signers.is_reachable());
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), Err(SignError::Unreachable));
        }
        assert!(!signers.is_reachable());
        let begin = Instant::now();
        assert_eq!(signers.sign(KEY, 1, b"x"), Err(SignError::Unreachable));
        assert!(begin.elapsed() < DEADLINE / 2);
        line(&signers, Duration::ZERO);
        assert!(signers.is_reachable());
    }

    #[test]
    fn an_answer_that_comes_too_late_is_not_taken_for_the_next_one() {
        let signers = Signers::default();
        line(&signers, Duration::from_millis(2200));
        assert_eq!(signers.sign(KEY, 1, b"first"), Err(SignError::Unreachable));
        thread::sleep(Duration::from_millis(300));
        // The first answer has come; this question is not answered in time either.
        assert_eq!(signers.sign(KEY, 1, b"second"), Err(SignError::Unreachable));
    }
}
