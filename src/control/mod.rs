//! The control role: the control socket, who may ask what, statistics.
//!
//! [`session`] says what each request of a client needs from the other roles and what it is
//! answered; [`permission`] who may make it; [`connections`] how many a user may have open;
//! [`statistics`] what `show stats` makes of the counters of all roles. None of these does I/O.

pub mod connections;
pub mod permission;
pub mod session;
pub mod statistics;
