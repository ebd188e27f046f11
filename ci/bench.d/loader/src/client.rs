//! One SMTP session of a sender: waits for each reply, sends no command ahead.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::dial::{Dialer, Wire};
use crate::options::Failure;

/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a banner may take. A connection that fell out of a short listen backlog seems open to
/// us and is unknown to the server, so that waiting longer would be waiting for ever.
const BANNER_PATIENCE: Duration = Duration::from_secs(3);

/// An open session, greeted.
pub struct Session {
    reader: BufReader<Wire>,
    line: Vec<u8>,
}

impl Session {
    /// Connects, waits for the banner, says EHLO and, if so wished, secures the session.
    pub fn open(dialer: &Dialer) -> Result<Self, Failure> {
        let mut session = Self::greet(dialer)?;
        if dialer.is_secure() {
            session.command(b"STARTTLS\r\n", 220)?;
            session = Self::over(dialer.secure(session.into_socket()?)?);
            session.command(b"EHLO load.bench.test\r\n", 250)?;
        }
        Ok(session)
    }

    /// Connects, waits for the banner and says EHLO.
    pub fn greet(dialer: &Dialer) -> Result<Self, Failure> {
        let stream = dialer.connect()?;
        stream.set_read_timeout(Some(BANNER_PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut session = Self::over(Wire::Plain(stream));
        session.expect(220)?;
        session.socket().set_read_timeout(Some(PATIENCE))?;
        session.command(b"EHLO load.bench.test\r\n", 250)?;
        Ok(session)
    }

    fn over(wire: Wire) -> Self {
        Self { reader: BufReader::with_capacity(1024, wire), line: Vec::new() }
    }

    /// The connection below.
    pub fn socket(&self) -> &TcpStream {
        self.reader.get_ref().socket()
    }

    /// Whether it is secured by what an earlier session had agreed upon.
    pub fn is_resumed(&self) -> bool {
        self.reader.get_ref().is_resumed()
    }

    /// The bare connection, every reply of which was read.
    pub fn into_socket(self) -> Result<TcpStream, Failure> {
        let unread = self.reader.buffer().len();
        match self.reader.into_inner() {
            Wire::Plain(stream) if unread == 0 => Ok(stream),
            _ => Err("more was said than asked for".into()),
        }
    }

    /// Sends one message; the time from its last byte to the final reply.
    pub fn send(&mut self, recipients: &[String], message: &[u8]) -> Result<Duration, Failure> {
        self.begin(recipients)?;
        self.reader.get_mut().write_all(message)?;
        let sent = Instant::now();
        self.expect(250)?;
        Ok(sent.elapsed())
    }

    /// Sends what precedes the content of a message.
    pub fn begin(&mut self, recipients: &[String]) -> Result<(), Failure> {
        self.command(b"MAIL FROM:<load@bench.test>\r\n", 250)?;
        for recipient in recipients {
            self.command(format!("RCPT TO:<{recipient}>\r\n").as_bytes(), 250)?;
        }
        self.command(b"DATA\r\n", 354)
    }

    /// Says QUIT and hangs up, as relays do that do not wait for the answer.
    pub fn quit(mut self) -> Result<(), Failure> {
        self.reader.get_mut().write_all(b"QUIT\r\n")?;
        Ok(())
    }

    /// Sends one command and waits for a reply with `code`.
    pub fn command(&mut self, command: &[u8], code: u16) -> Result<(), Failure> {
        self.reader.get_mut().write_all(command)?;
        self.expect(code)
    }

    fn expect(&mut self, code: u16) -> Result<(), Failure> {
        loop {
            self.line.clear();
            if self.reader.read_until(b'\n', &mut self.line)? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            if self.line.get(3) == Some(&b'-') {
                continue;
            }
            let found = self.line.get(..3).and_then(|code| std::str::from_utf8(code).ok());
            if found.and_then(|text| text.parse().ok()) == Some(code) {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&self.line);
            return Err(format!("wanted {code}, got {}", text.trim_end()).into());
        }
    }
}
