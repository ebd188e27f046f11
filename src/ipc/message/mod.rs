//! The messages: one enum per direction of a pair of roles.
//!
//! A request is answered by one reply of the opposite direction; which reply answers which request
//! is said at the request. An empty reply refuses. A variant that *carries a descriptor* is sent
//! with exactly one.

pub mod client;
pub mod control;
pub mod keys;
pub mod lookup;
pub mod parent;
pub mod queue;
pub mod reader;
pub mod scheduler;
pub mod spawner;
pub mod statistics;
pub mod worker;
