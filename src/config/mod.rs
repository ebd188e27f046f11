//! The configuration language: from the text of `smtpd.conf` to a checked, typed [`Config`].
//!
//! Nothing here opens a file or asks the system: the caller hands in a [`SourceReader`] for the text
//! of files and a [`Network`] for names and addresses. What the tree means for a message is decided
//! in [`crate::lookup`]; contents of tables live in [`crate::table`].
//!
//! Source: smtpd.conf(5).

mod defaults;
mod tree;

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
