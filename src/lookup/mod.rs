//! Stub.

pub mod address;
pub mod aliases;
pub mod expand;
pub mod rules;
