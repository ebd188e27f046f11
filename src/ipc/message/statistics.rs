//! What a role counts and how much memory it has.

use serde::{Deserialize, Serialize};

/// Counters of one role, and its memory.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Snapshot {
    /// Names and values; the names are those of `smtpctl show stats`.
    pub counters: Vec<(String, i64)>,
    /// Proportional set size of the process in bytes; 0 where the system does not tell.
    pub memory: u64,
}
