//! The queue: the only role that touches the spool. It takes messages in, hands envelopes out, and
//! writes down what becomes of them.

pub mod bounce;
pub mod store;
