//! Connections that a proxy passes on: the header in front of them, and what came with it.
//!
//! The header is read before anything else is done about a connection; one that has none, or a
//! wrong one, is closed without a word. Bytes behind it are read again by whoever comes next, the
//! TLS layer included, so that they may arrive together with it.
//!
//! Source: the SMTP page of the specification, 4.1, and 9, D14.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use crate::proto::proxy::{Client, HeaderReader, ProxyError};

/// Longest silence before the header is complete.
const PATIENCE: Duration = Duration::from_secs(300);
/// Bytes read at once.
const READ: usize = 2048;

/// Why a connection is closed; the text is what is logged.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    /// The proxy closed it.
    #[error("disconnected")]
    Disconnected,
    /// Reading failed.
    #[error("IO error ({0})")]
    Io(io::Error),
    /// What it begins with is no header that can be used.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// Nothing came for too long.
    #[error("timeout")]
    Timeout,
}

/// Reads the header of a connection; returns the connection behind it, and whose it is.
///
/// # Errors
/// The connection is to be closed.
pub(super) async fn accept<S>(mut stream: S) -> Result<(Preceded<S>, Client), Closed>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut reader = HeaderReader::default();
    loop {
        let mut buffer = [0; READ];
        let received = match timeout(PATIENCE, stream.read(&mut buffer)).await {
            Err(_) => return Err(Closed::Timeout),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(Closed::Disconnected);
            }
            Ok(Err(error)) => return Err(Closed::Io(error)),
            Ok(Ok(0)) => return Err(Closed::Disconnected),
            Ok(Ok(count)) => buffer.get(..count).unwrap_or_default(),
        };
        if let (used, Some(client)) = reader.take(received)? {
            let behind = received.get(used..).unwrap_or_default();
            return Ok((Preceded::new(behind, stream), client));
        }
    }
}

/// A stream of which some bytes were read already: they are read again first.
#[derive(Debug)]
pub struct Preceded<S> {
    /// Empty most of the time, and without room of its own then.
    bytes: Vec<u8>,
    stream: S,
}

impl<S> Preceded<S> {
    /// `stream`, with `bytes` in front of what comes from it.
    pub fn new(bytes: &[u8], stream: S) -> Self {
        Self { bytes: bytes.to_vec(), stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Preceded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = buffer.remaining().min(self.bytes.len());
        let rest = self.bytes.split_off(count);
        buffer.put_slice(&self.bytes);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Preceded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;
    use crate::spec_case::ran;

    const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

    #[tokio::test]
    async fn what_comes_with_the_header_is_read_behind_it() {
        for pieces in
            [vec![LOCAL, b"EHLO", b" x\r\n"], vec![&LOCAL[..3], &LOCAL[3..], b"EHLO x\r\n"]]
        {
            let (mut proxy, server) = duplex(64);
            let accepted = tokio::spawn(accept(server));
            for piece in &pieces[..2] {
                proxy.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            let (mut stream, client) = accepted.await.unwrap().unwrap();
            assert_eq!(client, Client::Proxy);
            proxy.write_all(pieces[2]).await.unwrap();
            drop(proxy);
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, b"EHLO x\r\n");
        }
        let (mut proxy, server) = duplex(64);
        proxy.write_all(&[LOCAL, b"EHLO"].concat()).await.unwrap();
        let (mut stream, _) = accept(server).await.unwrap();
        let mut two = [0; 2];
        stream.read_exact(&mut two).await.unwrap();
        assert_eq!(&two, b"EH");
        stream.write_all(b"220").await.unwrap();
        let mut written = [0; 3];
        proxy.read_exact(&mut written).await.unwrap();
        assert_eq!(&written, b"220");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_header_is_closed_for_a_reason() {
        let (mut proxy, server) = duplex(64);
        proxy.write_all(&LOCAL[..15]).await.unwrap();
        let silent = accept(server).await.map(|_| ()).unwrap_err();
        assert_eq!(silent.to_string(), "timeout");
        drop(proxy);

        let (mut proxy, server) = duplex(64);
        proxy.write_all(&LOCAL[..15]).await.unwrap();
        drop(proxy);
        let gone = accept(server).await.map(|_| ()).unwrap_err();
        assert_eq!(gone.to_string(), "disconnected");

        let (mut proxy, server) = duplex(64);
        proxy.write_all(b"EHLO a.b\r\n").await.unwrap();
        let wrong = accept(server).await.map(|_| ()).unwrap_err();
        assert_eq!(wrong.to_string(), "protocol error (invalid signature)");
        let mut answer = Vec::new();
        proxy.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty());
        ran("smtp", 203);
    }
}
