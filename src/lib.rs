//! Pillarbox, a mail server: the portable core.
//!
//! `bin` starts programs, the role folders (`parent`, `spawner`, `control`, `lookup`, `dispatcher`,
//! `queue`, `scheduler`, `keys`, `worker`) are one process each, `ctl` is `smtpctl` and its other
//! names, `client` is `smtp`, `explain` tells what a server would do. Roles share only the messages of [`ipc`] and the
//! values of [`model`]; [`config`], [`proto`],
//! [`message`], [`table`] and [`filter`] are logic without sockets, clocks or files. What an operating system
//! decides is in the crate `platform`.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))] // a failed assumption fails the test

pub mod client;
pub mod config;
pub mod control;
pub mod ctl;
pub mod dispatcher;
pub mod explain;
pub mod filter;
pub mod ipc;
pub mod keys;
pub mod log;
pub mod lookup;
pub mod message;
pub mod model;
pub mod parent;
pub mod paths;
pub mod process;
pub mod proto;
pub mod queue;
pub mod scheduler;
pub mod spawner;
#[cfg(test)]
mod spec_case;
pub mod table;
pub mod time;
pub mod tls;
pub mod worker;
