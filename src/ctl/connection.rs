//! The connection to the control socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::exchange::{Exchange, ServerError};
use super::sendmail::SessionError;
use crate::ipc::blocking::{Channel, ChannelError};
use crate::ipc::frame::{FrameError, Kind};
use crate::ipc::message::client::{Reply, Request, VERSION};

/// A connection whose versions agree.
#[derive(Debug)]
pub struct Connection {
    channel: Channel<Request, Reply>,
    number: u32,
}

impl Connection {
    /// Connects to the server whose control socket is at `path`.
    ///
    /// # Errors
    /// There is none, or it is of another version.
    pub fn open(path: &Path) -> Result<Self, ServerError> {
        let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ServerError::Down,
            _ => ServerError::Lost(format!("{}: {error}", path.display())),
        })?;
        let channel = Channel::new(stream.into()).map_err(|error| lost(&error))?;
        let mut connection = Self { channel, number: 0 };
        connection.ask(Request::Hello { version: VERSION })?;
        match connection.reply()?.0 {
            Reply::Welcome => Ok(connection),
            Reply::Incompatible { .. } => Err(ServerError::Incompatible),
            _ => Err(ServerError::Unexpected),
        }
    }

    /// Asks for a local SMTP session.
    ///
    /// # Errors
    /// There is none.
    pub fn open_session(mut self) -> Result<UnixStream, SessionError> {
        self.ask(Request::OpenSession)?;
        let socket = match self.reply()? {
            (Reply::Session, Some(socket)) => UnixStream::from(socket),
            (Reply::Busy | Reply::Session | Reply::Unavailable, _) => {
                return Err(SessionError::Busy);
            }
            (Reply::SubmissionRefused, _) => return Err(SessionError::Disallowed),
            _ => return Err(ServerError::Unexpected.into()),
        };
        let blocking = platform::fd::set_nonblocking(socket.as_fd(), false);
        blocking.map_err(|error| SessionError::Other(error.to_string()))?;
        Ok(socket)
    }
}

impl Exchange for Connection {
    fn ask(&mut self, request: Request) -> Result<(), ServerError> {
        self.number = self.number.wrapping_add(1);
        self.channel.request(self.number, &request, None).map_err(|error| lost(&error))
    }

    fn reply(&mut self) -> Result<(Reply, Option<OwnedFd>), ServerError> {
        let received = self.channel.receive().map_err(|error| match error {
            ChannelError::Frame(FrameError::Message) => ServerError::Incompatible,
            error => lost(&error),
        })?;
        if received.kind != Kind::Reply || received.number != self.number {
            return Err(ServerError::Unexpected);
        }
        let reply = received.message.ok_or(ServerError::Unavailable)?;
        Ok((reply, received.descriptor))
    }
}

impl From<ServerError> for SessionError {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::Down => Self::Down,
            ServerError::Unavailable => Self::Busy,
            other => Self::Other(other.to_string()),
        }
    }
}

fn lost(error: &impl ToString) -> ServerError {
    ServerError::Lost(error.to_string())
}
