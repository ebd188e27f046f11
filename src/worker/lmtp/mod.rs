//! Deliveries to an LMTP server, as mail.lmtp(8) makes them.

pub mod connection;
pub mod session;

pub use connection::Client;
pub use session::Transaction;

/// The program whose words failures are told in.
const PROGRAM: &str = "mail.lmtp";
