//! The sockets of one filter program.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;

use super::{Shared, Signals, visible};
use crate::config::ProcessId;
use crate::ipc::message::parent::{ParentToRole, RoleToParent};
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
            Ok((socket, ended)) => {
                if let Some(ended) = ended {
                    say_lost(&signals.name, ended, &mut said);
                }
                tokio::spawn(log_errors(parent.clone(), process, signals.name.clone()));
                shared.drive(|engine, now| engine.started(now, process));
                converse(&shared, process, signals, &socket, &mut buffer).await;
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

/// Has a program started; how its predecessor had ended, too.
async fn start(
    parent: &ParentLink,
    process: ProcessId,
) -> Result<(UnixStream, Option<String>), String> {
    let request = RoleToParent::StartFilter { process: process.0 };
    match parent.request(&request, None).await {
        Ok((ParentToRole::Filter { error: None, ended }, Some(descriptor))) => {
            let socket = watched(descriptor.into()).map_err(|error| error.to_string())?;
            Ok((socket, ended))
        }
        Ok((ParentToRole::Filter { error: Some(error), .. }, _)) => Err(error),
        Ok(_) => Err("the parent did not answer the question".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn watched(socket: std::os::unix::net::UnixStream) -> io::Result<UnixStream> {
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// What has happened.
enum Event {
    End,
    GoOn,
    Readable(io::Result<()>),
    Writable(io::Result<()>),
}

/// Passes on what is said in both directions, until the engine has had enough.
async fn converse(
    shared: &Shared,
    process: ProcessId,
    signals: &Signals,
    socket: &UnixStream,
    buffer: &mut [u8],
) {
    // What was taken from the engine, and how much of it has been sent.
    let (mut output, mut sent) = (Vec::new(), 0);
    loop {
        let mut may_read = false;
        shared.drive(|engine, _| {
            may_read = engine.may_read(process);
            if sent == output.len() {
                output.clear();
                sent = 0;
                engine.take_output(process, &mut output);
            }
        });
        let event = tokio::select! {
            biased;
            () = signals.end.notified() => Event::End,
            ready = socket.writable(), if sent < output.len() => Event::Writable(ready),
            ready = socket.readable(), if may_read => Event::Readable(ready),
            () = signals.go_on.notified() => Event::GoOn,
        };
        let result = match event {
            Event::End => return,
            Event::GoOn => Ok(()),
            Event::Writable(ready) => ready.and_then(|()| {
                let count = socket.try_write(output.get(sent..).unwrap_or_default())?;
                sent += count;
                shared.drive(|engine, now| engine.sent(now, process, count));
                Ok(())
            }),
            Event::Readable(ready) => ready.and_then(|()| {
                let count = socket.try_read(buffer)?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let said = buffer.get(..count).unwrap_or_default();
                shared.drive(|engine, now| engine.received(now, process, said));
                Ok(())
            }),
        };
        match result {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                shared.drive(|engine, now| engine.closed(now, process));
                signals.end.notified().await;
                return;
            }
            _ => {}
        }
    }
}

/// Logs what a program writes to its standard error, line by line, until it has ended.
async fn log_errors(parent: ParentLink, process: ProcessId, name: String) {
    let request = RoleToParent::FilterErrors { process: process.0 };
    let descriptor = match parent.request(&request, None).await {
        Ok((ParentToRole::FilterErrors { error: None }, Some(descriptor))) => descriptor,
        _ => return tracing::debug!("debug: filter {name}: no standard error"),
    };
    let Ok(socket) = watched(descriptor.into()) else { return };
    let mut line: Vec<u8> = Vec::new();
    let mut buffer = vec![0; MAX_ERROR];
    loop {
        let count = match socket.readable().await.and_then(|()| socket.try_read(&mut buffer)) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => break,
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
