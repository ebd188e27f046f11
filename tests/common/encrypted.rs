//! Clients that encrypt, and the certificates of a server under test.

use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use pillarbox::tls::{ClientOptions, Trust, client_config};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::account::give;
use super::certificates::Made;
use super::peer::Peer;
use super::server::Server;

/// A stream on which the handshake is done.
pub type Encrypted = StreamOwned<ClientConnection, TcpStream>;

/// A client that takes any certificate.
pub fn anyone() -> Arc<ClientConfig> {
    client_config(ClientOptions::new(Trust::Anyone)).unwrap()
}

/// Does a handshake on a connection.
pub fn encrypt(
    stream: TcpStream,
    config: &Arc<ClientConfig>,
    name: &str,
) -> io::Result<Peer<Encrypted>> {
    encrypt_behind(b"", stream, config, name)
}

/// Does a handshake on a connection, with these bytes in front of its first record, at once.
pub fn encrypt_behind(
    bytes: &[u8],
    mut stream: TcpStream,
    config: &Arc<ClientConfig>,
    name: &str,
) -> io::Result<Peer<Encrypted>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut first = bytes.to_vec();
    connection.write_tls(&mut first)?;
    stream.write_all(&first)?;
    let mut stream = StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(Peer::over(stream))
}

/// A session that was encrypted by STARTTLS, and not greeted since.
pub fn start_tls(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
) -> io::Result<Peer<Encrypted>> {
    let mut peer = Peer::greeted(address)?;
    let reply = peer.say("STARTTLS")?;
    if reply.line() != "220 2.0.0 Ready to start TLS" {
        return Err(io::Error::other(reply.line()));
    }
    encrypt(peer.into_stream(), config, name)
}

/// The certificate that a server has shown.
pub fn shown(peer: &Peer<Encrypted>) -> CertificateDer<'static> {
    peer.stream().conn.peer_certificates().unwrap()[0].clone()
}

/// The certificate that a test has made.
pub fn der(made: &Made) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap()
}

impl Peer<Encrypted> {
    /// Says that nothing more comes, and closes.
    pub fn end(self) {
        let mut stream = self.into_inner();
        stream.conn.send_close_notify();
        // Who is gone already does not have to be told.
        let _gone = stream.conn.complete_io(&mut stream.sock);
    }
}

impl Server {
    /// Puts a file of keys or certificates where only the server can read it.
    pub fn write_key_file(&self, name: &str, text: &str) {
        // As those who renew certificates do it: whole, or not at all.
        let (path, draft) = (self.path(name), self.path(&format!("{name}.new")));
        fs::write(&draft, text).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).unwrap();
        give(&draft, self.account());
        fs::rename(draft, path).unwrap();
    }

    /// Puts a certificate and its key there, as `NAME.crt` and `NAME.key`.
    pub fn write_certificate(&self, name: &str, made: &Made) {
        self.write_key_file(&format!("{name}.crt"), &made.certificate);
        self.write_key_file(&format!("{name}.key"), &made.key);
    }
}
