//! What Pillarbox asks of an operating system.

pub mod caller;
