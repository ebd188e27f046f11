//! What is logged when connections cannot be accepted: once for all listeners, however often they
//! try, and once more when it is over.
//!
//! Source: the SMTP page of the specification, 1.3 and 6.1.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the log says that connections are not accepted.
#[derive(Debug, Default)]
pub struct Ceiling {
    reached: AtomicBool,
}

impl Ceiling {
    /// A listener cannot accept, for this reason.
    pub fn reached(&self, reason: impl Display) {
        if !self.reached.swap(true, Ordering::Relaxed) {
            tracing::warn!("warn: Disabling incoming SMTP connections: {reason}");
        }
    }

    /// A listener can.
    pub fn is_over(&self) {
        // Most often there is nothing to change.
        if self.reached.load(Ordering::Relaxed) && self.reached.swap(false, Ordering::Relaxed) {
            tracing::warn!("warn: smtp: fd exhaustion over, re-enabling incoming connections");
        }
    }
}
