//! A filter program that is asked about everything and changes nothing.
//!
//! What it costs is next to nothing, so that what remains is what filtering costs the server:
//! `smtpd-filters(7)` says what the two tell each other.

use std::io::{self, BufRead, BufReader, BufWriter, Write};

use crate::options::Failure;

/// Every phase that a filter may be asked in.
const PHASES: [&str; 12] = [
    "connect",
    "helo",
    "ehlo",
    "starttls",
    "auth",
    "mail-from",
    "rcpt-to",
    "data",
    "data-line",
    "rset",
    "quit",
    "commit",
];

/// The command `filter`: until the server closes the connection.
pub fn filter() -> Result<(), Failure> {
    let mut input = BufReader::with_capacity(64 * 1024, io::stdin().lock());
    let mut output = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let mut line = Vec::new();
    loop {
        // What was asked together is answered together.
        if input.buffer().is_empty() {
            output.flush()?;
        }
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        answer(line.strip_suffix(b"\n").unwrap_or(&line), &mut output)?;
    }
}

fn answer(line: &[u8], output: &mut impl Write) -> io::Result<()> {
    if line == b"config|ready" {
        for phase in PHASES {
            writeln!(output, "register|filter|smtp-in|{phase}")?;
        }
        return output.write_all(b"register|ready\n");
    }
    // filter, version, time, direction, phase, session, token, parameter
    let mut fields = line.splitn(8, |byte| *byte == b'|');
    if fields.next() != Some(b"filter") {
        return Ok(());
    }
    let phase = fields.nth(3).unwrap_or_default();
    let (session, token) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
    let is_line = phase == b"data-line";
    let (begin, end): (&[u8], &[u8]) = match is_line {
        true => (b"filter-dataline|", fields.next().unwrap_or_default()),
        false => (b"filter-result|", b"proceed"),
    };
    for part in [begin, session, b"|", token, b"|", end, b"\n"] {
        output.write_all(part)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> String {
        let mut output = Vec::new();
        answer(line.as_bytes(), &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn everything_proceeds_and_lines_come_back_as_they_are() {
        assert!(said("config|ready").ends_with("|commit\nregister|ready\n"));
        let cases = [
            ("config|protocol|0.7", ""),
            ("report|0.7|1.000000|smtp-in|timeout|5", ""),
            ("filter|0.7|1.000000|smtp-in|connect|5|7|x|127.0.0.1", "filter-result|5|7|proceed\n"),
            ("filter|0.7|1.000000|smtp-in|data|5|7|", "filter-result|5|7|proceed\n"),
            ("filter|0.7|1.000000|smtp-in|data-line|5|7|a|b", "filter-dataline|5|7|a|b\n"),
            ("filter|0.7|1.000000|smtp-in|data-line|5|7|", "filter-dataline|5|7|\n"),
        ];
        for (line, answer) in cases {
            assert_eq!(said(line), answer, "{line}");
        }
    }
}
