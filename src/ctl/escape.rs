//! Bytes made visible in the way of vis(3), for one line of a listing.
//!
//! Printable ASCII stays; a backslash is doubled; a control character, also tab and newline, is
//! `\^X`; a byte above 127 is `\M-x` or, over a control character, `\M^X`. So a line can tell of
//! any bytes and no terminal obeys them.
//!
//! Source: vis(3) of the BSDs.

/// Appends `text` to `line` with everything but printable ASCII encoded.
pub fn append_visible(line: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'\\' => line.push_str("\\\\"),
            b' '..=b'~' => line.push(char::from(byte)),
            0x00..=0x1f | 0x7f => {
                line.push_str("\\^");
                line.push(caret(byte));
            }
            // A blank with the high bit set would end in a blank that is easily lost.
            0xa0 => line.push_str("\\240"),
            0x80.. => {
                let low = byte & 0x7f;
                if low < 0x20 || low == 0x7f {
                    line.push_str("\\M^");
                    line.push(caret(low));
                } else {
                    line.push_str("\\M-");
                    line.push(char::from(low));
                }
            }
        }
    }
}

/// The letter that stands for a control character: `^A` for 1, `^?` for 127.
fn caret(control: u8) -> char {
    char::from(control ^ 0x40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_printable_ascii_comes_out() {
        let cases = [
            ("\"temporary trouble\"", "\"temporary trouble\""),
            (r"a\b", r"a\\b"),
            ("\u{1b}[2J", r"\^[[2J"),
            ("a\r\nb\t", r"a\^M\^Jb\^I"),
            ("\u{7f}", r"\^?"),
            ("é", r"\M-C\M-)"),
            ("\u{a0}", r"\M-B\240"),
            ("ÿ", r"\M-C\M-?"),
            ("\u{80}", r"\M-B\M^@"),
        ];
        for (text, expected) in cases {
            let mut line = String::new();
            append_visible(&mut line, text);
            assert_eq!(line, expected, "{text:?}");
        }
    }
}
