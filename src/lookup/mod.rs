//! The lookup role: tables, DNS, address expansion, rule matching.
//!
//! [`rules`], [`expand`] and [`aliases`] decide without I/O and ask for what they need; [`trace`] puts
//! rules into words; [`dns`] asks name servers; [`role`] answers the dispatcher.

pub mod address;
pub mod aliases;
pub mod dns;
pub mod expand;
pub mod rules;
pub mod trace;

mod role;
mod users;

pub use role::run;
