//! A handshake: the session's task moves the bytes, threads compute.
//!
//! Only whole records go to a thread, so that a client that sends a byte a second, or nothing, costs
//! its own task and no thread. What takes neither long nor a key is not worth the way there and back:
//! the end of every handshake, and sessions of TLS 1.2 that are resumed, are dealt with in place.
//!
//! What comes behind the last record is encrypted data, and is handed to the stream.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{HandshakeKind, ServerConnection};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::stream::TlsStream;
use super::threads::HandshakeThreads;
use super::{Configs, Door, Tls};
use crate::model::tls::Secured;
use crate::tls::record::{self, NotTls};
use crate::tls::{hello, secured};

/// How long a handshake may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long the last words to a client may take with which there is no handshake.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes read at once: a ClientHello most often.
const READ: usize = 4096;
/// Bytes that a connection deals with at once, unless a single record is longer.
const AT_ONCE: usize = 16 * 1024;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The client closed the connection.
    #[error("connection closed")]
    Closed,
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The client speaks something else.
    #[error(transparent)]
    NotTls(#[from] NotTls),
    /// It took too long.
    #[error("timed out")]
    Timeout,
    /// The key did not sign.
    #[error("{0}")]
    Key(String),
    /// The two sides do not agree, or a certificate does not hold.
    #[error("{0}")]
    Tls(rustls::Error),
    /// There is no key now.
    #[error("no TLS at the moment")]
    Unavailable,
}

impl From<rustls::Error> for HandshakeError {
    fn from(error: rustls::Error) -> Self {
        match error {
            // What a `Signatory` has said.
            rustls::Error::General(text) => Self::Key(text),
            error => Self::Tls(error),
        }
    }
}

impl Tls {
    /// Does the handshake of a session of `door`. `early` is what was received of it already, while
    /// it was still being decided whether there is to be one.
    ///
    /// # Errors
    /// See [`HandshakeError`]; the stream is gone.
    pub async fn accept<S>(
        &self,
        door: &Door,
        stream: S,
        early: Vec<u8>,
    ) -> Result<(TlsStream<S>, Secured), HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let configs = door.configs().ok_or(HandshakeError::Unavailable)?;
        let verifies = door.settings.verify;
        let shaking =
            Shaking { stream, received: early, configs, verifies, threads: &self.threads };
        let (stream, connection) =
            timeout(DEADLINE, shaking.run()).await.map_err(|_| HandshakeError::Timeout)??;
        let secured = secured(&connection, verifies).ok_or(HandshakeError::Closed)?;
        Ok((TlsStream::new(stream, connection), secured))
    }
}

/// A handshake under way.
struct Shaking<'a, S> {
    stream: S,
    /// What was received and not dealt with yet: less than a record, or what is behind one.
    received: Vec<u8>,
    configs: Configs,
    /// Whether a certificate is asked for.
    verifies: bool,
    threads: &'a HandshakeThreads,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Shaking<'_, S> {
    async fn run(mut self) -> Result<(S, Box<ServerConnection>), HandshakeError> {
        let first = self.records().await?;
        let mut connection = match self.configs.resume(&first) {
            Some(mut connection) => {
                self.send(&mut connection).await?;
                connection
            }
            None => {
                // It only fails if the configuration is of no use.
                let full = Arc::clone(&self.configs.full);
                let new = ServerConnection::new(full).map_err(|_| HandshakeError::Unavailable)?;
                self.step(Box::new(new), &first).await?
            }
        };
        while connection.is_handshaking() {
            let records = self.records().await?;
            connection = self.step(connection, &records).await?;
        }
        if !self.received.is_empty() {
            let behind = std::mem::take(&mut self.received);
            feed(&mut connection, &behind)?;
            let result = connection.process_new_packets().map(drop);
            self.answer(&mut connection, result).await?;
        }
        Ok((self.stream, connection))
    }

    /// The next whole records, one at least.
    async fn records(&mut self) -> Result<Vec<u8>, HandshakeError> {
        while record::first(&self.received)?.is_none() {
            if self.received.len() == self.received.capacity() {
                self.received.reserve(READ);
            }
            let mut some = (&mut self.stream).take(READ as u64);
            if some.read_buf(&mut self.received).await? == 0 {
                return Err(HandshakeError::Closed);
            }
        }
        let mut length = 0;
        for record in record::all(&self.received) {
            if length > 0 && length + record.len() > AT_ONCE {
                break;
            }
            length += record.len();
        }
        let rest = self.received.split_off(length);
        Ok(std::mem::replace(&mut self.received, rest))
    }

    /// Has a connection deal with records, in the place where that belongs, and sends its answer.
    async fn step(
        &mut self,
        mut connection: Box<ServerConnection>,
        records: &[u8],
    ) -> Result<Box<ServerConnection>, HandshakeError> {
        feed(&mut connection, records)?;
        let is_light = record::is_light(records, connection.protocol_version(), self.verifies);
        let result = if is_light {
            connection.process_new_packets().map(drop)
        } else {
            let step = self.threads.step(connection).await;
            let (stepped, result) = step.ok_or(HandshakeError::Unavailable)?;
            connection = stepped;
            result
        };
        self.answer(&mut connection, result).await?;
        Ok(connection)
    }

    /// Sends what a connection has to say to what it was fed. After an error that is the alert, and
    /// nothing more comes.
    async fn answer(
        &mut self,
        connection: &mut ServerConnection,
        result: Result<(), rustls::Error>,
    ) -> Result<(), HandshakeError> {
        let Err(error) = result else { return Ok(self.send(connection).await?) };
        // A client that is gone does not wait for it.
        let farewell = async {
            self.send(connection).await?;
            self.stream.shutdown().await
        };
        let _gone = timeout(FAREWELL, farewell).await;
        Err(error.into())
    }

    /// Sends what the connection has to say.
    async fn send(&mut self, connection: &mut ServerConnection) -> io::Result<()> {
        let mut bytes = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut bytes)?;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await
    }
}

impl Configs {
    /// The connection of a client that resumes a session of TLS 1.2, after its first words. `None` if it
    /// does something else: then there was no connection.
    fn resume(&self, records: &[u8]) -> Option<Box<ServerConnection>> {
        let config = self.resuming.as_ref()?;
        // Who shows no ticket of ours begins anew, which is for a thread.
        let ticket = hello::session_ticket(records)?;
        let _session = Zeroizing::new(config.ticketer.decrypt(ticket)?);
        let mut connection = Box::new(ServerConnection::new(Arc::clone(config)).ok()?);
        feed(&mut connection, records).ok()?;
        connection.process_new_packets().ok()?;
        (connection.handshake_kind() == Some(HandshakeKind::Resumed)).then_some(connection)
    }
}

/// Hands bytes to a connection, which takes some kilobytes at a time.
fn feed(connection: &mut ServerConnection, mut bytes: &[u8]) -> Result<(), HandshakeError> {
    while !bytes.is_empty() {
        if connection.read_tls(&mut bytes)? == 0 {
            return Err(HandshakeError::Closed);
        }
    }
    Ok(())
}
