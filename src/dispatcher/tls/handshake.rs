//! A handshake: the session's task moves the bytes, threads compute.
//!
//! Only whole records go to a thread, so that a client that sends a byte a second, or nothing, costs
//! its own task and no thread. Not one byte behind the handshake is taken from the stream.

use std::io;
use std::time::Duration;

use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::stream::TlsStream;
use super::threads::HandshakeThreads;
use super::{Door, Tls};
use crate::model::tls::Secured;
use crate::tls::record::{self, Expected, NotTls};
use crate::tls::secured;

/// How long a handshake may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long the last words to a client may take with which there is no handshake.
const FAREWELL: Duration = Duration::from_secs(1);
/// Type of a record that only says that what follows is encrypted (RFC 5246, section 7.1).
const CHANGE_CIPHER_SPEC: u8 = 20;

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
    /// Does the handshake of a session of `door`. `early` is what was received of it already, as
    /// behind a PROXY header; everything else is still in the stream.
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
        let config = door.config().ok_or(HandshakeError::Unavailable)?;
        let connection = Box::new(ServerConnection::new(config)?);
        let shaking = Shaking { stream, early, taken: 0, threads: &self.threads };
        let (stream, connection) = timeout(DEADLINE, shaking.run(connection))
            .await
            .map_err(|_| HandshakeError::Timeout)??;
        let secured = secured(&connection, door.settings.verify);
        let secured = secured.ok_or(HandshakeError::Closed)?;
        Ok((TlsStream::new(stream, connection), secured))
    }
}

/// A handshake under way.
struct Shaking<'a, S> {
    stream: S,
    early: Vec<u8>,
    /// How much of `early` was used.
    taken: usize,
    threads: &'a HandshakeThreads,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Shaking<'_, S> {
    async fn run(
        mut self,
        mut connection: Box<ServerConnection>,
    ) -> Result<(S, Box<ServerConnection>), HandshakeError> {
        while connection.is_handshaking() {
            let record = self.record().await?;
            feed(&mut connection, &record)?;
            let result = if record.first() == Some(&CHANGE_CIPHER_SPEC) {
                connection.process_new_packets().map(drop)
            } else {
                let step = self.threads.step(connection).await;
                let (stepped, result) = step.ok_or(HandshakeError::Unavailable)?;
                connection = stepped;
                result
            };
            if let Err(error) = result {
                // The alert; a client that is gone does not wait for it.
                let farewell = async {
                    self.send(&mut connection).await?;
                    self.stream.shutdown().await
                };
                let _gone = timeout(FAREWELL, farewell).await;
                return Err(error.into());
            }
            self.send(&mut connection).await?;
        }
        let rest = self.early.get(self.taken..).unwrap_or_default();
        if !rest.is_empty() {
            feed(&mut connection, rest)?;
            connection.process_new_packets()?;
        }
        Ok((self.stream, connection))
    }

    /// The next record, and nothing behind it.
    async fn record(&mut self) -> Result<Vec<u8>, HandshakeError> {
        let mut record = Vec::new();
        loop {
            let missing = match record::expected(&record)? {
                Expected::More(missing) => missing,
                Expected::Record => return Ok(record),
            };
            let early = self.early.get(self.taken..).unwrap_or_default();
            let early = early.get(..early.len().min(missing)).unwrap_or_default();
            if early.is_empty() {
                let count = (&mut self.stream).take(missing as u64).read_buf(&mut record).await?;
                if count == 0 {
                    return Err(HandshakeError::Closed);
                }
            } else {
                record.extend_from_slice(early);
                self.taken += early.len();
            }
        }
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

/// Hands bytes to a connection, which takes some kilobytes at a time.
fn feed(connection: &mut ServerConnection, mut bytes: &[u8]) -> Result<(), HandshakeError> {
    while !bytes.is_empty() {
        if connection.read_tls(&mut bytes)? == 0 {
            return Err(HandshakeError::Closed);
        }
    }
    Ok(())
}
