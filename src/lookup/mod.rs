//! The lookup role: tables, DNS, address expansion, rule matching.
//!
//! [`rules`] and [`expand`] decide without I/O and ask for what they need; [`dns`] asks name servers,
//! [`maps`] map files; [`role`] answers the dispatcher.

pub mod dns;
pub mod expand;
pub mod rules;

mod maps;
mod role;
mod users;

pub use role::run;

pub use crate::model::address;
pub use crate::table::alias as aliases;
