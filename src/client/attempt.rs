//! One attempt: a connection to one address, and a dialogue on it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use super::connection::Connection;
use super::dialogue::{Dialogue, Failure, Step, Wishes};
use super::server::Encryption;
use super::transcript::Transcript;
use super::trust::Demands;
use crate::log::system_text;
use crate::proto::stuffing::DotStuffer;

/// Bytes read, and bytes of the message that are prepared, at once.
const BLOCK: usize = 64 * 1024;

/// What one attempt needs.
pub struct Attempt<'a> {
    /// What is wanted of the server.
    pub wishes: Wishes,
    /// What is demanded of its encryption.
    pub demands: &'a Demands<'a>,
    /// The message.
    pub message: &'a [u8],
    /// `-v`, as often as it was given.
    pub verbose: u8,
    /// Where the user is told.
    pub output: &'a mut dyn Write,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The server has said what there was to say, whether yes or no.
    Complete,
    /// Nothing was sent.
    Failed,
    /// The message was sent, and its fate is not known.
    Uncertain,
}

impl Attempt<'_> {
    /// Does all of it, and says what happens.
    pub fn run(self, address: SocketAddr) -> Outcome {
        let Self { wishes, demands, message, verbose, output } = self;
        let mut transcript = Transcript::new(output, verbose);
        transcript.debug(format_args!("connecting to {address}"));
        let connection = match Connection::open(address) {
            Ok(connection) => connection,
            Err(error) => {
                transcript.tell(&broken(&error));
                return Outcome::Failed;
            }
        };
        let at_once = wishes.encryption == Encryption::Immediate;
        let dialogue = Dialogue::new(wishes);
        let mut talk = Talk { connection, dialogue, demands, message, transcript };
        if at_once && let Err(failure) = talk.encrypt() {
            talk.dialogue.broken(failure);
        }
        talk.run()
    }
}

struct Talk<'a> {
    connection: Connection,
    dialogue: Dialogue,
    demands: &'a Demands<'a>,
    message: &'a [u8],
    transcript: Transcript<'a>,
}

impl Talk<'_> {
    fn run(mut self) -> Outcome {
        loop {
            match self.dialogue.step() {
                Step::Body => match self.send_message() {
                    Ok(()) => self.dialogue.body_sent(),
                    Err(error) => self.explain(&error),
                },
                Step::Close => break,
                Step::Fail(failure) => self.transcript.tell(&failure),
                Step::Read => self.read(),
                Step::Say(command) => {
                    self.transcript.said(command.shown());
                    if let Err(error) = self.connection.write_all(command.line.as_bytes()) {
                        self.explain(&error);
                    }
                }
                Step::StartTls => match self.encrypt() {
                    Ok(()) => self.dialogue.encrypted(),
                    Err(failure) => self.dialogue.broken(failure),
                },
                Step::Tell(status) => self.transcript.tell(&status),
            }
        }
        self.connection.close();
        match (self.dialogue.is_complete(), self.dialogue.is_uncertain()) {
            (true, _) => Outcome::Complete,
            (false, true) => Outcome::Uncertain,
            (false, false) => Outcome::Failed,
        }
    }

    fn encrypt(&mut self) -> Result<(), Failure> {
        let (config, name) = self.demands.for_handshake().map_err(Failure::Internal)?;
        let verify = self.demands.verify();
        let secured = self.connection.encrypt(config, name, verify).map_err(|error| {
            let Failure::Connection(reason) = broken(&error) else { return broken(&error) };
            Failure::Connection(format!("TLS handshake failed: {reason}"))
        })?;
        let certificate = if verify { "holds" } else { "was not checked" };
        let description = secured.description();
        self.transcript.debug(format_args!("tls {description}, the certificate {certificate}"));
        Ok(())
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        match self.connection.read(&mut buffer) {
            Ok(0) => self.dialogue.broken(closed()),
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                self.transcript.heard(bytes);
                self.dialogue.receive(bytes);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => self.dialogue.broken(broken(&error)),
        }
    }

    fn send_message(&mut self) -> io::Result<()> {
        let mut stuffer = DotStuffer::default();
        let mut wire = Vec::new();
        for piece in self.message.chunks(BLOCK) {
            stuffer.push(piece, &mut wire);
            self.send(&mut wire)?;
        }
        stuffer.finish(&mut wire);
        self.send(&mut wire)
    }

    fn send(&mut self, wire: &mut Vec<u8>) -> io::Result<()> {
        self.connection.write_all(wire)?;
        self.transcript.sent(wire.len());
        wire.clear();
        Ok(())
    }

    /// Nothing can be sent any more. A server that stopped reading may have said why.
    fn explain(&mut self, error: &io::Error) {
        self.read();
        self.dialogue.broken(broken(error));
    }
}

fn closed() -> Failure {
    Failure::Connection("Connection closed by remote host".to_owned())
}

/// What an error of the connection means, in the system's words.
fn broken(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::UnexpectedEof => closed(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            Failure::Connection("Connection timed out".to_owned())
        }
        _ => Failure::Connection(system_text(error)),
    }
}
