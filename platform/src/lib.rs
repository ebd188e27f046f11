//! What Pillarbox asks of an operating system.

pub mod dir;
pub mod durable;
