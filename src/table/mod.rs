//! Tables: named lists and mappings that rules, expansion and relays consult.
//!
//! A [`Table`] holds entries in memory and answers by [`Service`]: whether a key is there under the
//! comparison of that service, or what value it has. [`Tables`] are all tables of a configuration;
//! they answer a [`Question`] or say that someone else must. How file text becomes entries is in
//! [`mod@file`]; what values mean is parsed in [`value`] and [`relay_url`]. Nothing here opens a file.
//!
//! Keys are compared without regard to ASCII case.
//!
//! Source: table(5), smtpd.conf(5).

mod contents;
mod domain;
mod expression;
pub mod file;
mod mailaddr;
mod network;
pub mod relay_url;
mod set;
pub mod value;

pub use contents::Table;
pub use network::is_network;
pub use set::{Account, Answer, NotAFile, Question, Tables, UpdateError};

/// What a table is asked for: this decides how keys are compared and what values mean.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Service {
    /// Host names by address; equal keys.
    Addrname,
    /// What a recipient stands for; equal keys.
    Alias,
    /// Domain patterns.
    Domain,
    /// Mail addresses and parts of them.
    Mailaddr,
    /// Addresses and networks.
    Netaddr,
    /// Regular expressions.
    Regex,
    /// Equal text.
    String,
    /// Accounts; equal keys.
    Userinfo,
}
