//! The spawner: starts workers with the rights of others, auth workers, filters and table programs,
//! and has nothing else to do with them.
//!
//! It keeps root's rights because the change to another user needs them, so it is kept small: one
//! loop over one `poll`, no threads, no configuration, no secrets but the keys it hands to the
//! workers they are for. It acts on the parent's order alone; what workers ask for is limited to
//! the mailbox of their own identity and to looking users up, among the accounts of the system or (by
//! way of the parent) in a table, and both are done in processes that may hang without holding it up.
//!
//! Workers, filters and table programs must be able to run set-id programs, so the spawner is under
//! no sandbox that its children would inherit.

mod auth;
mod filter;
mod lookups;
mod mailbox;
mod program;
mod readers;
mod role;
mod worker;

pub use role::run;
