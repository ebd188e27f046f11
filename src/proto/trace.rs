//! The Received header that a server puts in front of a message.
//!
//! Sources: RFC 5321 section 4.4; RFC 3848 for the protocol names; the SMTP page of the
//! specification, 1.10, for the exact shape.

use super::escape;
use crate::model::{Mailbox, MessageId};

/// The parts of a Received header. None of them holds a control character; a user name may, and
/// is written escaped.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Who sent the message; left out on listeners with `mask-src`.
    pub client: Option<Client<'a>>,
    /// Our name.
    pub by: &'a str,
    /// How it came.
    pub protocol: Protocol,
    /// Its number.
    pub id: MessageId,
    /// How the session is encrypted, if it is.
    pub encryption: Option<Encryption<'a>>,
    /// Its recipient, if it has exactly one.
    pub recipient: Option<&'a Mailbox>,
    /// The time, as [`crate::time::time_to_text`] writes it.
    pub date: &'a str,
}

/// Who sent a message.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Argument of its HELO or EHLO.
    pub helo: &'a str,
    /// Its name by reverse look-up.
    pub hostname: &'a str,
    /// Its address, in brackets.
    pub address: &'a str,
}

impl Received<'_> {
    /// Appends the header, in lines that end with LF, to `output`.
    pub fn write(&self, output: &mut Vec<u8>) {
        let mut push = |text: &str| output.extend_from_slice(text.as_bytes());
        push("Received: ");
        if let Some(Client { helo, hostname, address }) = self.client {
            for text in ["from ", helo, " (", hostname, " ", address, ")"] {
                push(text);
            }
        }
        for text in ["\n\tby ", self.by, " (Pillarbox) with ", self.protocol.name(), " id "] {
            push(text);
        }
        push(&self.id.to_string());
        if let Some(Encryption { description, verified, login }) = self.encryption {
            for text in [" (", description, if verified { ":YES)" } else { ":NO)" }] {
                push(text);
            }
            match login {
                Some(Login::User(user)) => {
                    push(" auth=yes user=");
                    push(&escape::word(user.as_bytes()));
                }
                Some(Login::Nobody) => push(" auth=no"),
                None => {}
            }
        }
        if let Some(recipient) = self.recipient {
            for text in ["\n\tfor <", recipient.as_str(), ">"] {
                push(text);
            }
        }
        for text in [";\n\t", self.date, "\n"] {
            push(text);
        }
    }
}

/// How a message came: the name of the protocol of its session (RFC 3848).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Protocol {
    /// Whether the client greeted with EHLO.
    pub extended: bool,
    /// Whether the session is encrypted.
    pub secure: bool,
    /// Whether the client has logged in, or is local.
    pub authenticated: bool,
    /// Whether the message was handed in with SMTPUTF8 (RFC 6531, section 4.3).
    pub utf8: bool,
}

impl Protocol {
    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        if self.utf8 {
            return match (self.secure, self.authenticated) {
                (false, false) => "UTF8SMTP",
                (false, true) => "UTF8SMTPA",
                (true, false) => "UTF8SMTPS",
                (true, true) => "UTF8SMTPSA",
            };
        }
        match (self.extended, self.secure, self.authenticated) {
            (false, false, false) => "SMTP",
            (false, false, true) => "SMTPA",
            (false, true, false) => "SMTPS",
            (false, true, true) => "SMTPSA",
            (true, false, false) => "ESMTP",
            (true, false, true) => "ESMTPA",
            (true, true, false) => "ESMTPS",
            (true, true, true) => "ESMTPSA",
        }
    }
}

/// What is told of an encrypted session.
#[derive(Clone, Copy, Debug)]
pub struct Encryption<'a> {
    /// `VERSION:CIPHER:BITS`
    pub description: &'a str,
    /// Whether the client had to show a certificate, and it holds.
    pub verified: bool,
    /// Who has logged in, on listeners that tell it.
    pub login: Option<Login<'a>>,
}

/// Whether somebody has logged in.
#[derive(Clone, Copy, Debug)]
pub enum Login<'a> {
    /// Nobody.
    Nobody,
    /// This user.
    User(&'a str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_with_smtputf8_have_names_of_their_own() {
        let plain = Protocol { utf8: true, ..Protocol::default() };
        let cases = [
            (plain, "UTF8SMTP"),
            (Protocol { extended: true, ..plain }, "UTF8SMTP"),
            (Protocol { authenticated: true, ..plain }, "UTF8SMTPA"),
            (Protocol { secure: true, ..plain }, "UTF8SMTPS"),
            (Protocol { secure: true, authenticated: true, ..plain }, "UTF8SMTPSA"),
        ];
        for (protocol, expected) in cases {
            assert_eq!(protocol.name(), expected);
        }
    }

    // Proves: the shapes of smtp cases 108, 128 and 138.
    #[test]
    fn the_header_has_its_exact_shape() {
        let recipient = Mailbox::parse("c@d").unwrap();
        let full = Received {
            client: Some(Client { helo: "a.b", hostname: "<unknown>", address: "[10.9.8.7]" }),
            by: "mx.example.org",
            protocol: Protocol { extended: true, ..Protocol::default() },
            id: MessageId::new(0xabc).unwrap(),
            encryption: None,
            recipient: Some(&recipient),
            date: "Sat, 21 Nov 2026 19:33:53 +0000 (UTC)",
        };
        let secure = Encryption {
            description: "TLSv1.3:TLS_AES_256_GCM_SHA384:256",
            verified: false,
            login: None,
        };
        let cases = [
            (
                full,
                "Received: from a.b (<unknown> [10.9.8.7])\n\
                 \tby mx.example.org (Pillarbox) with ESMTP id 00000abc\n\
                 \tfor <c@d>;\n\
                 \tSat, 21 Nov 2026 19:33:53 +0000 (UTC)\n",
            ),
            (
                Received {
                    client: None,
                    recipient: None,
                    protocol: Protocol { authenticated: true, ..Protocol::default() },
                    ..full
                },
                "Received: \n\
                 \tby mx.example.org (Pillarbox) with SMTPA id 00000abc;\n\
                 \tSat, 21 Nov 2026 19:33:53 +0000 (UTC)\n",
            ),
            (
                Received { client: None, encryption: Some(secure), ..full },
                "Received: \n\
                 \tby mx.example.org (Pillarbox) with ESMTP id 00000abc \
                 (TLSv1.3:TLS_AES_256_GCM_SHA384:256:NO)\n\
                 \tfor <c@d>;\n\
                 \tSat, 21 Nov 2026 19:33:53 +0000 (UTC)\n",
            ),
            (
                Received {
                    client: None,
                    encryption: Some(Encryption { login: Some(Login::Nobody), ..secure }),
                    recipient: None,
                    ..full
                },
                "Received: \n\
                 \tby mx.example.org (Pillarbox) with ESMTP id 00000abc \
                 (TLSv1.3:TLS_AES_256_GCM_SHA384:256:NO) auth=no;\n\
                 \tSat, 21 Nov 2026 19:33:53 +0000 (UTC)\n",
            ),
            (
                Received {
                    client: None,
                    encryption: Some(Encryption {
                        verified: true,
                        login: Some(Login::User("a b\r")),
                        ..secure
                    }),
                    recipient: None,
                    ..full
                },
                "Received: \n\
                 \tby mx.example.org (Pillarbox) with ESMTP id 00000abc \
                 (TLSv1.3:TLS_AES_256_GCM_SHA384:256:YES) auth=yes user=a\\040b\\^M;\n\
                 \tSat, 21 Nov 2026 19:33:53 +0000 (UTC)\n",
            ),
        ];
        for (received, text) in cases {
            let mut output = Vec::new();
            received.write(&mut output);
            assert_eq!(String::from_utf8(output).unwrap(), text);
        }
    }

    #[test]
    fn the_name_of_the_protocol_tells_how_the_session_was() {
        let named = |extended, secure, authenticated| {
            Protocol { extended, secure, authenticated, utf8: false }.name().to_owned()
        };
        for extended in [false, true] {
            for secure in [false, true] {
                for authenticated in [false, true] {
                    let name = named(extended, secure, authenticated);
                    assert_eq!(name.starts_with('E'), extended);
                    let behind = name.strip_prefix('E').unwrap_or(&name);
                    let behind = behind.strip_prefix("SMTP").unwrap();
                    assert_eq!(behind.starts_with('S'), secure);
                    assert_eq!(behind.ends_with('A'), authenticated);
                    assert_eq!(behind.len(), usize::from(secure) + usize::from(authenticated));
                }
            }
        }
    }
}
