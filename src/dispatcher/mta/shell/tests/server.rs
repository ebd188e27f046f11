//! A server on loopback that does as it is told and reports what it saw.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A server that speaks enough SMTP or LMTP, with its own opinions.
#[derive(Clone, Debug)]
pub struct Manners {
    pub banner: &'static str,
    pub ehlo: &'static str,
    /// Reply to a recipient, by its local part.
    pub recipients: HashMap<&'static str, &'static str>,
    /// Reply to the message; LMTP: to each recipient in turn.
    pub message: Vec<&'static str>,
    /// Closes after DATA was answered.
    pub drops_data: bool,
    /// Wait before every reply.
    pub pace: Duration,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            banner: "220 fake",
            ehlo: "250-fake\r\n250 PIPELINING",
            recipients: HashMap::new(),
            message: vec!["250 queued"],
            drops_data: false,
            pace: Duration::ZERO,
        }
    }
}

/// What a server saw: the number of the connection and a command, or the whole message.
pub type Seen = (usize, String);

pub struct Server {
    pub address: SocketAddr,
    pub seen: mpsc::UnboundedReceiver<Seen>,
}

impl Server {
    pub async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (report, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for number in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                tokio::spawn(serve(stream, manners.clone(), number, report.clone()));
            }
        });
        Self { address, seen }
    }

    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// The next `count` things seen.
    pub async fn seen(&mut self, count: usize) -> Vec<Seen> {
        let mut all = Vec::new();
        while all.len() < count {
            let one = timeout(Duration::from_secs(10), self.seen.recv()).await;
            all.push(one.unwrap_or_else(|_| panic!("only {all:?}")).unwrap());
        }
        all
    }
}

pub async fn serve(
    stream: TcpStream,
    manners: Manners,
    number: usize,
    report: mpsc::UnboundedSender<Seen>,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut reply = async |text: &str| {
        if !manners.pace.is_zero() {
            tokio::time::sleep(manners.pace).await;
        }
        write.write_all(format!("{text}\r\n").as_bytes()).await.ok()
    };
    reply(manners.banner).await?;
    let mut is_lmtp = false;
    let mut accepted = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if read.read_line(&mut line).await.ok()? == 0 {
            let _ = report.send((number, "(closed)".into()));
            return None;
        }
        let command = line.trim_end_matches("\r\n").to_owned();
        assert!(!command.contains(['\r', '\n']), "{command:?}");
        let _ = report.send((number, command.clone()));
        let verb = command.split(' ').next().unwrap_or_default();
        match verb {
            "EHLO" | "LHLO" => {
                is_lmtp = verb == "LHLO";
                reply(manners.ehlo).await?;
            }
            "RCPT" => {
                let local = command.trim_start_matches("RCPT TO:<").split('@').next()?;
                let text = manners.recipients.get(local).copied().unwrap_or("250 rcpt");
                accepted += usize::from(text.starts_with('2'));
                reply(text).await?;
            }
            "DATA" if accepted == 0 => reply("503 no recipients").await?,
            "DATA" => {
                reply("354 go").await?;
                if manners.drops_data {
                    return None;
                }
                let mut message = Vec::new();
                while !message.ends_with(b"\r\n.\r\n") {
                    if read.read_until(b'\n', &mut message).await.ok()? == 0 {
                        return None;
                    }
                }
                let _ = report.send((number, String::from_utf8(message).ok()?));
                let replies = if is_lmtp { accepted } else { 1 };
                accepted = 0;
                for text in manners.message.iter().cycle().take(replies) {
                    reply(text).await?;
                }
            }
            "QUIT" => {
                reply("221 bye").await?;
                return None;
            }
            "RSET" => {
                accepted = 0;
                reply("250 reset").await?;
            }
            _ => reply("250 ok").await?,
        }
    }
}
