//! Stub.

pub mod address;
pub mod aliases;
pub mod rules;
