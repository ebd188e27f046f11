//! The numbered cases of filters, as far as the engine decides them; sessions prove the rest.

use std::time::Duration;

use super::rehearsal::{SESSION, Scene};
use super::*;
use crate::filter::{AuthResult, Event, INTERNAL, reply};
use crate::spec_case::ran;

mod broken;
mod chains;
mod decisions;
mod lines;
mod programs;

fn disconnected() -> Option<Decision> {
    Some(Decision::Disconnect(INTERNAL.to_owned()))
}

fn rejected(text: &str) -> Option<Decision> {
    assert!(reply(text.as_bytes()).is_some());
    Some(Decision::Reject(text.to_owned()))
}

/// Registrations of everything.
const ALL: [&str; 16] = [
    "report|smtp-in|*",
    "filter|smtp-in|connect",
    "filter|smtp-in|helo",
    "filter|smtp-in|ehlo",
    "filter|smtp-in|starttls",
    "filter|smtp-in|auth",
    "filter|smtp-in|mail-from",
    "filter|smtp-in|rcpt-to",
    "filter|smtp-in|data",
    "filter|smtp-in|data-line",
    "filter|smtp-in|rset",
    "filter|smtp-in|quit",
    "filter|smtp-in|noop",
    "filter|smtp-in|commit",
    "filter|smtp-in|help",
    "filter|smtp-in|wiz",
];
