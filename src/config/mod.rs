//! The configuration language: from the text of `smtpd.conf` to a checked, typed [`Config`].
//!
//! Nothing here opens a file or asks the system: the caller hands in a [`SourceReader`] for the text
//! of files and a [`Network`] for names and addresses. What the tree means for a message is decided
//! in [`crate::lookup`]; contents of tables live in [`crate::table`].
//!
//! Source: smtpd.conf(5).

mod action;
mod diagnostics;
mod explain;
mod filter;
mod globals;
mod input;
mod lexer;
mod limits;
mod listen;
mod parser;
mod pki;
mod reserved;
mod rule;
mod table;
mod tree;
mod value;

pub use diagnostics::{Diagnostic, Diagnostics, Severity};
pub use limits::*;
pub use tree::*;

use std::io;
use std::net::IpAddr;

/// Hands in the text of configured files: the configuration itself, includes, tables.
pub trait SourceReader {
    /// The whole content of the file at `path`, as written in the configuration.
    ///
    /// # Errors
    /// Whatever the system says; its text becomes part of the diagnostic.
    fn read(&mut self, path: &str) -> io::Result<Vec<u8>>;

    /// Whether there is a program for tables with this `backend`: `table-BACKEND` in the directory
    /// of helper programs.
    fn table_program(&mut self, backend: &str) -> bool;
}

/// Answers what the configuration asks about this machine and its names.
pub trait Network {
    /// The name of this server (mailname, or a host name with a domain).
    fn server_name(&mut self) -> String;

    /// The addresses of all interfaces.
    fn addresses(&mut self) -> Vec<LocalAddress>;

    /// The addresses of the interface or interface group `name`; `None` when there is none.
    fn interface(&mut self, name: &str) -> Option<Vec<LocalAddress>>;

    /// The addresses of the host `name`; empty when it has none.
    ///
    /// # Errors
    /// When the resolver fails; its text becomes a warning.
    fn host(&mut self, name: &str) -> io::Result<Vec<IpAddr>>;

    /// The port of the TCP service `name`.
    fn service(&mut self, name: &str) -> Option<u16>;
}

/// A configuration that can be used, and what there is to say about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings alone.
    pub warnings: Diagnostics,
}

/// Reads the configuration at `path` with all that it includes. `defines` are macros that the file
/// cannot change (see [`parse_define`]).
///
/// # Errors
/// All errors of all files, with the warnings among them, in the order in which they were met.
pub fn load(
    path: &str,
    files: &mut dyn SourceReader,
    network: &mut dyn Network,
    defines: &[(String, String)],
) -> Result<Loaded, Diagnostics> {
    let empty = Config {
        sources: Vec::new(),
        server_name: network.server_name(),
        local_addresses: network.addresses(),
        tables: table::built_in(),
        listeners: vec![listen::socket()],
        actions: Vec::new(),
        rules: Vec::new(),
        wrappers: Vec::new(),
        smtp: Smtp::default(),
        queue: Queue::default(),
        bounce: Bounce::default(),
        mta: Mta::default(),
        mda: MdaLimits::default(),
        scheduler: SchedulerLimits::default(),
    };
    let (config, diagnostics) = parser::Parser::new(empty, files, network, defines).file(path);
    if diagnostics.has_errors() {
        Err(diagnostics)
    } else {
        Ok(Loaded { config, warnings: diagnostics })
    }
}

/// Splits the argument of `-D` into name and value, at the last `=`. `None` when there is none: the
/// option is then ignored with the warning `could not parse macro definition`.
#[must_use]
pub fn parse_define(argument: &str) -> Option<(String, String)> {
    let (name, value) = argument.rsplit_once('=')?;
    Some((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
pub(crate) mod tests;
