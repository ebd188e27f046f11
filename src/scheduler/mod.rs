//! When each envelope is due: the run queue, retries, expiry, delay warnings, hold queues.
//!
//! Everything in here is logic under a clock given as values ([`clock::Reading`]): no sockets, no
//! timers, no files. The role loop feeds [`run_queue::Scheduler`] what the queue, the dispatcher
//! and the administrator say, and passes on what [`run_queue::Scheduler::poll`] releases.
//!
//! Sources: the queue page of the specification, sections 1.13, 2, 3.6 and 5.6.

mod allowance;
pub mod backoff;
#[cfg(test)]
mod cases;
pub mod clock;
mod destination;
mod entry;
mod hold;
mod list;
mod operations;
mod role;
pub mod run_queue;
#[cfg(test)]
mod simulation;
pub mod work;

pub use role::run;
