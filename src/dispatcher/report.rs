//! Submitting reports of our own: a session with ourselves, so that rules and aliases apply.
//!
//! Source: the queue page of the specification, 4.1.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};
use tokio::time::timeout;

use super::shared::Shared;
use super::smtp::listener::serve_local;
use crate::ipc::message::queue::{BodyPiece, DispatcherToQueue, QueueToDispatcher, Report};
use crate::model::outcome::{EnhancedStatus, Failure, Outcome};
use crate::proto::stuffing::DotStuffer;

/// Bytes on the way between us and ourselves.
const PIPE: usize = 64 * 1024;
/// How long the whole may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest reply line, in bytes.
const MAX_REPLY: usize = 4096;

/// Why a report was not accepted: the reply that says so.
struct Refused(String);

/// Submits a report; says what came of it.
pub async fn submit(shared: &Arc<Shared>, report: Report) -> Outcome {
    let Some(text) = load(shared, &report).await else {
        return temporary("the report cannot be read");
    };
    let (near, far) = tokio::io::duplex(PIPE);
    let server = Arc::clone(shared);
    tokio::spawn(async move { serve_local(&server, far).await });
    match timeout(TIMEOUT, converse(near, &report, &text)).await {
        Ok(Ok(())) => Outcome::Delivered { dsn_relayed: false },
        Ok(Err(Refused(reply))) if reply.starts_with('5') => {
            Outcome::Permanent(Failure { text: reply, status: EnhancedStatus::new(5, 0, 0) })
        }
        Ok(Err(Refused(reply))) => temporary(&reply),
        Err(_) => temporary("Connection timeout"),
    }
}

fn temporary(text: &str) -> Outcome {
    Outcome::Temporary(Failure { text: text.to_owned(), status: EnhancedStatus::new(4, 0, 0) })
}

async fn load(shared: &Shared, report: &Report) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    while (text.len() as u64) < report.size {
        let request =
            DispatcherToQueue::LoadReport { report: report.report, offset: text.len() as u64 };
        let (reply, _) = shared.queue.request(&request, None).await.ok()?;
        let QueueToDispatcher::Body(BodyPiece::Inline { bytes, .. }) = reply else { return None };
        if bytes.0.is_empty() {
            return None;
        }
        text.extend_from_slice(&bytes.0);
    }
    Some(text)
}

async fn converse(stream: DuplexStream, report: &Report, text: &[u8]) -> Result<(), Refused> {
    let mut stream = BufReader::new(stream);
    expect(&mut stream, '2').await?;
    let smtputf8 = if report.recipient.as_str().is_ascii() { "" } else { " SMTPUTF8" };
    let commands = [
        (format!("EHLO {}\r\n", report.smtp_name), '2'),
        (format!("MAIL FROM: <>{smtputf8}\r\n"), '2'),
        (format!("RCPT TO: <{}>\r\n", report.recipient), '2'),
        ("DATA\r\n".to_owned(), '3'),
    ];
    for (command, expected) in commands {
        send(&mut stream, command.as_bytes()).await?;
        expect(&mut stream, expected).await?;
    }
    let mut wire = Vec::with_capacity(text.len() + text.len() / 16);
    let mut stuffer = DotStuffer::default();
    stuffer.push(text, &mut wire);
    stuffer.finish(&mut wire);
    send(&mut stream, &wire).await?;
    expect(&mut stream, '2').await?;
    // The report is accepted whatever becomes of the farewell.
    let _farewell = send(&mut stream, b"QUIT\r\n").await;
    Ok(())
}

async fn send(stream: &mut BufReader<DuplexStream>, bytes: &[u8]) -> Result<(), Refused> {
    stream.write_all(bytes).await.map_err(|error| Refused(error.to_string()))
}

/// Reads one reply, all of its lines.
async fn expect(stream: &mut BufReader<DuplexStream>, first: char) -> Result<(), Refused> {
    loop {
        let mut line = String::new();
        match stream.read_line(&mut line).await {
            Ok(0) => return Err(Refused("Connection closed unexpectedly".to_owned())),
            Ok(length) if length <= MAX_REPLY => {}
            Ok(_) => return Err(Refused("Input too long".to_owned())),
            Err(error) => return Err(Refused(error.to_string())),
        }
        let line = line.trim_end();
        if line.as_bytes().get(3) == Some(&b'-') {
            continue;
        }
        return if line.starts_with(first) { Ok(()) } else { Err(Refused(line.to_owned())) };
    }
}
