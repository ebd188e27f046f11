//! The queue: envelopes and messages on disk.

pub mod store;
