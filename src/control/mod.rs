//! The control role: the control socket, who may ask what, statistics.
//!
//! [`session`] says what each request of a client needs from the other roles and what it is
//! answered; [`permission`] who may make it; [`connections`] how many a user may have open;
//! [`statistics`] what `show stats` makes of the counters of all roles. None of these does I/O:
//! the loop is in `role`, the questions to the other roles in `inquiry`.

pub mod connections;
pub mod permission;
pub mod session;
pub mod statistics;

mod inquiry;
mod role;

pub use role::run;
