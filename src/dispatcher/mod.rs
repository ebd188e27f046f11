//! The dispatcher: every SMTP session in and out, and the conversations of local deliveries.
//!
//! [`smtp`] takes mail in, [`mta`] sends it to other servers, [`mda`] hands it to workers,
//! [`tls`] encrypts, [`filters`] are asked what they think. [`role`] is the loop, [`shared`] what all sessions share, [`bodies`] messages in memory, [`outbound`] what
//! the queue gives out, [`report`] how delivery reports of our own are submitted.

pub mod filters;
pub mod mda;
pub mod mta;
pub mod smtp;
pub mod tls;

mod bodies;
mod directory;
mod forwarded;
mod outbound;
mod relay_settings;
mod report;
mod role;
mod shared;

pub use role::run;
