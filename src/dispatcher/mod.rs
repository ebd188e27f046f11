//! Stub.

pub mod smtp;
