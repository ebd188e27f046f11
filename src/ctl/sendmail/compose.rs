//! The message as it is sent: completed header, encoded body, line ends and dots of SMTP.
//!
//! Added fields come first, then the original ones. A message without any field that is known has
//! no header of its own: an empty line comes before all of it.
//!
//! Sources: the queue page of the specification, 7.3; RFC 5321 section 4.5.2; RFC 5322 section
//! 3.2.3; RFC 2047 sections 2 and 5.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::draft::Draft;
use super::quoted_printable::Encoder;

/// What completes a header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Completion {
    /// Address of the From that is added if there is none.
    pub sender: String,
    /// Full name in it; may be empty.
    pub full_name: String,
    /// Value of the Date that is added if there is none.
    pub date: String,
}

/// Writes `draft` with LF line ends, completed.
///
/// # Errors
/// The output's, or the draft cannot be read.
pub fn write(
    draft: &mut Draft,
    completion: &Completion,
    output: &mut impl Write,
) -> io::Result<()> {
    let encode = draft.wants_encoding();
    output.write_all(added_fields(draft, completion, encode).as_bytes())?;
    let mut body = 0;
    if draft.findings.recognised {
        io::copy(&mut draft.content.range(0, draft.header)?, output)?;
        // The empty line is part of the content, if there was one.
        body = draft.header + 1;
    }
    output.write_all(b"\n")?;
    let mut content = draft.content.range(body, u64::MAX)?;
    if encode {
        let mut encoder = Encoder::new(output);
        io::copy(&mut content, &mut encoder)?;
        encoder.finish()?;
    } else {
        io::copy(&mut content, output)?;
    }
    Ok(())
}

fn added_fields(draft: &Draft, completion: &Completion, encode: bool) -> String {
    let findings = &draft.findings;
    let mut fields = String::new();
    if !findings.from {
        let name = phrase(&completion.full_name);
        let space = if name.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = writeln!(fields, "From: {name}{space}<{}>", completion.sender);
    }
    if !findings.date {
        let _ = writeln!(fields, "Date: {}", completion.date);
    }
    if encode {
        let missing = [
            (findings.mime_version, "MIME-Version: 1.0\n"),
            (findings.content_type, "Content-Type: text/plain; charset=unknown-8bit\n"),
            (findings.content_disposition, "Content-Disposition: inline\n"),
            (false, "Content-Transfer-Encoding: quoted-printable\n"),
        ];
        fields.extend(missing.iter().filter(|(there, _)| !there).map(|(_, field)| *field));
    }
    fields
}

/// `name` as a display name: plain words, a quoted string, or encoded words if it is not ASCII.
fn phrase(name: &str) -> String {
    let name = name.trim();
    let is_atom = |c: char| c.is_ascii_alphanumeric() || " !#$%&'*+-/=?^_`{|}~".contains(c);
    if name.chars().all(is_atom) {
        return name.to_owned();
    }
    if name.is_ascii() {
        let mut quoted = String::from("\"");
        for c in name.chars().filter(|c| !c.is_control()) {
            if matches!(c, '"' | '\\') {
                quoted.push('\\');
            }
            quoted.push(c);
        }
        quoted.push('"');
        return quoted;
    }
    encoded_words(name)
}

/// RFC 2047 encoded words of at most 75 bytes, each with whole characters.
fn encoded_words(name: &str) -> String {
    const START: &str = "=?utf-8?Q?";
    const ROOM: usize = 75 - START.len() - 2;
    let mut words = vec![String::new()];
    for c in name.chars() {
        let mut piece = String::new();
        let mut bytes = [0; 4];
        for byte in c.encode_utf8(&mut bytes).bytes() {
            match byte {
                b' ' => piece.push('_'),
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => piece.push(char::from(byte)),
                _ => {
                    let _ = write!(piece, "={byte:02X}");
                }
            }
        }
        match words.last_mut() {
            Some(word) if word.len() + piece.len() <= ROOM => word.push_str(&piece),
            _ => words.push(piece),
        }
    }
    let words: Vec<String> = words.iter().map(|word| format!("{START}{word}?=")).collect();
    words.join(" ")
}

/// Writes lines as the DATA phase of SMTP has them: CRLF line ends, leading dots doubled.
#[derive(Debug)]
pub struct DataWriter<W> {
    output: W,
    line_start: bool,
}

impl<W: Write> DataWriter<W> {
    /// A writer at the start of the data.
    pub fn new(output: W) -> Self {
        Self { output, line_start: true }
    }

    /// Writes the end of the data.
    ///
    /// # Errors
    /// The output's.
    pub fn finish(mut self) -> io::Result<()> {
        if !self.line_start {
            self.output.write_all(b"\r\n")?;
        }
        self.output.write_all(b".\r\n")?;
        self.output.flush()
    }
}

impl<W: Write> Write for DataWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line_start && piece.first() == Some(&b'.') {
                self.output.write_all(b".")?;
            }
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            self.output.write_all(text)?;
            if ended {
                self.output.write_all(b"\r\n")?;
            }
            self.line_start = ended;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn composed(input: &str, full_name: &str) -> String {
        let mut draft =
            Draft::read(&mut input.as_bytes(), false, Path::new("/nonexistent")).unwrap();
        let completion = Completion {
            sender: "bob@mx.test".into(),
            full_name: full_name.into(),
            date: "Sat, 7 Nov 2026 09:05:03 +0000 (UTC)".into(),
        };
        let mut output = Vec::new();
        write(&mut draft, &completion, &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    const DATE: &str = "Date: Sat, 7 Nov 2026 09:05:03 +0000 (UTC)\n";

    // queue cases 188 and 192; smtp case 218.
    #[test]
    fn the_header_is_completed_and_body_stays_body() {
        let cases = [
            ("hello no header\n", "", format!("From: <bob@mx.test>\n{DATE}\nhello no header\n")),
            (
                "X-Foo: bar\n\ntext\n",
                "A B",
                format!("From: A B <bob@mx.test>\n{DATE}\nX-Foo: bar\n\ntext\n"),
            ),
            (
                "Subject: s\nX-Foo: bar\n\ntext\n",
                "",
                format!("From: <bob@mx.test>\n{DATE}Subject: s\nX-Foo: bar\n\ntext\n"),
            ),
            (
                "From: x@y\nDate: today\n\ntext\n",
                "A B",
                "From: x@y\nDate: today\n\ntext\n".to_owned(),
            ),
            ("From: x@y\nDate: today\n", "", "From: x@y\nDate: today\n\n".to_owned()),
            ("\ntext\n", "", format!("From: <bob@mx.test>\n{DATE}\n\ntext\n")),
        ];
        for (input, full_name, expected) in cases {
            assert_eq!(composed(input, full_name), expected, "{input:?}");
        }
    }

    // queue case 190.
    #[test]
    fn a_body_with_a_long_line_is_quoted_printable() {
        let long = "x".repeat(1200);
        let text = composed(&format!("From: x@y\nDate: d\n\n{long}\té\t\n"), "");
        let header = "MIME-Version: 1.0\nContent-Type: text/plain; charset=unknown-8bit\n\
                      Content-Disposition: inline\nContent-Transfer-Encoding: quoted-printable\n\
                      From: x@y\nDate: d\n\n";
        let body = text.strip_prefix(header).unwrap();
        assert!(body.ends_with("=C3=A9=09\n"), "{body}");
        assert!(body.lines().all(|line| line.len() <= 76));
        let own = format!("From: x@y\nDate: d\nContent-Transfer-Encoding: 8bit\n\n{long}\n");
        assert_eq!(composed(&own, ""), own);
        let headerless = composed(&long, "");
        assert!(headerless.contains("\n\nxxx"), "{headerless}");
        assert!(headerless.lines().all(|line| line.len() <= 76));
    }

    #[test]
    fn names_are_quoted_or_encoded_where_they_must_be() {
        let cases = [
            ("", ""),
            ("A B", "A B"),
            ("Doe, J. \"x\" \\", "\"Doe, J. \\\"x\\\" \\\\\""),
            ("Jürgen B", "=?utf-8?Q?J=C3=BCrgen_B?="),
        ];
        for (name, expected) in cases {
            assert_eq!(phrase(name), expected);
        }
        let long = phrase(&"ü".repeat(60));
        assert!(long.split(' ').all(|word| word.len() <= 75 && word.ends_with("?=")), "{long}");
    }

    /// The rules of RFC 5321 section 4.5.2, read as a server reads them.
    fn received(wire: &[u8]) -> Option<Vec<u8>> {
        let mut rest = wire;
        let mut message = Vec::new();
        loop {
            let end = rest.windows(2).position(|two| two == b"\r\n")?;
            let (line, after) = rest.split_at(end);
            rest = &after[2..];
            if line == b"." {
                return rest.is_empty().then_some(message);
            }
            message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            message.push(b'\n');
        }
    }

    proptest! {
        #[test]
        fn data_arrives_as_it_was_and_ends_once(
            text in prop::collection::vec(
                prop_oneof![Just(b'.'), Just(b'\n'), b'a'..=b'z'], 0..200),
            at in 0_usize..200,
        ) {
            let at = at.min(text.len());
            let mut wire = Vec::new();
            let mut writer = DataWriter::new(&mut wire);
            writer.write_all(&text[..at]).unwrap();
            writer.write_all(&text[at..]).unwrap();
            writer.finish().unwrap();
            let mut expected = text;
            if !expected.is_empty() && !expected.ends_with(b"\n") {
                expected.push(b'\n');
            }
            prop_assert_eq!(received(&wire), Some(expected));
        }
    }
}
