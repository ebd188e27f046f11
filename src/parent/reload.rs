//! Reload: the configuration is read again for the next set of roles.
//!
//! Everything that can fail is done before anything changes: the text is read and checked, and
//! sockets of new listeners are bound. What goes wrong leaves the present configuration in use.
//! Sockets of listeners that stay are kept, so that no client is refused. Why a reload begins a
//! new set: `docs/decisions/0005-reload-by-a-new-set.md`.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::options::Options;
use super::prepare::{self, PrepareError, system};
use super::requests::FilterGroups;
use crate::config::{Config, Endpoint, Reading};
use crate::paths::Places;

/// What is needed to read the configuration again.
#[derive(Debug)]
pub struct Again {
    /// The command line.
    pub options: Options,
    /// Where things are.
    pub places: Places,
    /// Where the daemon was started: relative names in the configuration begin there.
    pub directory: PathBuf,
    /// Sockets that are bound already.
    pub bound: Vec<(Endpoint, OwnedFd)>,
}

/// What the next set of roles gets.
#[derive(Debug)]
pub struct Next {
    /// The configuration.
    pub config: Config,
    /// The groups of its filter programs.
    pub filter_groups: FilterGroups,
    /// Bound sockets, by index of their listener.
    pub listeners: Vec<(u32, OwnedFd)>,
    /// What there is to say about the configuration, a line each.
    pub remarks: Vec<String>,
}

/// The present configuration stays, for these reasons, a line each.
#[derive(Debug)]
pub struct Refused(pub Vec<String>);

impl Refused {
    /// For one reason.
    pub fn because(reason: impl Into<String>) -> Self {
        Self(vec![reason.into()])
    }
}

impl From<PrepareError> for Refused {
    fn from(error: PrepareError) -> Self {
        Self::because(error.to_string())
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::because(error.to_string())
    }
}

impl Again {
    /// Reads and checks the configuration, and binds what is new in it. May take as long as files
    /// and names in `listen on` do: it runs beside the parent's loop.
    ///
    /// # Errors
    /// The configuration cannot be used; nothing has changed.
    pub fn read(&self) -> Result<Next, Refused> {
        let Reading { config, diagnostics } =
            prepare::read(&self.options, &self.places, &self.directory)?;
        let remarks = diagnostics.iter().map(ToString::to_string).collect();
        if diagnostics.are_fatal() {
            return Err(Refused(remarks));
        }
        if config.server_name.is_empty() {
            return Err(PrepareError::NoName.into());
        }
        let listeners = prepare::bind(&config, |endpoint| self.bound_already(endpoint))?;
        let filter_groups = FilterGroups::of(&config);
        Ok(Next { config, filter_groups, listeners, remarks })
    }

    fn bound_already(&self, endpoint: &Endpoint) -> Result<Option<OwnedFd>, PrepareError> {
        let found = self.bound.iter().find(|(bound, _)| bound == endpoint);
        let copied: io::Result<Option<OwnedFd>> =
            found.map(|(_, socket)| socket.try_clone()).transpose();
        copied.map_err(system("socket of a listener"))
    }
}
