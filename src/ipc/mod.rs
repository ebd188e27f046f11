//! What roles say to each other.
//!
//! [`frame`] is how messages lie on a stream, [`link`] a channel as an asynchronous role has it,
//! [`blocking`] as a role without a runtime has it; [`message`] holds one enum per direction of a
//! pair, [`seal`] what is carried by those who may not change it.

pub mod blob;
pub mod blocking;
pub mod frame;
pub mod link;
pub mod message;
pub mod neighbour;
pub mod seal;
