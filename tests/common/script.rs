//! Scripts of SMTP sessions, and of what must have arrived where afterwards.
//!
//! One step a line; `#` begins a comment line. The first line of a session is the greeting.
//!
//! | step | does |
//! |---|---|
//! | `C: LINE` | sends a line |
//! | `S: BEGINNING` | reads a reply, whose last line begins so |
//! | `connect 1`, `connect 2` | goes on in a new session, with the first or the second listener |
//! | `message NAME` | sends DATA and a message of this name, which must be taken |
//! | `sendmail ARGUMENTS`, `message NAME` | submits the message by that program instead |
//! | `maildir PATH NAME` | waits for the message in a Maildir |
//! | `file PATH TEXT` | waits for text in a file |
//! | `sink SENDER RECIPIENT NAME` | waits for the message at the smart host or exchanger |
//! | `lmtp SENDER RECIPIENT NAME` | waits for the message at the LMTP server |
//! | `log TEXT` | waits for a log line that holds the text |
//! | `kept NAME` | the message has not come to any of these servers so far |

use std::fs;
use std::net::SocketAddr;

use super::maildir::Maildir;
use super::peer::{Peer, message};
use super::server::Server;
use super::sink::Sink;
use super::wait::{SOON, wait_until};

/// Who takes part besides the server.
pub struct Stage<'a> {
    /// The server under test.
    pub server: &'a Server,
    /// Its second listener, if it has one.
    pub second: SocketAddr,
    /// The smart host or exchanger.
    pub sink: &'a Sink,
    /// The LMTP server.
    pub lmtp: &'a Sink,
}

impl Stage<'_> {
    /// Plays a script.
    ///
    /// # Panics
    /// With the number of the line at which something else happened than it says.
    pub fn play(&self, name: &str, script: &str) {
        let mut peer = Peer::connect(self.server.address()).unwrap();
        let mut program: Option<Vec<&str>> = None;
        for (index, line) in script.lines().enumerate() {
            let place = format!("{name}:{}: {line}", index + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (step, rest) = line.split_once(' ').unwrap_or((line, ""));
            let words: Vec<&str> = rest.split(' ').collect();
            match (step, words.as_slice()) {
                ("C:", _) => peer.send(format!("{rest}\r\n")).unwrap(),
                ("S:", _) => {
                    let reply = peer.reply().unwrap_or_else(|error| panic!("{place}: {error}"));
                    assert!(reply.line().starts_with(rest), "{place}: {reply:?}");
                }
                ("connect", &[listener]) => {
                    let second = listener == "2";
                    let address = if second { self.second } else { self.server.address() };
                    peer = Peer::connect(address).unwrap();
                }
                ("message", &[id]) => match program.take() {
                    Some(arguments) => {
                        let said = self.server.sendmail(&arguments, &message(id));
                        assert_eq!((said.status, said.errors.as_str()), (0, ""), "{place}");
                    }
                    None => {
                        let reply = peer.data(&message(id)).unwrap();
                        assert_eq!(reply.code, 250, "{place}: {reply:?}");
                    }
                },
                ("sendmail", _) => program = Some(words),
                ("maildir", &[path, id]) => {
                    let maildir = Maildir::new(self.server.path(path));
                    wait_until(&place, SOON, || {
                        maildir.texts().iter().any(|text| is_message(text, id))
                    });
                }
                ("file", &[path, ..]) => {
                    let text = &rest[path.len() + 1..];
                    wait_until(&place, SOON, || {
                        let content = fs::read(self.server.path(path)).unwrap_or_default();
                        String::from_utf8_lossy(&content).contains(text)
                    });
                }
                ("sink" | "lmtp", &[sender, recipient, id]) => {
                    let sink = if step == "sink" { self.sink } else { self.lmtp };
                    wait_until(&place, SOON, || {
                        sink.received().iter().any(|received| {
                            received.sender == sender
                                && received.recipients.iter().any(|one| one == recipient)
                                && is_message(&received.content, id)
                        })
                    });
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

/// Whether this is the message of that name, and not one of a longer one.
fn is_message(text: &str, id: &str) -> bool {
    text.lines().any(|line| line.strip_prefix("Subject: test ").is_some_and(|name| name == id))
}
