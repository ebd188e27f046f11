//! What workers do: deliveries by maildir, mbox, LMTP and commands, and reading `.forward` files.
//!
//! A worker runs under one delivery identity, takes jobs from the dispatcher, and answers each
//! once. The parts below are plain functions over files, streams and bytes, so that the `mail.*`
//! programs are the same code.

mod auth;
pub mod body;
pub mod command;
pub mod format;
pub mod forward;
#[cfg(test)]
mod hostile;
pub mod include;
pub mod intake;
pub mod lmtp;
pub mod maildir;
pub mod mbox;
mod offline;
pub mod perform;
pub mod plan;
pub mod program;
mod reader;
pub mod report;
pub mod serve;
pub mod sync;
pub mod unique;
mod users;
