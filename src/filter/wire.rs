//! Lines that filter programs are sent.
//!
//! Fields are separated by `|`, which is literal in the last one alone: in others it becomes `?`, and
//! so do control bytes everywhere but in lines of messages, which pass as they are.
//!
//! Source: sections 5.3 to 5.5 of the SMTP page.

use std::io::Write as _;

use super::registration::EventName;
use super::{AuthResult, Direction, Event, Fcrdns, Phase, TransactionResult};
use crate::model::MessageId;

/// The version that programs are told: that of the server whose filters they were written for.
const VERSION: &str = "7.9.0-pillarbox";
/// Version of the protocol.
const PROTOCOL: &str = "0.7";
/// How long a session may be silent, in seconds, as programs are told.
const SESSION_TIMEOUT: u32 = 300;

/// Which sessions a program sees.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Subsystems {
    /// Some listener uses it.
    pub incoming: bool,
    /// Some relay uses it.
    pub outgoing: bool,
}

/// What a program is told first.
#[must_use]
pub fn greeting(subsystems: Subsystems, admd: &str) -> String {
    let mut text = format!(
        "config|smtpd-version|{VERSION}\nconfig|protocol|{PROTOCOL}\n\
         config|smtp-session-timeout|{SESSION_TIMEOUT}\n"
    );
    if subsystems.incoming {
        text.push_str("config|subsystem|smtp-in\n");
    }
    if subsystems.outgoing {
        text.push_str("config|subsystem|smtp-out\n");
    }
    text.push_str(&format!("config|admd|{admd}\nconfig|ready\n"));
    text
}

/// Appends the beginning of a question: everything before its parameter. `now` counts microseconds
/// since 1970.
pub fn question(out: &mut Vec<u8>, now: u64, phase: Phase, session: u64, token: u64) {
    text(out, "filter|");
    stamp(out, now);
    text(out, "|smtp-in|");
    text(out, phase.name());
    out.push(b'|');
    hexadecimal(out, session);
    out.push(b'|');
    hexadecimal(out, token);
    out.push(b'|');
}

/// Appends a whole question with its parameter, the last field.
pub fn question_about(
    out: &mut Vec<u8>,
    now: u64,
    phase: Phase,
    (session, token): (u64, u64),
    parameter: &[u8],
) {
    question(out, now, phase, session, token);
    last(out, parameter);
    out.push(b'\n');
}

/// Appends the question whether a client may connect.
pub fn question_about_client(
    out: &mut Vec<u8>,
    now: u64,
    (session, token): (u64, u64),
    hostname: &str,
    address: &str,
) {
    question(out, now, Phase::Connect, session, token);
    field(out, hostname.as_bytes());
    out.push(b'|');
    last(out, address.as_bytes());
    out.push(b'\n');
}

/// Where and when something has happened.
#[derive(Clone, Copy, Debug)]
pub struct Occasion {
    /// Incoming or outgoing.
    pub direction: Direction,
    /// The session.
    pub session: u64,
    /// Microseconds since 1970.
    pub time: u64,
}

/// Appends the line of an event.
pub fn event(out: &mut Vec<u8>, occasion: Occasion, event: &Event) {
    begin(out, occasion, EventName::of(event));
    match event {
        Event::LinkConnect { hostname, fcrdns, source, destination } => {
            out.push(b'|');
            field(out, hostname.as_bytes());
            text(out, fcrdns_word(*fcrdns));
            field(out, source.as_bytes());
            out.push(b'|');
            last(out, destination.as_bytes());
        }
        Event::LinkGreeting { hostname } => only(out, hostname.as_bytes()),
        Event::LinkIdentify { method, name } => {
            out.push(b'|');
            field(out, method.as_bytes());
            only(out, name.as_bytes());
        }
        Event::LinkTls { description } => only(out, description.as_bytes()),
        Event::LinkAuth { result, user } => {
            text(
                out,
                match result {
                    AuthResult::Pass => "|pass",
                    AuthResult::Fail => "|fail",
                    AuthResult::Error => "|error",
                },
            );
            only(out, user);
        }
        Event::LinkDisconnect | Event::Timeout => {}
        Event::TxBegin(message) | Event::TxRollback(message) | Event::TxReset(message) => {
            identify(out, Some(*message));
        }
        Event::TxMail(message, result, address) => {
            identify(out, *message);
            text(out, result_word(*result));
            only(out, address);
        }
        Event::TxRcpt(message, result, address) => {
            identify(out, Some(*message));
            text(out, result_word(*result));
            only(out, address);
        }
        Event::TxEnvelope(envelope) => {
            identify(out, Some(envelope.message()));
            out.push(b'|');
            hexadecimal(out, envelope.get());
        }
        Event::TxData(message, result) => {
            identify(out, Some(*message));
            text(out, result_word(*result));
        }
        Event::TxCommit(message, size) => {
            identify(out, Some(*message));
            // Writing into memory cannot fail.
            let _ = write!(out, "|{size}");
        }
        Event::ProtocolClient(line) | Event::ProtocolServer(line) => only(out, line),
    }
    out.push(b'\n');
}

/// Appends `filter-response`: what became of a phase, with the parameter of the decision.
pub fn response(
    out: &mut Vec<u8>,
    occasion: Occasion,
    phase: Phase,
    decision: &str,
    parameter: Option<&[u8]>,
) {
    begin(out, occasion, EventName::FilterResponse);
    out.push(b'|');
    text(out, phase.response_name());
    out.push(b'|');
    text(out, decision);
    if let Some(parameter) = parameter {
        only(out, parameter);
    }
    out.push(b'\n');
}

/// Who has something to tell in `filter-report`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reporter {
    /// A filter that the server itself is.
    BuiltIn,
    /// A program.
    Process,
}

/// Appends `filter-report`: what the filter called `name` tells.
pub fn report(
    out: &mut Vec<u8>,
    occasion: Occasion,
    reporter: Reporter,
    name: &str,
    message: &[u8],
) {
    begin(out, occasion, EventName::FilterReport);
    text(
        out,
        match reporter {
            Reporter::BuiltIn => "|builtin|",
            Reporter::Process => "|proc|",
        },
    );
    field(out, name.as_bytes());
    only(out, message);
    out.push(b'\n');
}

fn begin(out: &mut Vec<u8>, occasion: Occasion, name: EventName) {
    text(out, "report|");
    stamp(out, occasion.time);
    text(
        out,
        match occasion.direction {
            Direction::In => "|smtp-in|",
            Direction::Out => "|smtp-out|",
        },
    );
    text(out, name.word());
    out.push(b'|');
    hexadecimal(out, occasion.session);
}

/// Version of the protocol, bar, seconds, dot, six digits.
fn stamp(out: &mut Vec<u8>, time: u64) {
    let (seconds, micros) = (time / 1_000_000, time % 1_000_000);
    // Writing into memory cannot fail.
    let _ = write!(out, "{PROTOCOL}|{seconds}.{micros:06}");
}

fn identify(out: &mut Vec<u8>, message: Option<MessageId>) {
    // Writing into memory cannot fail.
    let _ = write!(out, "|{:08x}", message.map_or(0, MessageId::get));
}

fn hexadecimal(out: &mut Vec<u8>, number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (0..16).rev().map(|place| DIGITS[(number >> (4 * place) & 15) as usize]);
    out.extend(digits);
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// A bar, and the last field after it.
fn only(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'|');
    last(out, bytes);
}

fn last(out: &mut Vec<u8>, bytes: &[u8]) {
    let begin = out.len();
    out.extend_from_slice(bytes);
    for byte in out.iter_mut().skip(begin).filter(|byte| is_control(**byte)) {
        *byte = b'?';
    }
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    let begin = out.len();
    out.extend_from_slice(bytes);
    for byte in out.iter_mut().skip(begin) {
        if is_control(*byte) || *byte == b'|' {
            *byte = b'?';
        }
    }
}

/// A blank in another form is no control.
fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

fn fcrdns_word(fcrdns: Fcrdns) -> &'static str {
    match fcrdns {
        Fcrdns::Pass => "|pass|",
        Fcrdns::Fail => "|fail|",
        Fcrdns::Error => "|error|",
    }
}

fn result_word(result: TransactionResult) -> &'static str {
    match result {
        TransactionResult::Ok => "|ok",
        TransactionResult::Permanent => "|permfail",
        TransactionResult::Temporary => "|tempfail",
    }
}

#[cfg(test)]
mod tests;
