//! Quoted-printable, written as a stream: LF line ends in, LF line ends out.
//!
//! Source: RFC 2045, section 6.7.

use std::io::{self, Write};

/// Longest line, in bytes, without line end.
const MAX_LINE: usize = 76;

/// Encodes what is written to it.
#[derive(Debug)]
pub struct Encoder<W> {
    output: W,
    column: usize,
    /// A blank or tab that must be encoded if the line ends with it.
    blank: Option<u8>,
}

impl<W: Write> Encoder<W> {
    /// An encoder that writes to `output`.
    pub fn new(output: W) -> Self {
        Self { output, column: 0, blank: None }
    }

    /// Ends the encoding and gives the output back. A last line without line end stays so.
    ///
    /// # Errors
    /// The output's.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_of_line()?;
        Ok(self.output)
    }

    fn byte(&mut self, byte: u8) -> io::Result<()> {
        if byte == b'\n' {
            self.end_of_line()?;
            self.column = 0;
            return self.output.write_all(b"\n");
        }
        if let Some(blank) = self.blank.take() {
            self.literal(blank)?;
        }
        match byte {
            b' ' | b'\t' => {
                self.blank = Some(byte);
                Ok(())
            }
            b'!'..=b'<' | b'>'..=b'~' => self.literal(byte),
            _ => self.encoded(byte),
        }
    }

    /// A blank at the end of a line would be lost on the way, so it is encoded.
    fn end_of_line(&mut self) -> io::Result<()> {
        match self.blank.take() {
            Some(blank) => self.encoded(blank),
            None => Ok(()),
        }
    }

    fn literal(&mut self, byte: u8) -> io::Result<()> {
        self.make_room(1)?;
        self.output.write_all(&[byte])
    }

    fn encoded(&mut self, byte: u8) -> io::Result<()> {
        self.make_room(3)?;
        write!(self.output, "={byte:02X}")
    }

    /// Breaks the line if `width` bytes and the mark of a break would not fit.
    fn make_room(&mut self, width: usize) -> io::Result<()> {
        if self.column + width > MAX_LINE - 1 {
            self.output.write_all(b"=\n")?;
            self.column = 0;
        }
        self.column += width;
        Ok(())
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bytes.iter().try_for_each(|byte| self.byte(*byte))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(text: &[u8]) -> String {
        let mut encoder = Encoder::new(Vec::new());
        encoder.write_all(text).unwrap();
        String::from_utf8(encoder.finish().unwrap()).unwrap()
    }

    /// The rules of RFC 2045 read the other way.
    fn decode(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let text = text.replace("=\n", "");
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            if *first == b'=' {
                let digits = std::str::from_utf8(&after[..2]).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = &after[2..];
            } else {
                bytes.push(*first);
                rest = after;
            }
        }
        bytes
    }

    // The form that section 7.3 asks for: two digits, upper case.
    #[test]
    fn text_is_encoded_where_it_must_be() {
        let cases = [
            ("plain text\n", "plain text\n"),
            ("a=b\n", "a=3Db\n"),
            ("trailing tab\t\n", "trailing tab=09\n"),
            ("trailing blank  \n", "trailing blank =20\n"),
            ("é\n", "=C3=A9\n"),
            ("\r\n", "=0D\n"),
            ("a ", "a=20"),
        ];
        for (text, expected) in cases {
            assert_eq!(encode(text.as_bytes()), expected, "{text:?}");
        }
        let long = encode(&[b'x'; 100]);
        assert_eq!(long, format!("{}=\n{}", "x".repeat(75), "x".repeat(25)));
    }

    proptest! {
        #[test]
        fn every_text_comes_back_and_no_line_is_long(
            text in prop::collection::vec(prop_oneof![
                any::<u8>(), Just(b'\n'), Just(b' '), Just(b'\t'), Just(b'='), b'a'..=b'z'
            ], 0..600),
        ) {
            let encoded = encode(&text);
            prop_assert_eq!(decode(&encoded), text);
            for line in encoded.split('\n') {
                prop_assert!(line.len() <= MAX_LINE, "{}", line);
                prop_assert!(!line.ends_with([' ', '\t']), "{:?}", line);
                prop_assert!(line.is_ascii());
            }
        }
    }
}
