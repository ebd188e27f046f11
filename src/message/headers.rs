//! The header block of a message that is being received.
//!
//! Bcc is removed, addresses of To, Cc and From get a domain or those of From become the sender's,
//! Received headers are counted, Date and Message-ID are added where the listener wants that.
//! Sources: RFC 5322 section 2.2; the SMTP page of the specification, 1.9.

use std::sync::Arc;

use memchr::memchr;

use super::pipeline::Fault;
use crate::model::limits::RECEIVED_HEADERS;
use crate::proto::header::{complete_addresses, replace_addresses};

/// Longest name of a header, in bytes.
const MAX_NAME: usize = 1022;
/// Longest address header, in bytes without line ends.
const MAX_ADDRESS_HEADER: usize = 65_535;

/// What is added to a header block where it is missing.
#[derive(Clone, Debug)]
pub struct Additions {
    /// Text of the Date header.
    pub date: String,
    /// Text of the Message-ID header, brackets included.
    pub message_id: String,
}

/// What is done with the lines of the present header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Treatment {
    /// There is no header yet.
    None,
    /// Collected, then completed.
    Complete,
    /// Copied.
    Copy,
    /// Collected, then its addresses are replaced.
    Masquerade,
    /// Left out.
    Remove,
}

/// The reader of a header block, line by line.
#[derive(Debug)]
pub(super) struct HeaderBlock {
    domain: Arc<str>,
    additions: Option<Additions>,
    masquerade: Option<Arc<str>>,
    treatment: Treatment,
    /// The present address header, in lines that end in LF.
    collected: Vec<u8>,
    /// Its length without line ends.
    unfolded: usize,
    received: usize,
    has_date: bool,
    has_message_id: bool,
}

impl HeaderBlock {
    /// A reader of a block before which as many Received headers count already.
    pub(super) fn new(
        domain: Arc<str>,
        additions: Option<Additions>,
        masquerade: Option<Arc<str>>,
        received: usize,
    ) -> Self {
        Self {
            domain,
            additions,
            masquerade,
            treatment: Treatment::None,
            collected: Vec::new(),
            unfolded: 0,
            received,
            has_date: false,
            has_message_id: false,
        }
    }

    /// Bytes that are held until the present header is complete.
    pub(super) fn held(&self) -> usize {
        self.collected.len()
    }

    /// Takes one line, without its line end. Returns whether the block goes on.
    pub(super) fn line(&mut self, line: &[u8], output: &mut Vec<u8>) -> Result<bool, Fault> {
        let blank = matches!(line.first(), Some(b' ' | b'\t'));
        if blank && self.treatment != Treatment::None {
            self.push(line, output)?;
            return Ok(true);
        }
        match memchr(b':', line) {
            Some(colon) if !blank => {
                self.flush(output);
                self.begin(line.get(..colon).unwrap_or_default())?;
                self.push(line, output)?;
                Ok(true)
            }
            _ if line.is_empty() => {
                self.finish(output);
                output.push(b'\n');
                Ok(false)
            }
            _ => Err(Fault::Malformed),
        }
    }

    /// Ends the block: what is missing is added behind the client's headers.
    pub(super) fn finish(&mut self, output: &mut Vec<u8>) {
        self.flush(output);
        let Some(additions) = self.additions.take() else { return };
        let mut add = |name: &str, text: &str| {
            for part in [name, text, "\n"] {
                output.extend_from_slice(part.as_bytes());
            }
        };
        if !self.has_date {
            add("Date: ", &additions.date);
        }
        if !self.has_message_id {
            add("Message-ID: ", &additions.message_id);
        }
    }

    fn begin(&mut self, name: &[u8]) -> Result<(), Fault> {
        if name.len() > MAX_NAME {
            return Err(Fault::Malformed);
        }
        let is = |text: &str| name.eq_ignore_ascii_case(text.as_bytes());
        self.has_date |= is("Date");
        self.has_message_id |= is("Message-Id");
        if is("Received") {
            self.received += 1;
            if self.received >= RECEIVED_HEADERS {
                return Err(Fault::Loop);
            }
        }
        self.treatment = if is("Bcc") {
            Treatment::Remove
        } else if is("From") && self.masquerade.is_some() {
            Treatment::Masquerade
        } else if is("To") || is("Cc") || is("From") {
            Treatment::Complete
        } else {
            Treatment::Copy
        };
        Ok(())
    }

    /// Takes a line of the present header.
    fn push(&mut self, line: &[u8], output: &mut Vec<u8>) -> Result<(), Fault> {
        let destination = match self.treatment {
            Treatment::None | Treatment::Remove => return Ok(()),
            Treatment::Copy => output,
            Treatment::Complete | Treatment::Masquerade => {
                self.unfolded += line.len();
                if self.unfolded > MAX_ADDRESS_HEADER {
                    return Err(Fault::Malformed);
                }
                &mut self.collected
            }
        };
        destination.extend_from_slice(line);
        destination.push(b'\n');
        Ok(())
    }

    /// Writes the address header that was collected, if any.
    fn flush(&mut self, output: &mut Vec<u8>) {
        let value = memchr(b':', &self.collected).map_or(0, |colon| colon + 1);
        if let Some((name, value)) = self.collected.split_at_checked(value) {
            output.extend_from_slice(name);
            match &self.masquerade {
                _ if value.is_empty() => {}
                Some(sender) if self.treatment == Treatment::Masquerade => {
                    replace_addresses(value, sender, output);
                }
                _ => complete_addresses(value, &self.domain, output),
            }
        }
        self.collected = Vec::new();
        self.unfolded = 0;
    }
}
