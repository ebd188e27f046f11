//! A message on its way out, as the DATA phase of SMTP has it.
//!
//! Messages are stored with LF line ends. On the wire every line ends in CRLF, a leading dot is
//! doubled, and neither CR nor LF ever stands alone, whatever is stored (smtp page of the
//! specification, 1.12 L5 and L7).

use memchr::memchr2;

/// Turns stored bytes into wire bytes, piece by piece.
#[derive(Debug, Default)]
pub struct DotStuffer {
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Place {
    /// Directly after a CR, which is not written yet.
    AfterCr,
    /// At the start of a line.
    #[default]
    LineStart,
    /// Inside a line.
    Line,
}

impl DotStuffer {
    /// Appends to `out` what `piece` is on the wire. A CR that does not end a line becomes a blank.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        out.reserve(piece.len() + piece.len() / 32 + 8);
        let mut rest = piece;
        while let Some(first) = rest.first() {
            match (self.place, first) {
                (Place::AfterCr, b'\n') => {}
                (Place::AfterCr, _) => {
                    out.push(b' ');
                    self.place = Place::Line;
                }
                (Place::LineStart, b'.') => {
                    out.push(b'.');
                    self.place = Place::Line;
                }
                _ => {}
            }
            let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
            let (text, tail) = rest.split_at(end);
            out.extend_from_slice(text);
            let Some((stop, after)) = tail.split_first() else {
                self.place = Place::Line;
                return;
            };
            if *stop == b'\n' {
                out.extend_from_slice(b"\r\n");
                self.place = Place::LineStart;
            } else {
                self.place = Place::AfterCr;
            }
            rest = after;
        }
    }

    /// Appends the end of the last line, if it is missing, and the final dot.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.place != Place::LineStart {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
        self.place = Place::LineStart;
    }
}

#[cfg(test)]
mod tests {
    use memchr::memchr2_iter;
    use proptest::prelude::*;

    use super::*;

    /// Whether `wire` has a CR or LF that stands alone.
    fn has_bare_line_end(wire: &[u8]) -> bool {
        memchr2_iter(b'\r', b'\n', wire).any(|at| match wire.get(at) {
            Some(b'\r') => wire.get(at + 1) != Some(&b'\n'),
            _ => at == 0 || wire.get(at - 1) != Some(&b'\r'),
        })
    }

    fn wire(pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut stuffer = DotStuffer::default();
        for piece in pieces {
            stuffer.push(piece, &mut out);
        }
        stuffer.finish(&mut out);
        out
    }

    // queue case 58, smtp rules L5 and L7
    #[test]
    fn bodies_on_the_wire() {
        let cases: [(&str, &str); 11] = [
            ("", ".\r\n"),
            ("a\nb\n", "a\r\nb\r\n.\r\n"),
            (".dot\n..\n", "..dot\r\n...\r\n.\r\n"),
            ("no end", "no end\r\n.\r\n"),
            (".", "..\r\n.\r\n"),
            ("\n\n", "\r\n\r\n.\r\n"),
            ("a\r\nb\r\n", "a\r\nb\r\n.\r\n"),
            ("a\rb\n", "a b\r\n.\r\n"),
            ("a\r\r\n", "a \r\n.\r\n"),
            ("a\r.\r\n", "a .\r\n.\r\n"),
            ("a\r", "a\r\n.\r\n"),
        ];
        for (stored, expected) in cases {
            assert_eq!(wire(&[stored.as_bytes()]), expected.as_bytes(), "{stored:?}");
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_change_the_wire_and_no_line_end_is_bare(
            body in proptest::collection::vec(
                prop_oneof![Just(b'.'), Just(b'\r'), Just(b'\n'), Just(b'x'), Just(0_u8)], 0..60),
            cut in 0_usize..60,
        ) {
            let whole = wire(&[&body]);
            let (head, tail) = body.split_at(cut.min(body.len()));
            prop_assert_eq!(&wire(&[head, tail]), &whole);
            prop_assert!(!has_bare_line_end(&whole));
            // The terminator appears once, at the end.
            let ends = whole.windows(5).filter(|w| w == b"\r\n.\r\n").count();
            let alone = usize::from(whole == b".\r\n");
            prop_assert_eq!(ends + alone, 1);
            prop_assert!(whole.ends_with(b".\r\n"));
        }
    }
}
