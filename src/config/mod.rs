//! The configuration language: from the text of `smtpd.conf` to a checked, typed [`Config`].
//!
//! Nothing here opens a file or asks the system: the caller hands in a [`SourceReader`] for the text
//! of files and a [`Network`] for names and addresses. What the tree means for a message is decided
//! in [`crate::lookup`]; contents of tables live in [`crate::table`].
//!
//! Source: smtpd.conf(5).

mod action;
mod cipher;
mod diagnostics;
mod entries;
mod explain;
mod filter;
mod globals;
mod input;
mod lexer;
mod limits;
mod listen;
mod names;
mod nearest;
mod parser;
mod pki;
pub mod rehearsal;
mod relay;
mod reserved;
mod rule;
mod table;
mod tree;
mod value;
mod whole;

pub use diagnostics::{Diagnostic, Diagnostics, Severity};
pub use limits::*;
pub use tree::*;

use std::io;
use std::net::IpAddr;

use crate::table::map::HEAD;

/// Hands in the text of configured files: the configuration itself, includes, tables.
pub trait SourceReader {
    /// The whole content of the file at `path`, as written in the configuration.
    ///
    /// # Errors
    /// Whatever the system says; its text becomes part of the diagnostic.
    fn read(&mut self, path: &str) -> io::Result<Vec<u8>>;

    /// The first bytes of the map file at `path`, [`HEAD`] of them if it has so many.
    ///
    /// # Errors
    /// Whatever the system says; its text becomes part of the diagnostic.
    fn read_head(&mut self, path: &str) -> io::Result<Vec<u8>> {
        let mut bytes = self.read(path)?;
        bytes.truncate(HEAD);
        Ok(bytes)
    }

    /// Whether there is a program for tables with this `backend`: `table-BACKEND` in the directory
    /// of helper programs.
    fn table_program(&mut self, backend: &str) -> bool;

    /// Whether the file at `path` can be used for what only the server may know or change: it can be
    /// read, belongs to root, and has no rights that `kind` does not allow. A reader that knows
    /// no owners looks only whether it can be read.
    ///
    /// # Errors
    /// Says which of these is not so.
    fn key_file(&mut self, path: &str, _kind: KeyFile) -> Result<(), KeyFileProblem> {
        self.read(path).map(drop).map_err(KeyFileProblem::Unreadable)
    }

    /// Whether the key in the one file belongs to the certificate in the other. A reader that knows
    /// no certificates looks at nothing.
    ///
    /// # Errors
    /// Says why they cannot be used together.
    fn key_pair(&mut self, _certificate: &str, _key: &str) -> Result<(), String> {
        Ok(())
    }

    /// Whether there are certificates of authorities in a file. A reader that knows no certificates
    /// looks at nothing.
    ///
    /// # Errors
    /// Says why they cannot be used.
    fn authorities(&mut self, _path: &str) -> Result<(), String> {
        Ok(())
    }
}

/// What a file of a certificate statement holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyFile {
    /// Certificates, which everybody may read.
    Certificate,
    /// A private key.
    Key,
}

impl KeyFile {
    /// The rights that it may have at most.
    #[must_use]
    pub fn mode(self) -> u32 {
        match self {
            Self::Certificate => 0o755,
            Self::Key => 0o740,
        }
    }

    /// The same as ls(1) shows it.
    #[must_use]
    pub fn mode_text(self) -> &'static str {
        match self {
            Self::Certificate => "rwxr-xr-x",
            Self::Key => "rwxr-----",
        }
    }
}

/// Why a file of keys or certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileProblem {
    /// It has rights that it may not have.
    #[error("insecure permissions")]
    Mode,
    /// It does not belong to root.
    #[error("not owned by uid 0")]
    Owner,
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(io::Error),
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

    /// Whether there is an account with this name.
    ///
    /// # Errors
    /// It cannot be said, as here where nobody is asked; nothing is complained about then.
    fn user(&mut self, _name: &str) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether there is a group with this name.
    ///
    /// # Errors
    /// As for [`Self::user`].
    fn group(&mut self, _name: &str) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A configuration that can be used, and what there is to say about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings alone.
    pub warnings: Diagnostics,
}

/// What was understood of a configuration, whether it can be used or not.
#[derive(Debug)]
pub struct Reading {
    /// The configuration; complete unless there are errors.
    pub config: Config,
    /// Everything there is to say: errors and warnings in the order in which they were met, then what
    /// is not supported yet.
    pub diagnostics: Diagnostics,
}

/// Reads the configuration at `path` with all that it includes. `defines` are macros that the file
/// cannot change (see [`parse_define`]).
///
/// # Errors
/// The configuration cannot be used: all errors of all files, with the warnings among them, and what
/// is not supported yet.
pub fn load(
    path: &str,
    files: &mut dyn SourceReader,
    network: &mut dyn Network,
    defines: &[(String, String)],
) -> Result<Loaded, Diagnostics> {
    let Reading { config, diagnostics } = read(path, files, network, defines);
    if diagnostics.are_fatal() {
        Err(diagnostics)
    } else {
        Ok(Loaded { config, warnings: diagnostics })
    }
}

/// As [`load`], for who wants to look at the configuration and not to use it.
pub fn read(
    path: &str,
    files: &mut dyn SourceReader,
    network: &mut dyn Network,
    defines: &[(String, String)],
) -> Reading {
    let empty = Config {
        sources: Vec::new(),
        server_name: network.server_name(),
        local_addresses: network.addresses(),
        tables: table::built_in(),
        listeners: vec![listen::socket()],
        actions: Vec::new(),
        rules: Vec::new(),
        pki: Vec::new(),
        authorities: Vec::new(),
        processes: Vec::new(),
        filters: Vec::new(),
        admd: None,
        wrappers: Vec::new(),
        smtp: Smtp::default(),
        queue: Queue::default(),
        bounce: Bounce::default(),
        mta: Mta::default(),
        mda: MdaLimits::default(),
        scheduler: SchedulerLimits::default(),
        srs: Srs::default(),
    };
    let (config, diagnostics) = parser::Parser::new(empty, files, network, defines).file(path);
    Reading { config, diagnostics }
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
