//! The lookup role: tables, DNS, address expansion, rule matching.
//!
//! [`rules`], [`expand`], [`aliases`] and [`lines`] decide without I/O and ask for what they need;
//! [`trace`] puts rules into words; [`dns`] asks name servers, [`users`] for accounts, [`maps`] map
//! files, [`programs`] table programs, [`readers`] for files of users;
//! [`credentials`] judges logins; [`rewriting`] has the keys of forwarded senders; [`role`] answers
//! the dispatcher.

pub mod dns;
pub mod expand;
pub mod lines;
pub mod programs;
pub mod rewriting;
pub mod rules;
pub mod trace;

mod credentials;
mod maps;
mod readers;
mod role;
mod users;

pub use role::run;

pub use crate::model::address;
pub use crate::table::alias as aliases;
