//! What the user is told: fates of recipients and failures always, more with each `-v`.
//!
//! One `-v` tells what is done, two show the dialogue, three the sizes of what goes over the wire.

use std::fmt::{Arguments, Display};
use std::io::Write;

/// The longest line of a server that is shown, in bytes.
const MAX_LINE: usize = 4096;

/// Tells the user. That nobody listens any more ends nothing: mail may be under way.
pub struct Transcript<'a> {
    output: &'a mut dyn Write,
    verbose: u8,
    /// What was heard of a line that goes on.
    partial: Vec<u8>,
}

impl<'a> Transcript<'a> {
    /// Tells as much as `verbose` says.
    pub fn new(output: &'a mut dyn Write, verbose: u8) -> Self {
        Self { output, verbose, partial: Vec::new() }
    }

    /// What is always told.
    pub fn tell(&mut self, what: &dyn Display) {
        self.line(format_args!("{what}"));
    }

    /// What is being done.
    pub fn debug(&mut self, what: Arguments<'_>) {
        if self.verbose >= 1 {
            self.line(format_args!("debug: {what}"));
        }
    }

    /// A command.
    pub fn said(&mut self, command: &str) {
        if self.verbose >= 2 {
            self.line(format_args!(">>> {command}"));
        }
    }

    /// Bytes of replies.
    pub fn heard(&mut self, bytes: &[u8]) {
        if self.verbose >= 3 {
            self.line(format_args!("io: {} bytes read", bytes.len()));
        }
        if self.verbose < 2 {
            return;
        }
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.partial);
                    let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
                    let printable = |c: char| if c.is_control() { '?' } else { c };
                    let line: String = line.chars().map(printable).collect();
                    self.line(format_args!("<<< {line}"));
                }
                _ if self.partial.len() < MAX_LINE => self.partial.push(*byte),
                _ => {}
            }
        }
    }

    /// Bytes of the message.
    pub fn sent(&mut self, count: usize) {
        if self.verbose >= 3 {
            self.line(format_args!("io: {count} bytes of the message written"));
        }
    }

    fn line(&mut self, text: Arguments<'_>) {
        let _nobody_listens = writeln!(self.output, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(verbose: u8) -> String {
        let mut output = Vec::new();
        let mut transcript = Transcript::new(&mut output, verbose);
        transcript.tell(&"always");
        transcript.debug(format_args!("connecting"));
        transcript.said("EHLO x");
        transcript.heard(b"250-a\x1b[2J\r\n25");
        transcript.heard(b"0 b\r\n");
        transcript.sent(7);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn more_is_told_with_each_v() {
        assert_eq!(told(0), "always\n");
        assert_eq!(told(1), "always\ndebug: connecting\n");
        let dialogue = "always\ndebug: connecting\n>>> EHLO x\n<<< 250-a?[2J\n<<< 250 b\n";
        assert_eq!(told(2), dialogue);
        assert!(told(3).contains("io: 13 bytes read\n"));
        assert!(told(3).ends_with("io: 7 bytes of the message written\n"));
    }
}
