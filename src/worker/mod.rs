//! What delivery workers do: maildir, mbox, LMTP, commands.
//!
//! A worker runs under one delivery identity, takes jobs from the dispatcher, and answers each
//! once. The parts below are plain functions over files, streams and bytes, so that the `mail.*`
//! programs are the same code.

pub mod body;
pub mod command;
pub mod format;
#[cfg(test)]
mod hostile;
pub mod intake;
pub mod lmtp;
pub mod maildir;
pub mod mbox;
mod offline;
pub mod perform;
pub mod plan;
pub mod program;
pub mod report;
pub mod serve;
pub mod sync;
pub mod unique;
mod users;
