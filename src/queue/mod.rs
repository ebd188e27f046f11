//! The queue: the only role that touches the spool. It takes messages in, hands envelopes out, and
//! writes down what becomes of them.
//!
//! [`store`] is what it asks of the spool, [`log`] the spool itself. The loop is in
//! [`role`]; [`intake`] makes messages durable, [`release`] hands envelopes to the dispatcher,
//! [`settle`] writes outcomes down, [`suspects`] keeps what may be crashing roles one at a time, [`reports`] sends delivery reports, [`answers`] serves control.
//! [`bounce`] is what reports say, [`record`] how envelopes are written.
//!
//! The loop never touches the disk and never waits: the store answers by completions.

pub mod bounce;
pub mod log;
pub mod null;
pub mod ram;
pub mod record;
pub mod store;

mod answers;
mod intake;
#[cfg(test)]
mod rehearsal;
mod release;
mod reports;
mod role;
mod settle;
mod suspects;

pub use role::run;
