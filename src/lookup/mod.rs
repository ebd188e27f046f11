//! The lookup role: tables, DNS, address expansion, rule matching.
//!
//! [`rules`], [`expand`], [`aliases`] and [`lines`] decide without I/O and ask for what they need;
//! [`dns`] asks name servers, [`users`] for accounts, [`readers`] for files of users; [`role`] answers
//! the dispatcher.

pub mod address;
pub mod aliases;
pub mod dns;
pub mod expand;
pub mod lines;
pub mod rules;

mod readers;
mod role;
mod users;

pub use role::run;
