//! What the scenario files share: a server of their own as real processes, peers to talk to it,
//! and readers of what it delivered.
//!
//! Everything stays on loopback and below temporary directories. Waiting polls a condition with a
//! limit. A failed step panics: it fails the test that took it.

// Every scenario file is a program of its own and uses its part of this.
#![allow(dead_code)]
// A failed assumption fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod account;
#[path = "../../src/tls/fixture.rs"]
pub mod certificates;
pub mod complaints;
pub mod control;
pub mod dns;
pub mod encrypted;
pub mod filter_program;
pub mod hops;
pub mod install;
pub mod load;
pub mod logins;
pub mod maildir;
pub mod peer;
pub mod peers;
pub mod process;
pub mod role;
pub mod root;
pub mod script;
pub mod server;
pub mod sink;
#[path = "../../src/spec_case.rs"]
pub mod spec_case;
pub mod table_program;
pub mod wait;
