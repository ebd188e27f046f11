//! Sends a number of messages over a number of sessions and counts them at their destination.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::arrival::Arrivals;
use crate::client::Session;
use crate::mailbox;
use crate::message;
use crate::options::{Failure, Options};
use crate::sink;

/// Failures that one sender, or one message, may meet before it is given up.
const ATTEMPTS: usize = 100;
/// Pause after a failure.
const AFTER_FAILURE: Duration = Duration::from_millis(20);
/// How often the destination is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long duplicates are waited for.
const AFTERWARDS: Duration = Duration::from_millis(300);

/// What one sending thread did.
#[derive(Default)]
struct Sent {
    accepted: Vec<usize>,
    latencies: Vec<Duration>,
    failures: usize,
    failure: Option<String>,
    /// When the last message was accepted.
    last: Option<Instant>,
}

/// The command `run`.
pub fn run(options: &Options) -> Result<String, Failure> {
    let to = options.target()?;
    let relayed = Arc::new(Mutex::new(Arrivals::new(options.messages)));
    if let Some(address) = options.sink {
        sink::serve(address, &options.run, &relayed)?;
    }
    let before = options.mail.as_deref().map_or(Ok(0), mailbox::count)?;

    let (begin, begin_wall) = (Instant::now(), SystemTime::now());
    let sent = send_all(options, to);
    let last = sent.iter().filter_map(|sent| sent.last).max();
    let accept_seconds = last.map_or(0.0, |last| (last - begin).as_secs_f64());

    let mut accepted = vec![false; options.messages];
    for number in sent.iter().flat_map(|sent| &sent.accepted) {
        accepted[*number] = true;
    }
    let wanted = accepted.iter().filter(|yes| **yes).count();
    let arrived = || -> Result<usize, Failure> {
        Ok(match &options.mail {
            Some(root) => mailbox::count(root)?.saturating_sub(before),
            None => relayed.lock().unwrap_or_else(PoisonError::into_inner).total,
        })
    };
    let counted = options.mail.is_some() || options.sink.is_some();
    if counted {
        wait_for(wanted, options.patience, arrived)?;
    }
    let mut arrivals = Arrivals::new(options.messages);
    if let Some(root) = &options.mail {
        mailbox::examine(root, &options.run, &mut arrivals)?;
    } else {
        let mut relayed = relayed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut arrivals, &mut relayed);
    }

    let account = arrivals.account(if counted { &accepted } else { &[] });
    let delivered_seconds = arrivals
        .last
        .and_then(|last| last.duration_since(begin_wall).ok())
        .map_or(0.0, |took| took.as_secs_f64());
    let mut latencies: Vec<Duration> = sent.iter().flat_map(|s| s.latencies.clone()).collect();
    latencies.sort_unstable();
    let failures: usize = sent.iter().map(|sent| sent.failures).sum();
    let failure = sent.iter().find_map(|sent| sent.failure.as_deref()).unwrap_or_default();
    Ok(format!(
        "{{\"messages\": {}, \"accepted\": {wanted}, \"arrived\": {}, \"lost\": {}, \
         \"duplicate\": {}, \"damaged\": {}, \"accept_seconds\": {accept_seconds:.6}, \
         \"delivered_seconds\": {delivered_seconds:.6}, \"latency_median\": {:.6}, \
         \"latency_p99\": {:.6}, \"failures\": {failures}, \"failure\": {failure:?}}}",
        options.messages,
        arrivals.total,
        account.lost,
        account.duplicate,
        account.damaged,
        quantile(&latencies, 0.5),
        quantile(&latencies, 0.99),
    ))
}

/// Seconds below which `share` of the sorted `times` are.
pub fn quantile(times: &[Duration], share: f64) -> f64 {
    let last = times.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    times.get(at).map_or(0.0, Duration::as_secs_f64)
}

fn send_all(options: &Options, to: SocketAddr) -> Vec<Sent> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..options.sessions).map(|_| scope.spawn(|| send_some(options, to, &next))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

/// One sender: session after session until no number is left.
///
/// A number is taken only by an open session: connections that hang keep no message back.
fn send_some(options: &Options, to: SocketAddr, next: &AtomicUsize) -> Sent {
    let mut sent = Sent::default();
    let mut session: Option<(Session, usize)> = None;
    while next.load(Ordering::Relaxed) < options.messages && sent.failures < ATTEMPTS {
        if session.is_none() {
            session = sent.judge(Session::open(to)).map(|open| (open, 0));
            continue;
        }
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= options.messages {
            break;
        }
        let message = message::compose(&options.run, number, options.size);
        let recipients = recipients(options, number);
        for _ in 0..ATTEMPTS {
            let latency = send_one(options, to, &mut session, &recipients, &message);
            if let Some(latency) = sent.judge(latency) {
                sent.accepted.push(number);
                sent.latencies.push(latency);
                sent.last = Some(Instant::now());
                break;
            }
            session = None;
        }
    }
    if let Some((session, _)) = session {
        // Nothing depends on the goodbye.
        let _ = session.quit();
    }
    sent
}

impl Sent {
    /// Counts a failure, and waits a little after it.
    fn judge<T>(&mut self, result: Result<T, Failure>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(failure) => {
                self.failures += 1;
                self.failure = Some(failure.to_string());
                std::thread::sleep(AFTER_FAILURE);
                None
            }
        }
    }
}

fn send_one(
    options: &Options,
    to: SocketAddr,
    session: &mut Option<(Session, usize)>,
    recipients: &[String],
    message: &[u8],
) -> Result<Duration, Failure> {
    let (mut open, had) = match session.take() {
        Some(open) => open,
        None => (Session::open(to)?, 0),
    };
    let latency = open.send(recipients, message)?;
    if had + 1 < options.per_session {
        *session = Some((open, had + 1));
    } else {
        // The message is accepted, whatever becomes of the goodbye.
        let _ = open.quit();
    }
    Ok(latency)
}

/// The recipients of message `number`: mailboxes take turns.
pub fn recipients(options: &Options, number: usize) -> Vec<String> {
    let one = |n: usize| format!("u{}@{}", n % options.mailboxes, options.domain);
    (0..options.recipients).map(|n| one(number * options.recipients + n)).collect()
}

/// Waits until `wanted` messages are there, or none came for `patience`.
fn wait_for(
    wanted: usize,
    patience: Duration,
    arrived: impl Fn() -> Result<usize, Failure>,
) -> Result<(), Failure> {
    let mut latest = 0;
    let mut since = Instant::now();
    loop {
        let now = arrived()?;
        if now >= wanted {
            std::thread::sleep(AFTERWARDS);
            return Ok(());
        }
        if now > latest {
            latest = now;
            since = Instant::now();
        } else if since.elapsed() > patience {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}
