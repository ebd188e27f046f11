//! `sendmail`: reads a message, completes it, and hands it to the server.

pub mod address;
pub mod compose;
pub mod dialogue;
pub mod draft;
pub mod header;
pub mod options;
pub mod quoted_printable;
pub mod scratch;
