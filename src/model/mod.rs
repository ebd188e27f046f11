//! Values that roles share: identifiers, addresses, envelopes, replies, limits.
//!
//! Nothing here does I/O or knows a role. Every value is valid once made: text from outside is
//! parsed into it at the edge.

pub mod id;
