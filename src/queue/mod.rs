//! The queue role: envelopes and messages on disk.

pub mod bounce;
