//! The queue: envelopes and messages on disk.

pub mod log;
pub mod null;
pub mod ram;
pub mod store;
