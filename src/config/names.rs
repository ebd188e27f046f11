//! What names stand for while a configuration is read. Looking a name up takes the same time
//! however many there are.

use std::collections::HashMap;

use super::tree::{ActionId, Span, TableId};

/// Names so far.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Actions by name.
    pub actions: HashMap<String, ActionId>,
    /// Actions whose declaration has an error.
    pub failed_actions: HashMap<String, Span>,
    /// Tables by name.
    pub tables: HashMap<String, TableId>,
    /// Tables whose declaration has an error.
    pub failed_tables: HashMap<String, Span>,
    /// How many tables without a name there are.
    pub anonymous_tables: u32,
    /// How many chains without a name there are.
    pub anonymous_chains: u32,
}

/// Names of tables that are written as arguments begin so.
pub(super) const ANONYMOUS_TABLE: &str = "<dynamic:";
/// Names of chains that are written as arguments begin so.
pub(super) const ANONYMOUS_CHAIN: &str = "<dynchain:";
