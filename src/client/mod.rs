//! `smtp`, the client program: one transaction with one server, to see what the server says.
//!
//! [`program`] is what `main` runs: it reads the command line ([`options`], [`server`]) and the
//! message, and makes an [`attempt`] at each address of the server in turn. On a [`connection`] that
//! does what a [`dialogue`] wants, which knows SMTP and LMTP but no sockets; [`trust`] says whose
//! certificates are good, [`transcript`] what the user is told.
//!
//! Nothing is queued and nothing is tried again. Names are resolved as the system resolves them.

pub mod attempt;
pub mod connection;
pub mod dialogue;
pub mod options;
pub mod program;
pub mod server;
pub mod transcript;
pub mod trust;
