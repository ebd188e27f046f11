//! The way of a message's bytes from the connection to the spool.
//!
//! A [`Pipeline`] takes what follows DATA in slices of any size, and appends to a vector what is
//! stored: lines that end in LF, dots removed, headers edited. It never holds more than one line
//! of the header block, or one address header, and nothing of the body. Where filters edit a
//! message, [`Lines`] is what they are given, and what comes out of them goes into a pipeline.

mod content;
mod headers;
mod lines;
mod pipeline;

pub use content::Framing;
pub use headers::Additions;
pub use lines::Lines;
pub use pipeline::{Fault, Options, Pipeline, Progress, Reached};
