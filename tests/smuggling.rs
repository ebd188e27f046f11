//! A second message hidden in the content of the first: what one server takes for content, and the
//! next one for the end of it and for commands (CVE-2023-51764, -51765 and -51766).
//!
//! Content comes to us and goes on to Postfix, to Exim, and to a server that takes whatever looks a
//! little like the end of a line for one: as many messages arrive as we have accepted. Content goes to
//! Postfix and Exim and comes on to us: as many arrive as they have accepted. Every form of an end that
//! is none is tried, in one write and with a pause after it, by DATA and by BDAT.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::hops::{EXIM, Hop, POSTFIX};
use common::maildir::{Maildir, header};
use common::peer::Peer;
use common::peers::{PeerServer, Peers};
use common::server::{Server, free_address};
use common::spec_case;
use common::wait::wait_until;

/// How long a batch of messages may be under way.
const UNDER_WAY: Duration = Duration::from_secs(90);
/// Between what should not be the end and what follows: long enough for a read of its own.
const PAUSE: Duration = Duration::from_millis(20);

/// The end of content, which shows that the tests would see a second message.
const END: (&str, &[u8]) = ("CRLF . CRLF", b"\r\n.\r\n");

/// What is not the end of content, although some server has taken it for one.
const FORMS: [(&str, &[u8]); 40] = [
    ("LF . LF", b"\n.\n"),
    ("LF . CRLF", b"\n.\r\n"),
    ("CRLF . LF", b"\r\n.\n"),
    ("CR . CR", b"\r.\r"),
    ("CR . LF", b"\r.\n"),
    ("LF . CR", b"\n.\r"),
    ("CR . CRLF", b"\r.\r\n"),
    ("CRLF . CR", b"\r\n.\r"),
    ("CRLF . CR CRLF", b"\r\n.\r\r\n"),
    ("LF . CR CRLF", b"\n.\r\r\n"),
    ("CR . CR CRLF", b"\r.\r\r\n"),
    ("LF CR . LF CR", b"\n\r.\n\r"),
    ("LF CR . CRLF", b"\n\r.\r\n"),
    ("CRLF CR . CRLF", b"\r\n\r.\r\n"),
    ("CRLF . LF CRLF", b"\r\n.\n\r\n"),
    ("LF LF . LF LF", b"\n\n.\n\n"),
    ("LF . LF CRLF", b"\n.\n\r\n"),
    ("CRLF NUL . CRLF", b"\r\n\0.\r\n"),
    ("CRLF . NUL CRLF", b"\r\n.\0\r\n"),
    ("CRLF . NUL LF", b"\r\n.\0\n"),
    ("CRLF . NUL text CRLF", b"\r\n.\0zzz\r\n"),
    ("CR NUL LF . CRLF", b"\r\0\n.\r\n"),
    ("CRLF . CR NUL LF", b"\r\n.\r\0\n"),
    ("LF NUL . NUL LF", b"\n\0.\0\n"),
    ("CRLF . blank CRLF", b"\r\n. \r\n"),
    ("CRLF . tab CRLF", b"\r\n.\t\r\n"),
    ("CRLF blank . CRLF", b"\r\n .\r\n"),
    ("CRLF . . CRLF", b"\r\n..\r\n"),
    ("LF . . CRLF", b"\n..\r\n"),
    ("LF . . LF", b"\n..\n"),
    ("CRLF . . LF", b"\r\n..\n"),
    ("CR . . CRLF", b"\r..\r\n"),
    ("CRLF . CR . CRLF", b"\r\n.\r.\r\n"),
    ("CRLF . LF . CRLF", b"\r\n.\n.\r\n"),
    ("VT . VT", b"\x0b.\x0b"),
    ("FF . FF", b"\x0c.\x0c"),
    ("NEL . NEL", b"\x85.\x85"),
    ("U+0085 . U+0085", b"\xc2\x85.\xc2\x85"),
    ("U+2028 . U+2028", b"\xe2\x80\xa8.\xe2\x80\xa8"),
    ("CRLF U+FF0E CRLF", b"\r\n\xef\xbc\x8e\r\n"),
];
/// Lengths at which some relay breaks a line: what follows there is a dot.
const LENGTHS: [usize; 6] = [990, 998, 1000, 1024, 2048, 4096];

/// How content is handed over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// DATA, in one write.
    Data,
    /// DATA, with a pause behind what should not be the end.
    DataWithPause,
    /// BDAT, one chunk.
    Chunk,
    /// BDAT, with the last byte of what should not be the end in a chunk of its own.
    Chunks,
}

/// One attempt: content that hides a second message behind `form`.
#[derive(Clone)]
struct Attempt {
    number: usize,
    name: String,
    form: Vec<u8>,
    way: Way,
}

impl Attempt {
    /// Every form in every one of `ways`; the first ones are those that are no attempt but two
    /// messages.
    fn all(ways: &[Way]) -> Vec<Self> {
        let long = LENGTHS.map(|length| {
            let line = [b"\r\n".to_vec(), vec![b'x'; length], b".\r\n".to_vec()].concat();
            (format!("a dot after {length} bytes"), line)
        });
        let listed = [END].into_iter().chain(FORMS);
        let forms = listed.map(|(name, form)| (name.to_owned(), form.to_vec())).chain(long);
        let each = forms.flat_map(|(name, form)| {
            ways.iter().map(move |way| (name.clone(), form.clone(), *way))
        });
        let attempt = |(number, (name, form, way))| Self { number, name, form, way };
        each.enumerate().map(attempt).collect()
    }

    /// Whether it really is two messages, since DATA ends where it says so.
    fn is_control(&self) -> bool {
        self.form == END.1 && matches!(self.way, Way::Data | Way::DataWithPause)
    }

    /// What precedes the end of content, up to and with what should not be one.
    fn carrier(&self) -> Vec<u8> {
        let text = format!("From: <s@client.example>\r\nSubject: carrier {}\r\n\r\nx", self.number);
        [text.into_bytes(), self.form.clone()].concat()
    }

    /// What follows: commands, for a server that is deceived.
    fn hidden(&self, domain: &str) -> String {
        format!(
            "MAIL FROM:<forged@client.example>\r\nRCPT TO:<hidden@{domain}>\r\nDATA\r\n\
             From: <forged@client.example>\r\nSubject: hidden {}\r\n\r\nhidden\r\n",
            self.number
        )
    }

    /// Sends it to a server; the replies, from the one to the content on.
    fn send(&self, to: SocketAddr, domain: &str) -> Vec<String> {
        let mut peer = Peer::greeted(to).unwrap();
        for command in ["MAIL FROM:<s@client.example>", &format!("RCPT TO:<carrier@{domain}>")] {
            let reply = peer.say(command).unwrap();
            assert_eq!(reply.code, 250, "{command}: {reply:?}");
        }
        let (carrier, hidden) = (self.carrier(), self.hidden(domain));
        match self.way {
            Way::Data | Way::DataWithPause => {
                assert_eq!(peer.say("DATA").unwrap().code, 354);
                let rest = hidden + ".\r\nQUIT\r\n";
                if self.way == Way::Data {
                    peer.send([&carrier, rest.as_bytes()].concat()).unwrap();
                } else {
                    peer.send(carrier).unwrap();
                    thread::sleep(PAUSE);
                    // A server that saw through it may have hung up.
                    let _ = peer.send(rest);
                }
            }
            Way::Chunk => {
                let content = [&carrier, hidden.as_bytes()].concat();
                let command = format!("BDAT {} LAST\r\n", content.len());
                peer.send([command.as_bytes(), &content, b"QUIT\r\n"].concat()).unwrap();
            }
            Way::Chunks => {
                let (first, rest) = carrier.split_at(carrier.len() - 1);
                let rest = [rest, hidden.as_bytes()].concat();
                peer.send(format!("BDAT {}\r\n", first.len())).unwrap();
                peer.send(first).unwrap();
                let reply = peer.reply().unwrap();
                assert_eq!(reply.code, 250, "{self}: {reply:?}");
                peer.send(format!("BDAT {} LAST\r\n", rest.len())).unwrap();
                peer.send([&rest[..], b"QUIT\r\n"].concat()).unwrap();
            }
        }
        std::iter::from_fn(|| Some(peer.reply().ok()?.line())).collect()
    }
}

impl Display for Attempt {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {:?}", self.name, self.way)
    }
}

/// How many messages the replies to an attempt say are accepted: those that name one in the queue.
fn accepted(replies: &[String]) -> usize {
    let names_message = |line: &&String| {
        line.starts_with("250 ")
            && ["Message accepted", "queued as", "OK id="].iter().any(|words| line.contains(words))
    };
    replies.iter().filter(names_message).count()
}

/// Sends every attempt to a peer; how many messages it accepted of each.
fn send_all(attempts: &[Attempt], to: SocketAddr, domain: &str) -> Vec<usize> {
    let send = |attempt: &Attempt| {
        let replies = attempt.send(to, domain);
        if attempt.is_control() {
            assert_eq!(accepted(&replies), 2, "{attempt}: {replies:?}");
        }
        accepted(&replies)
    };
    attempts.iter().map(send).collect()
}

/// Sends every attempt to our server, which must see through each of them.
fn send_all_to_us(attempts: &[Attempt], server: &Server, domain: &str) -> Vec<usize> {
    let send = |attempt: &Attempt| {
        let replies = attempt.send(server.address(), domain);
        let count = accepted(&replies);
        if attempt.is_control() {
            assert_eq!(count, 2, "{attempt}: {replies:?}");
        } else {
            // The content is accepted or refused once, and QUIT is the next command.
            assert_eq!(replies.len(), 2, "{attempt}: {replies:?}");
            assert!(count == 1 || replies[0].starts_with('5'), "{attempt}: {replies:?}");
            assert!(replies[1].starts_with("221 "), "{attempt}: {replies:?}");
        }
        count
    };
    attempts.iter().map(send).collect()
}

/// As many messages of each attempt have arrived as were accepted.
fn compare(attempts: &[Attempt], accepted: &[usize], arrived: &[String]) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for message in arrived {
        let subject = header(message, "Subject").expect("every message has a subject");
        *counts.entry(subject).or_default() += 1;
    }
    for (attempt, accepted) in attempts.iter().zip(accepted) {
        let carriers = counts.remove(&format!("carrier {}", attempt.number)).unwrap_or(0);
        let hidden = counts.remove(&format!("hidden {}", attempt.number)).unwrap_or(0);
        assert_eq!(
            (carriers, hidden),
            (usize::from(*accepted > 0), accepted.saturating_sub(1)),
            "{attempt}"
        );
    }
    assert_eq!(counts, BTreeMap::new(), "messages that nobody sent");
}

/// We relay what is for `second.example` to `peer`, and deliver what it brings for `first.example`.
fn server_before(peer: SocketAddr, back: SocketAddr) -> Server {
    let config = r#"
@LISTEN@
listen on @BACK_HOST@ port @BACK_PORT@ tag "back"
mta limit conn-delay-route 0
mta limit conn-delay-relay 0
table users { "@" = "@USER@" }
action "out" relay host "smtp://@PEER@"
action "local" maildir "@DIR@/mail/all" virtual <users>
match tag "back" from any for domain "first.example" action "local"
match from any for domain "second.example" action "out"
match from any for domain "client.example" action "local"
"#
    .replace("@BACK_HOST@", &back.ip().to_string())
    .replace("@BACK_PORT@", &back.port().to_string())
    .replace("@PEER@", &peer.to_string());
    Server::start(&config)
}

/// Content goes through us to a peer, and through the peer to us. `queue` is where the peer keeps
/// messages, below its directory.
fn both_directions(start: impl FnOnce(SocketAddr, SocketAddr) -> PeerServer, queue: &[&str]) {
    let (theirs, back) = (free_address(), free_address());
    let server = server_before(theirs, back);
    let peer = start(theirs, back);
    let queues: Vec<_> = queue.iter().map(|name| peer.work().join(name)).collect();
    let nothing_under_way = || {
        let theirs_are_empty = || queues.iter().all(|queue| files(queue) == 0);
        // Theirs before and after ours: what leaves one for the other meanwhile is seen in it.
        wait_until("all queues are empty", UNDER_WAY, || {
            theirs_are_empty() && server.queue().is_empty() && theirs_are_empty()
        });
    };

    let attempts = Attempt::all(&[Way::Data, Way::DataWithPause, Way::Chunk, Way::Chunks]);
    let accepted = send_all_to_us(&attempts, &server, "second.example");
    nothing_under_way();
    compare(&attempts, &accepted, &Maildir::new(peer.work().join("mail/all")).texts());

    let attempts = Attempt::all(&[Way::Data, Way::DataWithPause]);
    let accepted = send_all(&attempts, theirs, "first.example");
    nothing_under_way();
    compare(&attempts, &accepted, &server.maildir("all").texts());
}

/// How many files are below a directory.
fn files(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let count = |path: &Path| if path.is_dir() { files(path) } else { 1 };
    // What is gone between the two is under way no more.
    entries.map(|entry| entry.map_or(0, |entry| count(&entry.path()))).sum()
}

#[test]
fn one_message_stays_one_on_its_way_to_postfix_and_from_there() {
    let Some(peers) = Peers::with(&[POSTFIX]) else { return };
    // As it was before it knew of all this.
    let settings = "smtpd_forbid_bare_newline = no\nsmtpd_forbid_unauth_pipelining = no\n";
    let start = |address: SocketAddr, back: SocketAddr| {
        hop("smuggling-postfix", address, back, settings).postfix(&peers)
    };
    both_directions(start, &["spool/maildrop", "spool/incoming", "spool/active", "spool/deferred"]);
}

#[test]
fn one_message_stays_one_on_its_way_to_exim_and_from_there() {
    let Some(peers) = Peers::with(&[EXIM]) else { return };
    let settings = "smtp_accept_queue_per_connection = 0\nsmtp_enforce_sync = false\n\
                    smtp_accept_max = 0\n";
    let start = |address: SocketAddr, back: SocketAddr| {
        hop("smuggling-exim", address, back, settings).exim(&peers)
    };
    both_directions(start, &["spool/input"]);
}

fn hop<'a>(name: &'a str, address: SocketAddr, back: SocketAddr, settings: &'a str) -> Hop<'a> {
    let (returns, keeps) = ("first.example", Some("second.example"));
    Hop { name, address, back, returns, keeps, settings }
}

#[test]
fn one_message_stays_one_on_its_way_to_a_server_that_takes_everything_for_an_end() {
    let hop = Credulous::start();
    let server = server_before(hop.address, free_address());
    let attempts = Attempt::all(&[Way::Data, Way::DataWithPause, Way::Chunk, Way::Chunks]);
    // It is as credulous as it should be.
    let deceived = |attempt: &&Attempt| accepted(&attempt.send(hop.address, "x.example")) == 2;
    let direct =
        attempts.iter().filter(|attempt| attempt.way == Way::Data).filter(deceived).count();
    assert!(direct > FORMS.len() / 3, "{direct}");
    hop.messages.lock().unwrap().clear();

    let accepted = send_all_to_us(&attempts, &server, "second.example");
    wait_until("the queue is empty", UNDER_WAY, || server.queue().is_empty());
    compare(&attempts, &accepted, &hop.messages.lock().unwrap());
    // A hidden message that is content, and the words of a real one.
    for number in [150, 151] {
        spec_case::ran("smtp", number);
    }
}

/// A server for which CR, LF, and both end a line, of commands as of content.
struct Credulous {
    address: SocketAddr,
    messages: Arc<Mutex<Vec<String>>>,
}

impl Credulous {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let messages = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&messages);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let taken = Arc::clone(&taken);
                // The end of a connection is the client's business.
                thread::spawn(move || converse(&stream, &taken));
            }
        });
        Self { address, messages }
    }
}

fn converse(mut stream: &TcpStream, taken: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut input = Lines { bytes: BufReader::new(stream).bytes(), after_cr: false };
    let mut content: Option<String> = None;
    stream.write_all(b"220 credulous.example\r\n")?;
    while let Some(line) = input.line()? {
        let reply = match &mut content {
            Some(text) if line != "." => {
                text.push_str(line.strip_prefix('.').unwrap_or(&line));
                text.push('\n');
                continue;
            }
            Some(text) => {
                taken.lock().unwrap().push(std::mem::take(text));
                content = None;
                "250 2.0.0 queued as one more"
            }
            None if line == "DATA" => {
                content = Some(String::new());
                "354 go on"
            }
            None if line == "QUIT" => return stream.write_all(b"221 bye\r\n"),
            None => "250 ok",
        };
        stream.write_all(format!("{reply}\r\n").as_bytes())?;
    }
    Ok(())
}

/// What comes, cut at CR, at LF, and at both together.
struct Lines<R: Read> {
    bytes: std::io::Bytes<R>,
    after_cr: bool,
}

impl<R: Read> Lines<R> {
    fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut line = Vec::new();
        while let Some(byte) = self.bytes.next().transpose()? {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr && line.is_empty() => {}
                b'\r' | b'\n' => return Ok(Some(String::from_utf8_lossy(&line).into_owned())),
                _ => line.push(byte),
            }
        }
        Ok(None)
    }
}
