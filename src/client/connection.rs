//! A connection to a server, encrypted or not, with a limit to every wait.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Stream};

use crate::model::tls::Secured;
use crate::tls::secured;

/// Longest wait for a connection, for bytes, or for room to write.
const PATIENCE: Duration = Duration::from_secs(100);

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody answers at this address.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        // Commands are answered one by one: nothing is gained by waiting for more.
        socket.set_nodelay(true)?;
        Ok(Self { socket, tls: None })
    }

    /// Does a TLS handshake. `verified` says whether `config` lets only certificates through that
    /// hold.
    ///
    /// # Errors
    /// The connection, the server or its certificate is of no use.
    pub fn encrypt(
        &mut self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        verified: bool,
    ) -> io::Result<Secured> {
        let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut self.socket)?;
        }
        let found = secured(&tls, verified).ok_or(io::ErrorKind::InvalidData)?;
        self.tls = Some(Box::new(tls));
        Ok(found)
    }

    /// Says that nothing more comes. Whether the server hears it does not matter any more.
    pub fn close(mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _farewell = tls.write_tls(&mut self.socket);
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => Stream::new(&mut **tls, &mut self.socket).read(buffer),
            None => self.socket.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => Stream::new(&mut **tls, &mut self.socket).write(bytes),
            None => self.socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => Stream::new(&mut **tls, &mut self.socket).flush(),
            None => self.socket.flush(),
        }
    }
}
