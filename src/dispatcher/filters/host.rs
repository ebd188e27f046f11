//! The pipes of one filter program.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;

use super::{Shared, Signals, visible};
use crate::config::ProcessId;
use crate::ipc::message::parent::{ParentToRole, RoleToParent};
use crate::ipc::message::spawner::FilterStream;
use crate::process::ParentLink;

/// Bytes read from a program at once.
const READ: usize = 64 * 1024;
/// Longest line of standard error that is logged in one piece, in bytes.
const MAX_ERROR: usize = 1024;
/// How often it is said aloud in the same words how a program has ended.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Starts a program whenever the engine wants one, and talks with it until the engine gives it up.
pub(super) async fn run(shared: Arc<Shared>, parent: ParentLink, process: ProcessId) {
    let Some(signals) = shared.signals.get(process.0 as usize) else { return };
    let mut buffer = vec![0; READ];
    let mut said: Option<(String, Instant)> = None;
    loop {
        signals.start.notified().await;
        match start(&parent, process).await {
            Ok(Started { input, output, ended }) => {
                if let Some(ended) = ended {
                    say_lost(&signals.name, ended, &mut said);
                }
                tokio::spawn(log_errors(parent.clone(), process, signals.name.clone()));
                shared.drive(|engine, now| engine.started(now, process));
                converse(&shared, process, signals, (input, output), &mut buffer).await;
            }
            Err(reason) => {
                shared.drive(|engine, now| engine.not_started(now, process, reason));
                // Nothing runs that would have to end.
                signals.end.notified().await;
            }
        }
    }
}

/// Says how a program has ended by itself.
fn say_lost(name: &str, ended: String, said: &mut Option<(String, Instant)>) {
    let now = Instant::now();
    match said {
        Some((known, at)) if *known == ended && now < *at + SAY_AGAIN => {
            tracing::debug!("debug: lost processor: {name} {ended}");
        }
        _ => {
            tracing::warn!("warn: lost processor: {name} {ended}");
            *said = Some((ended, now));
        }
    }
}

/// A program that was started.
struct Started {
    input: pipe::Sender,
    output: pipe::Receiver,
    /// How its predecessor had ended.
    ended: Option<String>,
}

/// Has a program started.
async fn start(parent: &ParentLink, process: ProcessId) -> Result<Started, String> {
    let request = RoleToParent::StartFilter { process: process.0 };
    let (input, ended) = match parent.request(&request, None).await {
        Ok((ParentToRole::Filter { error: None, ended }, Some(input))) => (input, ended),
        Ok((ParentToRole::Filter { error: Some(error), .. }, _)) => return Err(error),
        Ok(_) => return Err("the parent did not answer the question".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let input = pipe::Sender::from_owned_fd(input).map_err(|error| error.to_string())?;
    let output = stream(parent, process, FilterStream::Output).await?;
    Ok(Started { input, output, ended })
}

/// Asks for what a program writes.
async fn stream(
    parent: &ParentLink,
    process: ProcessId,
    stream: FilterStream,
) -> Result<pipe::Receiver, String> {
    let request = RoleToParent::FilterStream { process: process.0, stream };
    match parent.request(&request, None).await {
        Ok((ParentToRole::FilterStream { error: None }, Some(end))) => {
            pipe::Receiver::from_owned_fd(end).map_err(|error| error.to_string())
        }
        Ok((ParentToRole::FilterStream { error: Some(error) }, _)) => Err(error),
        Ok(_) => Err("the parent did not answer the question".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What has happened.
enum Event {
    End,
    GoOn,
    Read(io::Result<usize>),
    Written(io::Result<usize>),
}

/// Passes on what is said in both directions, until the engine has had enough.
async fn converse(
    shared: &Arc<Shared>,
    process: ProcessId,
    signals: &Signals,
    (mut input, mut output): (pipe::Sender, pipe::Receiver),
    buffer: &mut [u8],
) {
    // What was taken from the engine, and how much of it has been sent.
    let (mut asked, mut sent) = (Vec::new(), 0);
    let mut may_read = true;
    loop {
        let event = tokio::select! {
            // Nothing is heard of a program that was given up, and answers do not wait while events
            // stream: what there is to write is written when nothing is there to read.
            biased;
            () = signals.end.notified() => Event::End,
            // Unlike a call after having waited, these know when nothing is left to read or to fill.
            read = output.read(buffer), if may_read => Event::Read(read),
            written = input.write(asked.get(sent..).unwrap_or_default()),
                if sent < asked.len() => Event::Written(written),
            () = signals.go_on.notified() => Event::GoOn,
        };
        let (read, written) = match event {
            Event::End => return,
            Event::GoOn => {
                // What others ask at this moment goes with it.
                tokio::task::yield_now().await;
                (0, 0)
            }
            Event::Read(Ok(count)) if count > 0 => (count, 0),
            Event::Written(Ok(count)) => (0, count),
            Event::Read(_) | Event::Written(Err(_)) => {
                shared.drive(|engine, now| engine.closed(now, process));
                signals.end.notified().await;
                return;
            }
        };
        sent += written;
        shared.drive(|engine, now| {
            if written > 0 {
                engine.sent(now, process, written);
            }
            if read > 0 {
                engine.received(now, process, buffer.get(..read).unwrap_or_default());
            }
            may_read = engine.may_read(process);
            if sent == asked.len() {
                asked.clear();
                sent = 0;
                engine.take_output(process, &mut asked);
            }
        });
    }
}

/// Logs what a program writes to its standard error, line by line, until it has ended.
async fn log_errors(parent: ParentLink, process: ProcessId, name: String) {
    let mut errors = match stream(&parent, process, FilterStream::Errors).await {
        Ok(errors) => errors,
        Err(error) => return tracing::debug!("debug: filter {name}: standard error: {error}"),
    };
    let mut line: Vec<u8> = Vec::new();
    let mut buffer = vec![0; MAX_ERROR];
    loop {
        let count = match errors.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        for byte in buffer.get(..count).unwrap_or_default() {
            match byte {
                b'\n' => log_line(&name, &mut line),
                _ => {
                    line.push(*byte);
                    if line.len() == MAX_ERROR {
                        log_line(&name, &mut line);
                    }
                }
            }
        }
    }
    if !line.is_empty() {
        log_line(&name, &mut line);
    }
}

fn log_line(name: &str, line: &mut Vec<u8>) {
    tracing::error!("{name}: {}", visible(line));
    line.clear();
}
