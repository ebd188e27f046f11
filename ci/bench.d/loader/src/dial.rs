//! How a session is reached: from which address, and whether it is secured.
//!
//! Nothing is verified: neither the certificate nor the server's signature. What a client spends on
//! that would be taken from the server that is measured, and the peers of a run are known.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS12;
use rustls::{
    ALL_VERSIONS, ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind,
    SignatureScheme, StreamOwned, SupportedProtocolVersion,
};
use socket2::{Domain, Socket, Type};

use crate::options::{Failure, Options, Security};

/// Sessions that one dialer keeps for resumption: those of one thread follow one another.
const REMEMBERED: usize = 8;

/// Opens connections to the server under test.
#[derive(Debug)]
pub struct Dialer {
    to: SocketAddr,
    sources: usize,
    turn: AtomicUsize,
    security: Option<Arc<ClientConfig>>,
}

impl Dialer {
    /// As the options say, with a memory for resumption of its own.
    pub fn new(options: &Options) -> Result<Self, Failure> {
        let memory = Resumption::in_memory_sessions(REMEMBERED);
        let security = match options.security {
            Security::None => None,
            Security::New => Some(client(Resumption::disabled(), ALL_VERSIONS)?),
            Security::Resumed => Some(client(memory, ALL_VERSIONS)?),
            Security::ResumedOld => Some(client(memory, &[&TLS12])?),
        };
        let (to, sources) = (options.target()?, options.sources);
        Ok(Self { to, sources, turn: AtomicUsize::new(0), security })
    }

    /// Whether sessions are to be secured.
    pub fn is_secure(&self) -> bool {
        self.security.is_some()
    }

    /// Connects; source addresses take turns.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let stream = if self.sources == 0 {
            TcpStream::connect(self.to)?
        } else {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.sources;
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(source(turn), 0).into())?;
            socket.connect(&self.to.into())?;
            socket.into()
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Begins TLS on a connection; the handshake happens with the first byte that is written.
    pub fn secure(&self, stream: TcpStream) -> Result<Wire, Failure> {
        let config = self.security.as_ref().ok_or("this dialer knows no TLS")?;
        let name = ServerName::try_from("mx.bench.local")?;
        let connection = ClientConnection::new(Arc::clone(config), name)?;
        Ok(Wire::Secure(Box::new(StreamOwned::new(connection, stream))))
    }
}

/// 127.1.0.1 and the addresses that follow.
fn source(turn: usize) -> IpAddr {
    let base = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    // More than 65,536 of them would not do anything that fewer do not.
    IpAddr::V4(Ipv4Addr::from(base + (turn as u32 & 0xffff)))
}

fn client(
    resumption: Resumption,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Arc<ClientConfig>, Failure> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting(provider)))
        .with_no_client_auth();
    config.resumption = resumption;
    Ok(Arc::new(config))
}

/// The connection of one session.
pub enum Wire {
    /// As TCP carries it.
    Plain(TcpStream),
    /// After STARTTLS.
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// The connection below.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Secure(stream) => stream.get_ref(),
        }
    }

    /// Whether it is secured by what an earlier session had agreed upon.
    pub fn is_resumed(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Secure(stream) => stream.conn.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Secure(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Secure(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Secure(stream) => stream.flush(),
        }
    }
}

/// Takes every certificate and every signature.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
