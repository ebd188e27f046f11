//! What roles say to each other: frames, credits, one enum per direction of a pair, seals.

pub mod message;
pub mod seal;
