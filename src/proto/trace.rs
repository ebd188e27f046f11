//! The Received header that a server puts in front of a message.
//!
//! Sources: RFC 5321 section 4.4; RFC 3848 for the protocol names; the SMTP page of the
//! specification, 1.10, for the exact shape.

use crate::model::{Mailbox, MessageId};

/// The parts of a Received header. None of them holds a control character.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Who sent the message; left out on listeners with `mask-src`.
    pub client: Option<Client<'a>>,
    /// Our name.
    pub by: &'a str,
    /// How it came.
    pub protocol: &'static str,
    /// Its number.
    pub id: MessageId,
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
        for text in ["\n\tby ", self.by, " (Pillarbox) with ", self.protocol, " id "] {
            push(text);
        }
        push(&self.id.to_string());
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

/// The name of the protocol of a session (RFC 3848).
#[must_use]
pub fn protocol(extended: bool, authenticated: bool) -> &'static str {
    match (extended, authenticated) {
        (false, false) => "SMTP",
        (false, true) => "SMTPA",
        (true, false) => "ESMTP",
        (true, true) => "ESMTPA",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: the shapes of smtp cases 108, 128 and 138.
    #[test]
    fn the_header_has_its_exact_shape() {
        let recipient = Mailbox::parse("c@d").unwrap();
        let full = Received {
            client: Some(Client { helo: "a.b", hostname: "<unknown>", address: "[10.9.8.7]" }),
            by: "mx.example.org",
            protocol: protocol(true, false),
            id: MessageId::new(0xabc).unwrap(),
            recipient: Some(&recipient),
            date: "Sat, 21 Nov 2026 19:33:53 +0000 (UTC)",
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
                Received { client: None, recipient: None, protocol: protocol(false, true), ..full },
                "Received: \n\
                 \tby mx.example.org (Pillarbox) with SMTPA id 00000abc;\n\
                 \tSat, 21 Nov 2026 19:33:53 +0000 (UTC)\n",
            ),
        ];
        for (received, text) in cases {
            let mut output = Vec::new();
            received.write(&mut output);
            assert_eq!(String::from_utf8(output).unwrap(), text);
        }
    }
}
