//! Connections to LMTP servers, kept between deliveries.
//!
//! Sources: the queue page of the specification, section 5.9, for the forms of a destination.

use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::PROGRAM;
use super::session::{Session, Step, Stuffer, Transaction};
use crate::worker::report::{Failed, TEMPORARY};

/// The port of a destination that names none.
const DEFAULT_PORT: u16 = 25;
/// How long one address of a server is tried.
const CONNECT: Duration = Duration::from_secs(30);
/// Bytes of a message sent at once.
const CHUNK: usize = 64 * 1024;

/// A client that keeps the connection to its last server.
#[derive(Debug)]
pub struct Client {
    name: String,
    kept: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    destination: String,
    stream: Stream,
    session: Session,
}

#[derive(Debug)]
enum Stream {
    Local(UnixStream),
    Tcp(TcpStream),
}

impl Client {
    /// A client that greets with `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), kept: None }
    }

    /// Delivers one message within `limit`.
    ///
    /// `destination` is `host`, `host:port`, `[address]:port`, `[IPv6:address]:port` or the
    /// absolute path of a socket.
    ///
    /// # Errors
    /// The server refused in its own words, or the connection failed (temporary).
    pub fn deliver(
        &mut self,
        destination: &str,
        transaction: &Transaction,
        prefix: &str,
        message: &mut dyn BufRead,
        limit: Duration,
    ) -> Result<(), Failed> {
        let deadline = Instant::now() + limit;
        if let Some(mut kept) = self.kept.take()
            && kept.destination == destination
        {
            let result = kept.deliver(transaction, prefix, message, deadline);
            let closed_while_idle = kept.session.is_dead() && !kept.session.has_answered();
            if !closed_while_idle {
                self.keep(kept);
                return result;
            }
        }
        let mut fresh = Connection::open(destination, &self.name)
            .map_err(|_| Failed::new(TEMPORARY, PROGRAM, "connect"))?;
        let result = fresh.deliver(transaction, prefix, message, deadline);
        self.keep(fresh);
        result
    }

    fn keep(&mut self, connection: Connection) {
        if !connection.session.is_dead() {
            self.kept = Some(connection);
        }
    }
}

impl Connection {
    fn open(destination: &str, name: &str) -> io::Result<Self> {
        let stream = if Path::new(destination).is_absolute() {
            Stream::Local(UnixStream::connect(destination)?)
        } else {
            Stream::Tcp(connect(destination)?)
        };
        let session = Session::new(name);
        Ok(Self { destination: destination.to_owned(), stream, session })
    }

    fn deliver(
        &mut self,
        transaction: &Transaction,
        prefix: &str,
        message: &mut dyn BufRead,
        deadline: Instant,
    ) -> Result<(), Failed> {
        self.session.begin(transaction.clone());
        let mut buffer = [0; 4096];
        loop {
            match self.session.step() {
                Step::Body => match self.send_body(prefix, message, deadline) {
                    Ok(()) => self.session.body_sent(),
                    Err(what) => self.session.broken(what),
                },
                Step::Done(result) => return result,
                Step::Read => match self.read(&mut buffer, deadline) {
                    Ok(0) => self.session.broken("the server closed the connection"),
                    Ok(count) => self.session.receive(buffer.get(..count).unwrap_or_default()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => self.session.broken("read"),
                },
                Step::Send(bytes) => {
                    if self.write(&bytes, deadline).is_err() {
                        self.session.broken("write");
                    }
                }
            }
        }
    }

    fn send_body(
        &mut self,
        prefix: &str,
        message: &mut dyn BufRead,
        deadline: Instant,
    ) -> Result<(), &'static str> {
        let mut stuffer = Stuffer::default();
        let mut output = Vec::new();
        stuffer.feed(prefix.as_bytes(), &mut output);
        loop {
            let chunk = match message.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err("reading the message"),
            };
            if chunk.is_empty() {
                break;
            }
            stuffer.feed(chunk, &mut output);
            let length = chunk.len();
            message.consume(length);
            if output.len() >= CHUNK {
                self.write(&output, deadline).map_err(|_| "write")?;
                output.clear();
            }
        }
        stuffer.finish(&mut output);
        self.write(&output, deadline).map_err(|_| "write")
    }

    fn read(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        let left = Some(left(deadline)?);
        match &mut self.stream {
            Stream::Local(stream) => {
                stream.set_read_timeout(left)?;
                stream.read(buffer)
            }
            Stream::Tcp(stream) => {
                stream.set_read_timeout(left)?;
                stream.read(buffer)
            }
        }
    }

    fn write(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        let left = Some(left(deadline)?);
        match &mut self.stream {
            Stream::Local(stream) => {
                stream.set_write_timeout(left)?;
                stream.write_all(bytes)
            }
            Stream::Tcp(stream) => {
                stream.set_write_timeout(left)?;
                stream.write_all(bytes)
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.session.is_dead() {
            // A courtesy; the server notices the end of the connection as well.
            let _ = self.write(b"QUIT\r\n", Instant::now() + Duration::from_secs(1));
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The addresses of a host. `localhost` is this machine, whatever the system's look-up would do to
/// find that out (RFC 6761, section 6.3): a confined worker may not let it do everything.
fn addresses_of(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    Ok((host, port).to_socket_addrs()?.collect())
}

fn connect(destination: &str) -> io::Result<TcpStream> {
    let (host, port) =
        host_and_port(destination).ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses_of(host, port)? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(failed) => error = failed,
        }
    }
    Err(error)
}

/// Takes a destination apart; `None` for a port that is none, or an unclosed bracket.
fn host_and_port(destination: &str) -> Option<(&str, u16)> {
    if let Some(inside) = destination.strip_prefix('[') {
        let (host, after) = inside.split_once(']')?;
        let plain = match host.get(..5) {
            Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => host.get(5..)?,
            _ => host,
        };
        return match after.strip_prefix(':') {
            Some(port) => Some((plain, port.parse().ok()?)),
            None if after.is_empty() => Some((plain, DEFAULT_PORT)),
            None => None,
        };
    }
    match destination.split_once(':') {
        // More than one colon: an address without brackets.
        Some((_, port)) if port.contains(':') => Some((destination, DEFAULT_PORT)),
        Some((host, port)) => Some((host, port.parse().ok()?)),
        None => Some((destination, DEFAULT_PORT)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn transaction() -> Transaction {
        Transaction { from: "a@b".to_owned(), recipients: vec!["alice".to_owned()] }
    }

    /// Answers like a server that accepts everything; returns what it was told, once the client
    /// is gone or `commands` lines outside of messages were read.
    fn serve(mut stream: impl Read + Write, commands: usize) -> Vec<String> {
        let mut told = Vec::new();
        let mut input = Vec::new();
        let mut buffer = [0; 1024];
        let mut in_message = false;
        stream.write_all(b"220 test\r\n").unwrap();
        let mut seen = 0;
        while seen < commands || in_message {
            let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => input.extend_from_slice(&buffer[..count]),
                }
                continue;
            };
            let line: Vec<u8> = input.drain(..=end).collect();
            let line = String::from_utf8(line).unwrap().trim_end().to_owned();
            let reply: &[u8] = match (in_message, line.as_str()) {
                (true, ".") => b"250 delivered\r\n",
                (true, _) => b"",
                (false, "DATA") => b"354 go\r\n",
                (false, _) => b"250 ok\r\n",
            };
            seen += usize::from(!in_message);
            in_message = line == "DATA" || (in_message && line != ".");
            told.push(line);
            if stream.write_all(reply).is_err() {
                break;
            }
        }
        told
    }

    fn deliver(client: &mut Client, destination: &str) -> Result<(), Failed> {
        let mut message = BufReader::new(&b"Subject: x\n\n.dot\n"[..]);
        client.deliver(destination, &transaction(), "P: 1\n", &mut message, LIMIT)
    }

    #[test]
    fn a_connection_is_kept_and_replaced_when_the_server_closed_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let destination = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            // The first connection ends after two transactions.
            let first = serve(listener.accept().unwrap().0, 7);
            let second = serve(listener.accept().unwrap().0, 100);
            (first, second)
        });
        let mut client = Client::new("localhost");
        for _ in 0..3 {
            assert_eq!(deliver(&mut client, &destination), Ok(()));
        }
        drop(client);
        let (first, second) = server.join().unwrap();
        let envelope = ["MAIL FROM:<a@b>", "RCPT TO:<alice>", "DATA"];
        let message = ["P: 1", "Subject: x", "", "..dot", "."];
        let whole = [&envelope[..], &message].concat();
        assert_eq!(first, [&["LHLO localhost"][..], &whole, &whole].concat());
        assert_eq!(second, [&["LHLO localhost"][..], &whole, &["QUIT"]].concat());
    }

    #[test]
    fn a_socket_path_is_a_destination() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lmtp.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || serve(listener.accept().unwrap().0, 100));
        let mut client = Client::new("localhost");
        assert_eq!(deliver(&mut client, path.to_str().unwrap()), Ok(()));
        drop(client);
        assert_eq!(server.join().unwrap().len(), 10);
    }

    #[test]
    fn a_server_that_is_not_there_or_silent_is_temporary() {
        // queue case 153
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut client = Client::new("localhost");
        let failed = Failed::new(TEMPORARY, PROGRAM, "connect");
        assert_eq!(deliver(&mut client, &free), Err(failed.clone()));
        assert_eq!(deliver(&mut client, "/nowhere/socket"), Err(failed));

        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let destination = silent.local_addr().unwrap().to_string();
        let result = client.deliver(
            &destination,
            &transaction(),
            "",
            &mut &b"x"[..],
            Duration::from_millis(100),
        );
        assert_eq!(result, Err(Failed::new(TEMPORARY, PROGRAM, "read")));
    }

    #[test]
    fn destinations() {
        let cases = [
            ("localhost", Some(("localhost", 25))),
            ("localhost:24", Some(("localhost", 24))),
            ("[127.0.0.1]:24", Some(("127.0.0.1", 24))),
            ("[127.0.0.1]", Some(("127.0.0.1", 25))),
            ("[IPv6:::1]:24", Some(("::1", 24))),
            ("[::1]:24", Some(("::1", 24))),
            ("::1", Some(("::1", 25))),
            ("localhost:x", None),
            ("localhost:70000", None),
            ("[::1", None),
            ("[::1]x", None),
        ];
        for (text, expected) in cases {
            assert_eq!(host_and_port(text), expected, "{text}");
        }
    }
}
