//! Scripts of SMTP sessions, and of what must have arrived where afterwards.
//!
//! One step a line; `#` begins a comment line. The first line of a session is the greeting.
//!
//! | step | does |
//! |---|---|
//! | `C: LINE` | sends a line |
//! | `S: BEGINNING` | reads a reply, whose last line begins so |
//! | `connect 1`, `connect 2`, `connect 3` | goes on in a new session, with that listener |
//! | `starttls HOST` | says STARTTLS, which must be taken, and encrypts |
//! | `handshake HOST` | encrypts at once, right after `connect` |
//! | `auth USER PASSWORD` | sends AUTH PLAIN |
//! | `message NAME` | sends DATA and a message of this name, which must be taken |
//! | `refused NAME BEGINNING` | sends DATA and a message, and reads a reply that begins so |
//! | `sendmail ARGUMENTS`, `message NAME` | submits the message by that program instead |
//! | `maildir PATH NAME [TEXT]` | waits for the message, with this text in it, in a Maildir |
//! | `file PATH TEXT` | waits for text in a file |
//! | `sink SENDER RECIPIENT NAME [TEXT]` | waits for the message at the smart host or exchanger |
//! | `lmtp SENDER RECIPIENT NAME [TEXT]` | waits for the message at the LMTP server |
//! | `client ADDRESS HELO NAME` | the one that brought the message there came from and was called so |
//! | `log TEXT` | waits for a log line that holds the text |
//! | `kept NAME` | the message has not come to any of these servers so far |
//!
//! An asterisk in a sender stands for anything. TEXT is one line, its beginning at least.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::encrypted::{anyone, encrypt};
use super::maildir::Maildir;
use super::peer::{Peer, message};
use super::server::Server;
use super::sink::Sink;
use super::wait::{SOON, wait_until};

/// Who takes part besides the server.
pub struct Stage<'a> {
    /// The server under test.
    pub server: &'a Server,
    /// Its second and its third listener, if it has them.
    pub others: [SocketAddr; 2],
    /// The smart host or exchanger.
    pub sink: &'a Sink,
    /// The LMTP server.
    pub lmtp: &'a Sink,
}

/// A connection, encrypted or not.
trait Channel: Read + Write {}

impl<T: Read + Write> Channel for T {}

/// A session, and its socket for when it is to be encrypted.
struct Conversation {
    socket: TcpStream,
    peer: Peer<Box<dyn Channel>>,
}

impl Conversation {
    fn with(address: SocketAddr) -> Self {
        let socket = Peer::connect(address).unwrap().into_stream();
        let peer = Peer::over(Box::new(socket.try_clone().unwrap()) as Box<dyn Channel>);
        Self { socket, peer }
    }

    fn encrypted(self, host: &str) -> Self {
        // Nothing may have come behind the reply to STARTTLS.
        drop(self.peer.into_stream());
        let stream = self.socket.try_clone().unwrap();
        let stream = encrypt(stream, &anyone(), host).unwrap().into_stream();
        Self { socket: self.socket, peer: Peer::over(Box::new(stream)) }
    }
}

impl Stage<'_> {
    /// Plays a script.
    ///
    /// # Panics
    /// With the number of the line at which something else happened than it says.
    pub fn play(&self, name: &str, script: &str) {
        let mut with = Conversation::with(self.server.address());
        let mut program: Option<Vec<&str>> = None;
        for (index, line) in script.lines().enumerate() {
            let place = format!("{name}:{}: {line}", index + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (step, rest) = line.split_once(' ').unwrap_or((line, ""));
            let words: Vec<&str> = rest.split(' ').collect();
            match (step, words.as_slice()) {
                ("C:", _) => with.peer.send(format!("{rest}\r\n")).unwrap(),
                ("S:", _) => {
                    let reply =
                        with.peer.reply().unwrap_or_else(|error| panic!("{place}: {error}"));
                    assert!(reply.line().starts_with(rest), "{place}: {reply:?}");
                }
                ("connect", &[listener]) => {
                    let [second, third] = self.others;
                    with = Conversation::with(match listener {
                        "1" => self.server.address(),
                        "2" => second,
                        "3" => third,
                        _ => panic!("{place}: no such listener"),
                    });
                }
                ("starttls", &[host]) => {
                    let reply = with.peer.say("STARTTLS").unwrap();
                    assert_eq!(reply.code, 220, "{place}: {reply:?}");
                    with = with.encrypted(host);
                }
                ("handshake", &[host]) => with = with.encrypted(host),
                ("auth", &[user, password]) => {
                    let response = STANDARD.encode(format!("\0{user}\0{password}"));
                    with.peer.send(format!("AUTH PLAIN {response}\r\n")).unwrap();
                }
                ("message", &[id]) => match program.take() {
                    Some(arguments) => {
                        let said = self.server.sendmail(&arguments, &message(id));
                        assert_eq!((said.status, said.errors.as_str()), (0, ""), "{place}");
                    }
                    None => {
                        let reply = with.peer.data(&message(id)).unwrap();
                        assert_eq!(reply.code, 250, "{place}: {reply:?}");
                    }
                },
                ("refused", &[id, ..]) => {
                    let reply = with.peer.data(&message(id)).unwrap();
                    let beginning = &rest[id.len() + 1..];
                    assert!(reply.line().starts_with(beginning), "{place}: {reply:?}");
                }
                ("sendmail", _) => program = Some(words),
                ("maildir", &[path, id, ref text @ ..]) => {
                    let maildir = Maildir::new(self.server.path(path));
                    wait_until(&place, SOON, || {
                        let texts = maildir.texts();
                        texts.iter().any(|content| is_message(content, id) && holds(content, text))
                    });
                }
                ("file", &[path, ..]) => {
                    let text = &rest[path.len() + 1..];
                    wait_until(&place, SOON, || {
                        let content = fs::read(self.server.path(path)).unwrap_or_default();
                        String::from_utf8_lossy(&content).contains(text)
                    });
                }
                ("sink" | "lmtp", &[sender, recipient, id, ref text @ ..]) => {
                    let sink = if step == "sink" { self.sink } else { self.lmtp };
                    wait_until(&place, SOON, || {
                        sink.received().iter().any(|received| {
                            is_like(&received.sender, sender)
                                && received.recipients.iter().any(|one| one == recipient)
                                && is_message(&received.content, id)
                                && holds(&received.content, text)
                        })
                    });
                }
                ("client", &[address, helo, id]) => {
                    let address = Some(address.parse().unwrap());
                    let received = self.sink.received();
                    assert!(
                        received.iter().any(|received| {
                            is_message(&received.content, id)
                                && (received.client, received.helo.as_str()) == (address, helo)
                        }),
                        "{place}: {received:?}"
                    );
                }
                ("log", _) => {
                    self.server.wait_for_log(rest);
                }
                ("kept", &[id]) => {
                    for received in [self.sink.received(), self.lmtp.received()].concat() {
                        assert!(!is_message(&received.content, id), "{place}: {received:?}");
                    }
                }
                _ => panic!("{place}: not a step"),
            }
        }
    }
}

/// Whether a sender is the expected one, in which an asterisk stands for anything.
fn is_like(sender: &str, expected: &str) -> bool {
    match expected.split_once('*') {
        Some((beginning, end)) => sender.starts_with(beginning) && sender.ends_with(end),
        None => sender == expected,
    }
}

/// Whether a line begins with these words, or there are none.
fn holds(content: &str, words: &[&str]) -> bool {
    let text = words.join(" ");
    content.lines().any(|line| line.starts_with(&text))
}

/// Whether this is the message of that name, and not one of a longer one.
fn is_message(text: &str, id: &str) -> bool {
    text.lines().any(|line| line.strip_prefix("Subject: test ").is_some_and(|name| name == id))
}
