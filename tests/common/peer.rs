//! A client that speaks SMTP to the server, politely or not.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a reply may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// One reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// The text of each line, enhanced status code included.
    pub lines: Vec<String>,
}

impl Reply {
    /// Code and text of the last line, as it was sent.
    pub fn line(&self) -> String {
        format!("{} {}", self.code, self.lines.last().map_or("", String::as_str))
    }
}

/// A connection to the server.
pub struct Peer<S = TcpStream> {
    stream: BufReader<S>,
}

impl Peer {
    /// Connects without reading anything.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Connects, waits for the greeting and says EHLO.
    pub fn greeted(address: SocketAddr) -> io::Result<Self> {
        let mut peer = Self::connect(address)?;
        for reply in [peer.reply()?, peer.say("EHLO client.example")?] {
            if reply.code / 100 != 2 {
                return Err(io::Error::other(format!("greeted with {reply:?}")));
            }
        }
        Ok(peer)
    }
}

impl<S: Read + Write> Peer<S> {
    /// Speaks over a connection of another kind.
    pub fn over(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// The connection, of which replies may have been read that nobody asked for.
    pub fn into_inner(self) -> S {
        self.stream.into_inner()
    }

    /// The bare connection, from which nothing was read beyond the last reply.
    pub fn into_stream(self) -> S {
        assert_eq!(self.stream.buffer(), b"");
        self.stream.into_inner()
    }

    /// The connection itself.
    pub fn stream(&self) -> &S {
        self.stream.get_ref()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())?;
        self.stream.get_mut().flush()
    }

    /// Reads one reply of any number of lines.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.strip_suffix("\r\n").ok_or_else(|| malformed(&line))?;
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let code = code.ok_or_else(|| malformed(line))?;
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, lines });
            }
        }
    }

    /// Sends a command and reads its reply.
    pub fn say(&mut self, command: &str) -> io::Result<Reply> {
        self.send(format!("{command}\r\n"))?;
        self.reply()
    }

    /// Sends a message (LF line ends); the reply to its end, or the first one that refuses.
    pub fn submit(&mut self, from: &str, to: &[&str], content: &str) -> io::Result<Reply> {
        let mut commands = vec![format!("MAIL FROM:<{from}>")];
        commands.extend(to.iter().map(|recipient| format!("RCPT TO:<{recipient}>")));
        for command in commands {
            let reply = self.say(&command)?;
            if reply.code / 100 != 2 {
                return Ok(reply);
            }
        }
        self.data(content)
    }

    /// Sends DATA and the content of a message (LF line ends).
    pub fn data(&mut self, content: &str) -> io::Result<Reply> {
        let reply = self.say("DATA")?;
        if reply.code != 354 {
            return Ok(reply);
        }
        self.send(on_the_wire(content))?;
        self.reply()
    }

    /// Takes leave.
    pub fn quit(mut self) -> io::Result<Reply> {
        self.say("QUIT")
    }
}

/// Content as DATA sends it: CR LF line ends, dots doubled, the final dot.
pub fn on_the_wire(content: &str) -> String {
    let mut wire = String::with_capacity(content.len() + content.len() / 16 + 8);
    for line in content.lines() {
        if line.starts_with('.') {
            wire.push('.');
        }
        wire.push_str(line);
        wire.push_str("\r\n");
    }
    wire.push_str(".\r\n");
    wire
}

/// A small message that `id` tells from all others.
pub fn message(id: &str) -> String {
    format!(
        "From: <sender@client.example>\nTo: <someone@example.org>\nSubject: test {id}\n\
         Message-ID: <{id}@client.example>\n\nThis is {id}.\n"
    )
}

fn malformed(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a reply: {line:?}"))
}
