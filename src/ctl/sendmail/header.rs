//! The header of a submitted message, line by line.
//!
//! The reader decides for each line whether it stays, and notes what the message has. It drops
//! Bcc with its continuation lines, an mbox separator and Return-Path; it collects the sender from
//! From and, if asked to, recipients from To, Cc and Bcc. Lines that it does not know stay as they
//! are, whatever they look like: the header ends with the first empty line and nothing else, so
//! that no Bcc can hide behind a line that is not a field.
//!
//! Sources: the queue page of the specification, 7.3; RFC 5322 section 2.2.

use super::address::{AddressError, AddressReader};

/// The header fields that matter here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Field {
    Bcc,
    Cc,
    ContentDisposition,
    ContentTransferEncoding,
    ContentType,
    Date,
    From,
    MessageId,
    MimeVersion,
    Subject,
    To,
    UserAgent,
}

const FIELDS: [(&[u8], Field); 12] = [
    (b"bcc", Field::Bcc),
    (b"cc", Field::Cc),
    (b"content-disposition", Field::ContentDisposition),
    (b"content-transfer-encoding", Field::ContentTransferEncoding),
    (b"content-type", Field::ContentType),
    (b"date", Field::Date),
    (b"from", Field::From),
    (b"message-id", Field::MessageId),
    (b"mime-version", Field::MimeVersion),
    (b"subject", Field::Subject),
    (b"to", Field::To),
    (b"user-agent", Field::UserAgent),
];

/// What a header was found to have.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Findings {
    /// At least one field that is known here: without one, all of the input is body.
    pub recognised: bool,
    /// There is a From.
    pub from: bool,
    /// There is a Date.
    pub date: bool,
    /// There is a Bcc with addresses; it was dropped.
    pub bcc: bool,
    /// There is a MIME-Version.
    pub mime_version: bool,
    /// There is a Content-Type.
    pub content_type: bool,
    /// There is a Content-Type of several parts, or of a whole message inside.
    pub composite: bool,
    /// There is a Content-Disposition.
    pub content_disposition: bool,
    /// There is a Content-Transfer-Encoding.
    pub content_transfer_encoding: bool,
    /// The last address of From.
    pub sender: Option<String>,
    /// Addresses of To, Cc and Bcc, in order, if they were asked for.
    pub recipients: Vec<String>,
}

/// Reads a header.
#[derive(Debug)]
pub struct HeaderReader {
    collect: bool,
    dropping: bool,
    present: Option<(Field, AddressReader)>,
    findings: Findings,
}

impl HeaderReader {
    /// A reader that collects recipients if `collect` says so (`-t`).
    #[must_use]
    pub fn new(collect: bool) -> Self {
        Self { collect, dropping: false, present: None, findings: Findings::default() }
    }

    /// Whether a known field was seen.
    #[must_use]
    pub fn recognised(&self) -> bool {
        self.findings.recognised
    }

    /// Takes one line without its line end. Answers whether it stays in the message.
    ///
    /// # Errors
    /// An address list cannot be read.
    pub fn line(&mut self, line: &[u8]) -> Result<bool, AddressError> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            if let Some((_, addresses)) = &mut self.present {
                addresses.read(line)?;
            }
            return Ok(!self.dropping);
        }
        self.end_field()?;
        self.dropping = false;
        if starts_with(line, b"from ") || starts_with(line, b"return-path: ") {
            return Ok(false);
        }
        let Some((field, value)) = split(line) else { return Ok(true) };
        self.findings.recognised = true;
        self.note(field, value);
        if self.is_address_list(field) {
            let mut addresses = AddressReader::default();
            addresses.read(value)?;
            self.present = Some((field, addresses));
        }
        self.dropping = field == Field::Bcc;
        Ok(!self.dropping)
    }

    /// What was found, when the header has ended.
    ///
    /// # Errors
    /// The last field's address list cannot be read.
    pub fn finish(mut self) -> Result<Findings, AddressError> {
        self.end_field()?;
        Ok(self.findings)
    }

    fn is_address_list(&self, field: Field) -> bool {
        match field {
            Field::From => true,
            Field::Bcc | Field::Cc | Field::To => self.collect,
            _ => false,
        }
    }

    fn note(&mut self, field: Field, value: &[u8]) {
        let findings = &mut self.findings;
        match field {
            Field::ContentDisposition => findings.content_disposition = true,
            Field::ContentTransferEncoding => findings.content_transfer_encoding = true,
            Field::ContentType => {
                let value = value.trim_ascii_start();
                findings.content_type = true;
                findings.composite =
                    starts_with(value, b"multipart/") || starts_with(value, b"message/");
            }
            Field::Date => findings.date = true,
            Field::From => findings.from = true,
            Field::MimeVersion => findings.mime_version = true,
            Field::Bcc
            | Field::Cc
            | Field::MessageId
            | Field::Subject
            | Field::To
            | Field::UserAgent => {}
        }
    }

    fn end_field(&mut self) -> Result<(), AddressError> {
        let Some((field, addresses)) = self.present.take() else { return Ok(()) };
        let mut addresses = addresses.finish()?;
        match field {
            Field::From => self.findings.sender = addresses.pop().or(self.findings.sender.take()),
            _ => {
                self.findings.bcc |= field == Field::Bcc && !addresses.is_empty();
                self.findings.recipients.append(&mut addresses);
            }
        }
        Ok(())
    }
}

/// The known field that `line` begins, and its value.
fn split(line: &[u8]) -> Option<(Field, &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    // A blank before the colon is obsolete, and still a Bcc (RFC 5322, section 4.5.3).
    let name = name.trim_ascii_end();
    let (_, field) = FIELDS.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known))?;
    Some((field, value.get(1..).unwrap_or_default()))
}

/// Whether `text` begins with `prefix`, whatever the case; `prefix` is lower-case.
fn starts_with(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(collect: bool, header: &str) -> (String, Findings) {
        let mut reader = HeaderReader::new(collect);
        let mut kept = String::new();
        for line in header.lines() {
            if reader.line(line.as_bytes()).unwrap() {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        (kept, reader.finish().unwrap())
    }

    // queue cases 187 and 189.
    #[test]
    fn bcc_separator_and_return_path_are_dropped() {
        let header = "From someone Mon Jan  1\nReturn-Path: <x@y>\nSubject: s\nBCC: a@d,\n b@d,\n\
                      \tc@d\nX-Foo: bar\n folded\nBcc : e@d\nTo: f@d\n";
        let (kept, findings) = read(true, header);
        assert_eq!(kept, "Subject: s\nX-Foo: bar\n folded\nTo: f@d\n");
        assert_eq!(findings.recipients, ["a@d", "b@d", "c@d", "e@d", "f@d"]);
        assert!(findings.bcc && findings.recognised && !findings.from);
        let (kept, findings) = read(false, header);
        assert!(!kept.to_lowercase().contains("bcc"), "{kept}");
        assert!(findings.recipients.is_empty());
    }

    #[test]
    fn the_last_address_of_from_is_the_sender() {
        let (kept, findings) = read(false, "FROM: a@d,\n \"B\" <b@d>\nto: unread <\n");
        assert_eq!(findings.sender.as_deref(), Some("b@d"));
        assert_eq!(kept, "FROM: a@d,\n \"B\" <b@d>\nto: unread <\n");
    }

    // queue case 188.
    #[test]
    fn fields_that_are_not_known_make_no_header() {
        let (kept, findings) = read(true, "X-Foo: bar\nhello: world\nno field\n");
        assert_eq!(findings, Findings::default());
        assert_eq!(kept, "X-Foo: bar\nhello: world\nno field\n");
    }

    #[test]
    fn what_the_message_has_is_noted() {
        let (_, findings) = read(
            false,
            "Date: x\nMIME-VERSION: 1.0\nContent-Type:  Multipart/mixed; boundary=x\n\
             content-disposition: inline\nContent-Transfer-Encoding: 8bit\n",
        );
        let expected = Findings {
            recognised: true,
            date: true,
            mime_version: true,
            content_type: true,
            composite: true,
            content_disposition: true,
            content_transfer_encoding: true,
            ..Findings::default()
        };
        assert_eq!(findings, expected);
    }

    #[test]
    fn a_list_that_is_not_closed_is_an_error() {
        let mut reader = HeaderReader::new(true);
        reader.line(b"To: \"a").unwrap();
        assert_eq!(reader.line(b"Subject: x"), Err(AddressError::Syntax));
        let mut reader = HeaderReader::new(true);
        reader.line(b"Cc: <a").unwrap();
        assert_eq!(reader.finish(), Err(AddressError::Syntax));
    }
}
