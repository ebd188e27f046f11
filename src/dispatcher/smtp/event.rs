//! The log lines of a session: an interface that people's log parsers rely on.
//!
//! Nothing from outside reaches a line unescaped, so that no client can forge a field or a line.
//! Texts: the SMTP page of the specification, 6.1.

use super::action::Ending;
use super::settings::SessionId;
use crate::model::{EnvelopeId, Mailbox, MessageId, ReversePath};
use crate::proto::escape::{quoted, word};

/// Something to be logged about a session.
#[derive(Clone, Debug, PartialEq)]
pub enum LogEvent {
    /// A line too long, or a command sent too early.
    BadInput {
        /// The reply sent.
        reply: String,
    },
    /// The client's name is known.
    Connected {
        /// Its address, see [`Peer::address`](super::Peer::address).
        address: String,
        /// Its name by reverse look-up.
        host: String,
    },
    /// The session ended; `None` for a quit or a close by us.
    Disconnected(Option<Ending>),
    /// A recipient of the message just committed.
    Envelope {
        /// The last envelope made for it.
        id: EnvelopeId,
        /// Sender of the message.
        sender: ReversePath,
        /// The recipient as the client gave it.
        recipient: Mailbox,
    },
    /// A reply of class 4 or 5.
    FailedCommand {
        /// The command line as received.
        command: Vec<u8>,
        /// The reply sent.
        reply: String,
    },
    /// A message has too many Received headers.
    LoopDetected,
    /// A message was committed.
    Message {
        /// Its number.
        id: MessageId,
        /// Its size as stored, in bytes.
        size: u64,
        /// Number of accepted RCPT commands.
        recipients: usize,
        /// Whether the client greeted with EHLO.
        extended: bool,
    },
}

/// How important a line is: decides the priority in syslog.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// Normal operation.
    Info,
    /// Something that an administrator should look at.
    Warning,
}

impl LogEvent {
    /// How important it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::LoopDetected => Severity::Warning,
            _ => Severity::Info,
        }
    }

    /// The line, without line end.
    #[must_use]
    pub fn to_line(&self, session: SessionId) -> String {
        match self {
            Self::BadInput { reply } => {
                format!("{session} smtp bad-input result=\"{}\"", quoted(reply.as_bytes()))
            }
            Self::Connected { address, host } => format!(
                "{session} smtp connected address={} host={}",
                word(address.as_bytes()),
                word(host.as_bytes())
            ),
            Self::Disconnected(ending) => {
                format!("{session} smtp disconnected reason={}", reason(ending.as_ref()))
            }
            Self::Envelope { id, sender, recipient } => format!(
                "{session} smtp envelope evpid={id} from=<{}> to=<{}>",
                word(sender.as_str().as_bytes()),
                word(recipient.as_str().as_bytes())
            ),
            Self::FailedCommand { command, reply } => format!(
                "{session} smtp failed-command command=\"{}\" result=\"{}\"",
                quoted(command),
                quoted(reply.as_bytes())
            ),
            Self::LoopDetected => "warn: loop detected".to_owned(),
            Self::Message { id, size, recipients, extended } => format!(
                "{session} smtp message msgid={id} size={size} nrcpt={recipients} proto={}",
                if *extended { "ESMTP" } else { "SMTP" }
            ),
        }
    }
}

fn reason(ending: Option<&Ending>) -> String {
    match ending {
        None => "quit".to_owned(),
        Some(Ending::Disconnect) => "disconnect".to_owned(),
        Some(Ending::IoError(text)) => format!("\"io-error: {}\"", quoted(text.as_bytes())),
        Some(Ending::Timeout) => "timeout".to_owned(),
        Some(Ending::TlsUnavailable) => "tls-accept-failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_that_log_parsers_know() {
        let message = MessageId::new(0xabc).unwrap();
        let cases = [
            (
                LogEvent::Connected { address: "[::1]".into(), host: "<unknown>".into() },
                "00000000000000ff smtp connected address=[::1] host=<unknown>",
            ),
            (
                LogEvent::Connected { address: "10.9.8.7".into(), host: "a b\n".into() },
                "00000000000000ff smtp connected address=10.9.8.7 host=a\\040b\\012",
            ),
            (
                LogEvent::FailedCommand {
                    command: b"FOO \"x\\\r\x00\xe9".to_vec(),
                    reply: "500 5.5.1 Invalid command: Command unrecognized".into(),
                },
                "00000000000000ff smtp failed-command command=\"FOO \\\"x\\\\\\^M\\^@\\M-i\" \
                 result=\"500 5.5.1 Invalid command: Command unrecognized\"",
            ),
            (
                LogEvent::BadInput { reply: "500 5.0.0 Line too long".into() },
                "00000000000000ff smtp bad-input result=\"500 5.0.0 Line too long\"",
            ),
            (
                LogEvent::Message { id: message, size: 12, recipients: 2, extended: true },
                "00000000000000ff smtp message msgid=00000abc size=12 nrcpt=2 proto=ESMTP",
            ),
            (
                LogEvent::Envelope {
                    id: message.envelope(std::num::NonZeroU32::MIN),
                    sender: ReversePath::NULL,
                    recipient: Mailbox::parse("c@d").unwrap(),
                },
                "00000000000000ff smtp envelope evpid=00000abc00000001 from=<> to=<c@d>",
            ),
            (LogEvent::Disconnected(None), "00000000000000ff smtp disconnected reason=quit"),
            (
                LogEvent::Disconnected(Some(Ending::Timeout)),
                "00000000000000ff smtp disconnected reason=timeout",
            ),
            (
                LogEvent::Disconnected(Some(Ending::IoError("reset".into()))),
                "00000000000000ff smtp disconnected reason=\"io-error: reset\"",
            ),
            (
                LogEvent::Disconnected(Some(Ending::TlsUnavailable)),
                "00000000000000ff smtp disconnected reason=tls-accept-failed",
            ),
            (LogEvent::LoopDetected, "warn: loop detected"),
        ];
        for (event, line) in cases {
            assert_eq!(event.to_line(SessionId(255)), line);
        }
    }
}
