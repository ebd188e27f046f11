//! A fake SMTP or LMTP server that keeps what it is sent and answers as the test wants.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::wait::wait_until;

/// The command line that stands for the end of a message's content in a script.
pub const END_OF_DATA: &str = ".";

/// One transaction as the sink has seen it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Received {
    /// The address that the client came from.
    pub client: Option<IpAddr>,
    /// What it calls itself.
    pub helo: String,
    /// The argument of MAIL.
    pub sender: String,
    /// The arguments of RCPT that were answered 2xx.
    pub recipients: Vec<String>,
    /// The content, LF line ends, dots undone.
    pub content: String,
}

/// The reply to a command, if it is not the usual one; an empty one ends the connection.
type Script = dyn Fn(&str) -> Option<String> + Send + Sync;

struct Shared {
    script: Box<Script>,
    lmtp: bool,
    received: Mutex<Vec<Received>>,
    commands: Mutex<Vec<String>>,
    connections: AtomicUsize,
    closing: AtomicBool,
}

/// A fake server, stopped when dropped.
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Sink {
    /// An SMTP server that takes everything.
    pub fn start() -> Self {
        Self::scripted(|_| None)
    }

    /// An SMTP server that answers with what `script` says, where it says something.
    pub fn scripted(script: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self::serve("127.0.0.1:0".parse().unwrap(), false, Box::new(script)).unwrap()
    }

    /// An SMTP server at an address of the test's choice.
    pub fn at(
        address: SocketAddr,
        script: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::serve(address, false, Box::new(script))
    }

    /// An LMTP server (RFC 2033): one reply a recipient after the content.
    pub fn lmtp(script: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self::serve("127.0.0.1:0".parse().unwrap(), true, Box::new(script)).unwrap()
    }

    fn serve(address: SocketAddr, lmtp: bool, script: Box<Script>) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            script,
            lmtp,
            received: Mutex::default(),
            commands: Mutex::default(),
            connections: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.closing.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                accepting.connections.fetch_add(1, Ordering::AcqRel);
                let session = Arc::clone(&accepting);
                // The end of a connection is the client's business.
                thread::spawn(move || session.converse(&stream));
            }
        });
        Ok(Self { address, shared, accepting: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The transactions whose content was accepted, so far.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// All command lines, so far.
    pub fn commands(&self) -> Vec<String> {
        lock(&self.shared.commands).clone()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// Waits for `count` transactions or more.
    pub fn wait_for(&self, count: usize, limit: Duration) -> Vec<Received> {
        wait_until(&format!("{count} messages at the sink"), limit, || {
            lock(&self.shared.received).len() >= count
        });
        self.received()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        // Wakes the thread that accepts, and waits until the address is free again.
        if TcpStream::connect(self.address).is_ok() {
            let _ended = self.accepting.take().map(JoinHandle::join);
        }
    }
}

impl Shared {
    fn converse(&self, stream: &TcpStream) -> io::Result<()> {
        let mut output = stream;
        let mut input = BufReader::new(stream);
        let mut transaction = Received::default();
        let client = Some(stream.peer_addr()?.ip());
        let mut helo = String::new();
        let mut has_sender = false;
        let mut say = |reply: String| match reply.as_str() {
            "" => Err(io::Error::other("the script ends the connection")),
            _ => output.write_all(format!("{reply}\r\n").as_bytes()),
        };
        say(self.reply_to("", "220 sink.example ready"))?;
        loop {
            let Some(line) = read_line(&mut input)? else { return Ok(()) };
            lock(&self.commands).push(line.clone());
            let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
            let usual = match verb.as_str() {
                "EHLO" | "LHLO" => "250-sink.example\r\n250-PIPELINING\r\n250 8BITMIME",
                "DATA" if transaction.recipients.is_empty() => "503 5.5.1 no recipients yet",
                "DATA" => "354 go on",
                "RCPT" if !has_sender => "503 5.5.1 no sender yet",
                "QUIT" => "221 bye",
                _ => "250 ok",
            };
            let reply = self.reply_to(&line, usual);
            let positive = reply.starts_with(['2', '3']);
            say(reply)?;
            match verb.as_str() {
                "EHLO" | "LHLO" => {
                    helo = line.split(' ').nth(1).unwrap_or_default().to_owned();
                }
                "MAIL" | "RSET" => {
                    has_sender = positive && verb == "MAIL";
                    let (sender, helo) = (argument(&line), helo.clone());
                    transaction = Received { client, helo, sender, ..Received::default() };
                }
                "RCPT" if positive => transaction.recipients.push(argument(&line)),
                "DATA" if positive => {
                    transaction.content = read_content(&mut input)?;
                    // Known before the client hears of it.
                    let usual = "250 taken";
                    let turns = if self.lmtp { transaction.recipients.len() } else { 1 };
                    has_sender = false;
                    let replies: Vec<_> =
                        (0..turns).map(|_| self.reply_to(END_OF_DATA, usual)).collect();
                    if replies.iter().any(|reply| reply.starts_with('2')) {
                        lock(&self.received).push(std::mem::take(&mut transaction));
                    }
                    replies.into_iter().try_for_each(&mut say)?;
                }
                "QUIT" => return Ok(()),
                _ => {}
            }
        }
    }

    fn reply_to(&self, command: &str, usual: &str) -> String {
        (self.script)(command).unwrap_or_else(|| usual.to_owned())
    }
}

fn read_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if input.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()))
}

fn read_content(input: &mut impl BufRead) -> io::Result<String> {
    let mut content = String::new();
    loop {
        let line = read_line(input)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if line == "." {
            return Ok(content);
        }
        content.push_str(line.strip_prefix('.').unwrap_or(&line));
        content.push('\n');
    }
}

/// What is between the angle brackets.
fn argument(line: &str) -> String {
    let inside = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inside.map_or("", |(inside, _)| inside).to_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
