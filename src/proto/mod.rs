//! The grammar of mail: bytes to values and back, without sockets, clocks or tasks.

pub mod address;
pub mod bdat;
pub mod command;
pub mod escape;
pub mod header;
pub mod parameter;
pub mod proxy;
pub mod reply;
pub mod sasl;
pub mod scram;
pub mod server_reply;
pub mod srs;
pub mod stuffing;
pub mod trace;
