//! Bytes from outside made visible for log lines, in the manner of vis(3).
//!
//! Controls become `\^X`, bytes above 127 `\M-x` or `\M^X`, a backslash is doubled. What comes
//! out is printable ASCII on one line.

/// For use between double quotes: blanks stay, `"` is escaped, a newline becomes `\n`.
#[must_use]
pub fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b' ' => text.push(' '),
            b'"' => text.push_str("\\\""),
            b'\n' => text.push_str("\\n"),
            _ => push(&mut text, byte),
        }
    }
    text
}

/// For use as a bare word: blanks and line ends become octal.
#[must_use]
pub fn word(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b' ' => text.push_str("\\040"),
            b'\t' => text.push_str("\\011"),
            b'\n' => text.push_str("\\012"),
            _ => push(&mut text, byte),
        }
    }
    text
}

fn push(text: &mut String, byte: u8) {
    if byte == b'\\' {
        text.push_str("\\\\");
        return;
    }
    let low = byte & 0x7f;
    let control = low < b' ' || low == 0x7f;
    match (byte >= 0x80, control) {
        (false, false) => {}
        (false, true) => text.push_str("\\^"),
        (true, false) => text.push_str("\\M-"),
        (true, true) => text.push_str("\\M^"),
    }
    text.push(char::from(if control { low ^ 0x40 } else { low }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_printable_text_comes_out() {
        let cases: [(&[u8], &str, &str); 5] = [
            (b"a b", "a b", "a\\040b"),
            (b"\t\r\n\0\x7f", "\\^I\\^M\\n\\^@\\^?", "\\011\\^M\\012\\^@\\^?"),
            (b"\\\"", "\\\\\\\"", "\\\\\""),
            (b"\xe9\x80\xff", "\\M-i\\M^@\\M^?", "\\M-i\\M^@\\M^?"),
            (b"", "", ""),
        ];
        for (bytes, in_quotes, as_word) in cases {
            assert_eq!(quoted(bytes), in_quotes);
            assert_eq!(word(bytes), as_word);
        }
        let all: Vec<u8> = (0..=255).collect();
        for text in [quoted(&all), word(&all)] {
            assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text}");
        }
    }
}
