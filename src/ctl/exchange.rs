//! Requests to the server and its replies, whatever carries them.

use std::os::fd::OwnedFd;

use crate::ipc::message::client::{Reply, Request};

/// A conversation with the control role: one request at a time.
pub trait Exchange {
    /// Makes a request; its replies are taken with [`Exchange::reply`] until one is final.
    ///
    /// # Errors
    /// The server is gone.
    fn ask(&mut self, request: Request) -> Result<(), ServerError>;

    /// The next reply, with the descriptor that came with it.
    ///
    /// # Errors
    /// The server is gone, or does not keep to the protocol.
    fn reply(&mut self) -> Result<(Reply, Option<OwnedFd>), ServerError>;
}

/// Why the server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The request is for others.
    #[error("need root privileges")]
    Denied,
    /// No server listens.
    #[error("smtpd doesn't seem to be running")]
    Down,
    /// Client and server are of different versions.
    #[error("incompatible smtpctl and smtpd")]
    Incompatible,
    /// The connection failed.
    #[error("connection to smtpd: {0}")]
    Lost(String),
    /// A part of the server is being restarted.
    #[error("a part of smtpd is being restarted: try again")]
    Unavailable,
    /// The server answered something else than what was asked.
    #[error("smtpd gave an answer that does not fit")]
    Unexpected,
}
