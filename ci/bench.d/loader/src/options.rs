//! What the command line says.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Why a command failed, for people.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Most messages of one run: a benchmark is bounded.
const MAX_MESSAGES: usize = 1_000_000;

/// Whether, and how, sessions are secured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Security {
    /// Not at all.
    None,
    /// STARTTLS, each time with a handshake that knows nothing of earlier ones.
    New,
    /// STARTTLS that resumes an earlier session where the server can.
    Resumed,
    /// The same with TLS 1.2.
    ResumedOld,
}

/// Where slow clients take their time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Slowness {
    /// In a command.
    Command,
    /// In the content of a message.
    Content,
    /// Half of them in a command, half in the content.
    Either,
    /// In the first record of TLS.
    Handshake,
}

/// All options of all commands; each reads those that it needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server under test.
    pub to: Option<SocketAddr>,
    /// Where to listen for what it relays.
    pub sink: Option<SocketAddr>,
    /// Below which directory its Maildirs are.
    pub mail: Option<PathBuf>,
    /// File for plain appends, on the disk of the spool.
    pub disk: Option<PathBuf>,
    /// Names the run in every message.
    pub run: String,
    /// Whether sessions are secured.
    pub security: Security,
    /// Where slow clients are slow.
    pub slowness: Slowness,
    /// Source addresses that take turns; 0: the one that the system chooses.
    pub sources: usize,
    /// Sessions at once.
    pub sessions: usize,
    /// Messages in all.
    pub messages: usize,
    /// Messages of one session, after which it is closed and another one begins.
    pub per_session: usize,
    /// Recipients of one message.
    pub recipients: usize,
    /// Bytes of a message.
    pub size: usize,
    /// Domain of the recipients.
    pub domain: String,
    /// Mailboxes, `u0` to `uN`, that take turns.
    pub mailboxes: usize,
    /// How long nothing may arrive before the rest counts as lost.
    pub patience: Duration,
}

impl Options {
    /// Reads `--name value` pairs.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self {
            to: None,
            sink: None,
            mail: None,
            disk: None,
            run: "run".into(),
            security: Security::None,
            slowness: Slowness::Either,
            sources: 0,
            sessions: 1,
            messages: 1,
            per_session: 1,
            recipients: 1,
            size: 4096,
            domain: "bench.test".into(),
            mailboxes: 1,
            patience: Duration::from_secs(20),
        };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--to" => options.to = Some(loopback(&value)?),
                "--sink" => options.sink = Some(loopback(&value)?),
                "--mail" => options.mail = Some(value.into()),
                "--disk" => options.disk = Some(value.into()),
                "--tls" => options.security = security(&value)?,
                "--slow-in" => options.slowness = slowness(&value)?,
                "--sources" => options.sources = value.parse()?,
                "--run" => options.run = value,
                "--sessions" => options.sessions = positive(&value)?,
                "--messages" => options.messages = positive(&value)?.min(MAX_MESSAGES),
                "--per-session" => options.per_session = positive(&value)?,
                "--recipients" => options.recipients = positive(&value)?,
                "--size" => options.size = value.parse()?,
                "--domain" => options.domain = value,
                "--mailboxes" => options.mailboxes = positive(&value)?,
                "--patience" => options.patience = Duration::from_secs(value.parse()?),
                _ => return Err(format!("unknown option {name}").into()),
            }
        }
        Ok(options)
    }

    /// The server under test.
    pub fn target(&self) -> Result<SocketAddr, Failure> {
        self.to.ok_or_else(|| "--to is needed".into())
    }
}

fn security(text: &str) -> Result<Security, Failure> {
    match text {
        "no" => Ok(Security::None),
        "new" => Ok(Security::New),
        "resumed" => Ok(Security::Resumed),
        "resumed-1.2" => Ok(Security::ResumedOld),
        _ => Err(format!("{text} is none of no, new, resumed, resumed-1.2").into()),
    }
}

fn slowness(text: &str) -> Result<Slowness, Failure> {
    match text {
        "command" => Ok(Slowness::Command),
        "content" => Ok(Slowness::Content),
        "either" => Ok(Slowness::Either),
        "handshake" => Ok(Slowness::Handshake),
        _ => Err(format!("{text} is none of command, content, either, handshake").into()),
    }
}

fn positive(text: &str) -> Result<usize, Failure> {
    match text.parse()? {
        0 => Err("a number above zero is needed".into()),
        number => Ok(number),
    }
}

fn loopback(text: &str) -> Result<SocketAddr, Failure> {
    let address: SocketAddr = text.parse()?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(format!("{address} is not a loopback address").into())
}
