//! The lookup role: tables, DNS, address expansion, rule matching.
//!
//! [`rules`], [`expand`] and [`aliases`] decide without I/O and ask for what they need; [`trace`] puts
//! rules into words; [`dns`] asks name servers, [`maps`] map files, [`programs`] table programs;
//! [`role`] answers the dispatcher.

pub mod dns;
pub mod expand;
pub mod programs;
pub mod rules;
pub mod trace;

mod maps;
mod role;
mod users;

pub use role::run;

pub use crate::model::address;
pub use crate::table::alias as aliases;
