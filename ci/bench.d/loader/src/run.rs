//! Sends a number of messages over a number of sessions and counts them at their destination.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::arrival::Arrivals;
use crate::client::Session;
use crate::dial::Dialer;
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
    /// From the first packet to the reply to the first message.
    openings: Vec<Duration>,
    /// Sessions that resumed an earlier one.
    resumed: usize,
    failures: usize,
    failure: Option<String>,
    /// When the last message was accepted.
    last: Option<Instant>,
}

/// The command `run`.
pub fn run(options: &Options) -> Result<String, Failure> {
    let dialers = (0..options.sessions)
        .map(|_| Dialer::new(options))
        .collect::<Result<Vec<Dialer>, Failure>>()?;
    let relayed = Arc::new(Mutex::new(Arrivals::new(options.messages)));
    if let Some(address) = options.sink {
        sink::serve(address, &options.run, &relayed)?;
    }
    let before = options.mail.as_deref().map_or(Ok(0), mailbox::count)?;

    let (begin, begin_wall) = (Instant::now(), SystemTime::now());
    let sent = send_all(options, &dialers);
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
    let sorted = |times: fn(&Sent) -> &Vec<Duration>| {
        let mut all: Vec<Duration> = sent.iter().flat_map(|sent| times(sent).clone()).collect();
        all.sort_unstable();
        all
    };
    let (latencies, openings) = (sorted(|sent| &sent.latencies), sorted(|sent| &sent.openings));
    let resumed: usize = sent.iter().map(|sent| sent.resumed).sum();
    let failures: usize = sent.iter().map(|sent| sent.failures).sum();
    let failure = sent.iter().find_map(|sent| sent.failure.as_deref()).unwrap_or_default();
    Ok(format!(
        "{{\"messages\": {}, \"accepted\": {wanted}, \"arrived\": {}, \"lost\": {}, \
         \"duplicate\": {}, \"damaged\": {}, \"accept_seconds\": {accept_seconds:.6}, \
         \"delivered_seconds\": {delivered_seconds:.6}, \"latency_median\": {:.6}, \
         \"latency_p99\": {:.6}, \"opening_median\": {:.6}, \"opening_p99\": {:.6}, \
         \"sessions\": {}, \"resumed\": {resumed}, \"failures\": {failures}, \"failure\": {failure:?}}}",
        options.messages,
        arrivals.total,
        account.lost,
        account.duplicate,
        account.damaged,
        quantile(&latencies, 0.5),
        quantile(&latencies, 0.99),
        quantile(&openings, 0.5),
        quantile(&openings, 0.99),
        openings.len(),
    ))
}

/// Seconds below which `share` of the sorted `times` are.
pub fn quantile(times: &[Duration], share: f64) -> f64 {
    let last = times.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    times.get(at).map_or(0.0, Duration::as_secs_f64)
}

fn send_all(options: &Options, dialers: &[Dialer]) -> Vec<Sent> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let send = |dialer| send_some(options, dialer, &next);
        let threads: Vec<_> =
            dialers.iter().map(|dialer| scope.spawn(move || send(dialer))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

/// One sender: session after session until no number is left.
///
/// A number is taken only by an open session: connections that hang keep no message back.
fn send_some(options: &Options, dialer: &Dialer, next: &AtomicUsize) -> Sent {
    let mut sent = Sent::default();
    let mut open: Option<Open> = None;
    while next.load(Ordering::Relaxed) < options.messages && sent.failures < ATTEMPTS {
        if open.is_none() {
            open = sent.judge(Open::new(dialer));
            continue;
        }
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= options.messages {
            break;
        }
        let message = message::compose(&options.run, number, options.size);
        let recipients = recipients(options, number);
        for _ in 0..ATTEMPTS {
            let done = send_one(options, dialer, &mut open, &recipients, &message);
            if let Some(done) = sent.judge(done) {
                sent.accepted.push(number);
                sent.note(&done);
                break;
            }
            open = None;
        }
    }
    if let Some(open) = open {
        // Nothing depends on the goodbye.
        let _ = open.session.quit();
    }
    sent
}

/// An open session, and how far it has come.
struct Open {
    session: Session,
    /// When it was begun.
    begin: Instant,
    /// Messages that it has carried.
    had: usize,
}

impl Open {
    fn new(dialer: &Dialer) -> Result<Self, Failure> {
        let begin = Instant::now();
        Ok(Self { session: Session::open(dialer)?, begin, had: 0 })
    }
}

/// What is known of an accepted message.
struct Done {
    latency: Duration,
    /// For the first one of a session: how long since the session was begun, and whether it
    /// resumed an earlier one.
    opening: Option<(Duration, bool)>,
}

impl Sent {
    /// Notes an accepted message.
    fn note(&mut self, done: &Done) {
        self.latencies.push(done.latency);
        if let Some((took, resumed)) = done.opening {
            self.openings.push(took);
            self.resumed += usize::from(resumed);
        }
        self.last = Some(Instant::now());
    }

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
    dialer: &Dialer,
    open: &mut Option<Open>,
    recipients: &[String],
    message: &[u8],
) -> Result<Done, Failure> {
    let mut now = match open.take() {
        Some(open) => open,
        None => Open::new(dialer)?,
    };
    let latency = now.session.send(recipients, message)?;
    let opening = (now.had == 0).then(|| (now.begin.elapsed(), now.session.is_resumed()));
    now.had += 1;
    if now.had < options.per_session {
        *open = Some(now);
    } else {
        // The message is accepted, whatever becomes of the goodbye.
        let _ = now.session.quit();
    }
    Ok(Done { latency, opening })
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
