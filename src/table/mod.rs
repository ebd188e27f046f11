//! Tables: named lists and mappings that rules, expansion and relays consult.
//!
//! A [`Table`] holds entries in memory and answers by [`Service`]: whether a key is there under the
//! comparison of that service, or what value it has. A [`Map`] answers the same from a map file, which
//! it reads where the caller lets it. [`Tables`] are all tables of a configuration; they answer a
//! [`Question`] or say that someone else must. How file text becomes entries is in [`mod@file`]; what
//! values mean is parsed in [`value`], [`mod@alias`] and [`relay_url`]. How programs are asked that hold a
//! table is in [`process`]. Nothing here opens a file or starts a program.
//!
//! Keys are compared without regard to ASCII case.
//!
//! Source: table(5), smtpd.conf(5).

pub mod alias;
mod contents;
mod domain;
mod expression;
pub mod few;
pub mod file;
mod index;
mod mailaddr;
pub mod map;
mod network;
pub mod process;
pub mod rehearsal;
pub mod relay_url;
mod set;
mod uses;
pub mod value;

use serde::{Deserialize, Serialize};

pub use contents::Table;
pub use map::Map;
pub use network::is_network;
pub use set::{Account, Answer, NotAFile, Question, Tables, UpdateError};

/// What a table is asked for: this decides how keys are compared and what values mean.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Service {
    /// Host names by address; equal keys.
    Addrname,
    /// What a recipient stands for; equal keys.
    Alias,
    /// Users with their passwords, as a key; programs alone answer it.
    Auth,
    /// Names and passwords by user or label; equal keys.
    Credentials,
    /// Domain patterns.
    Domain,
    /// Mail addresses and parts of them.
    Mailaddr,
    /// The senders that a user may use; equal keys.
    Mailaddrmap,
    /// Addresses and networks.
    Netaddr,
    /// Regular expressions.
    Regex,
    /// Relay URLs, in turn or by domain; equal keys.
    Relayhost,
    /// Addresses to connect from, in turn.
    Source,
    /// Equal text.
    String,
    /// Accounts; equal keys.
    Userinfo,
}

impl Service {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 13] = [
        Self::Addrname,
        Self::Alias,
        Self::Auth,
        Self::Credentials,
        Self::Domain,
        Self::Mailaddr,
        Self::Mailaddrmap,
        Self::Netaddr,
        Self::Regex,
        Self::Relayhost,
        Self::Source,
        Self::String,
        Self::Userinfo,
    ];

    /// Its name, as table programs and messages know it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Addrname => "addrname",
            Self::Alias => "alias",
            Self::Auth => "auth",
            Self::Credentials => "credentials",
            Self::Domain => "domain",
            Self::Mailaddr => "mailaddr",
            Self::Mailaddrmap => "mailaddrmap",
            Self::Netaddr => "netaddr",
            Self::Regex => "regex",
            Self::Relayhost => "relayhost",
            Self::Source => "source",
            Self::String => "string",
            Self::Userinfo => "userinfo",
        }
    }

    /// The service with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name() == name)
    }
}
