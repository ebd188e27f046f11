//! Address headers: a domain for addresses that have none.
//!
//! The value is looked at element by element, between commas that are outside quotes, comments
//! and escapes. Everything is copied as it stands, folding included; the domain is inserted where
//! an element needs it. An element that cannot be understood is left alone. Sources: RFC 5322
//! section 3.4; the SMTP page of the specification, 1.9.

/// Appends `value`, the text of a To, Cc or From header behind its colon, to `output`, and
/// completes addresses in it with `domain`. Line ends in `value` count as blanks.
pub fn complete_addresses(value: &[u8], domain: &str, output: &mut Vec<u8>) {
    let mut rest = value;
    let mut in_group = false;
    loop {
        let element = Element::read(rest, in_group);
        let (text, behind) = rest.split_at_checked(element.length).unwrap_or((rest, b""));
        let (before, after) =
            element.insertion.and_then(|at| text.split_at_checked(at)).unwrap_or((text, b""));
        output.extend_from_slice(before);
        if element.insertion.is_some() {
            output.push(b'@');
            output.extend_from_slice(domain.as_bytes());
        }
        output.extend_from_slice(after);
        let Some((comma, next)) = behind.split_first() else { return };
        output.push(*comma);
        rest = next;
        in_group = element.leaves_group_open;
    }
}

/// What was found about one element of an address list.
struct Element {
    /// Its length in bytes, without the comma behind it.
    length: usize,
    /// Where the domain goes, if it needs one.
    insertion: Option<usize>,
    /// Whether a group was begun and not ended: its members are left alone.
    leaves_group_open: bool,
}

impl Element {
    fn read(text: &[u8], mut in_group: bool) -> Self {
        let mut escaped = false;
        let mut quoted = false;
        let mut comments = 0_usize;
        let mut balanced = true;
        let mut untouched = in_group;
        // Position behind the last byte that is neither blank nor in a comment.
        let mut last = None;
        // Inside brackets, and where the domain goes there.
        let mut bracket = false;
        let mut in_bracket = None;
        let mut had_bracket = false;
        let mut length = text.len();
        for (position, &byte) in text.iter().enumerate() {
            if escaped {
                escaped = false;
                // An escaped at sign outside quotes is no address that we could complete.
                untouched |= byte == b'@' && !quoted && comments == 0;
            } else if byte == b'\\' {
                escaped = true;
            } else if quoted {
                quoted = byte != b'"';
            } else if comments > 0 {
                match byte {
                    b'(' => comments += 1,
                    b')' => comments -= 1,
                    _ => {}
                }
                continue;
            } else {
                match byte {
                    b',' => {
                        length = position;
                        break;
                    }
                    b'"' => quoted = true,
                    b'(' => {
                        comments += 1;
                        continue;
                    }
                    b')' => balanced = false,
                    b'@' => untouched = true,
                    b':' => {
                        untouched = true;
                        in_group = true;
                    }
                    b';' => {
                        untouched = true;
                        in_group = false;
                    }
                    b'<' => {
                        balanced &= !had_bracket;
                        had_bracket = true;
                        bracket = true;
                        continue;
                    }
                    b'>' => {
                        balanced &= bracket;
                        bracket = false;
                        continue;
                    }
                    _ => {}
                }
            }
            if comments > 0 {
                continue;
            }
            let blank = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
            if !blank {
                let behind = Some(position + 1);
                if bracket { in_bracket = behind } else { last = behind }
            }
        }
        let whole = balanced && !escaped && !quoted && comments == 0 && !bracket;
        let place = if had_bracket { in_bracket } else { last };
        Self {
            length,
            insertion: place.filter(|_| whole && !untouched),
            leaves_group_open: in_group,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn complete(value: &str) -> String {
        let mut output = Vec::new();
        complete_addresses(value.as_bytes(), "mx", &mut output);
        String::from_utf8(output).unwrap()
    }

    // Proves: smtp cases 118-124 (the values).
    #[test]
    fn only_addresses_without_domain_are_completed() {
        let cases = [
            (" root", " root@mx"),
            (
                " root, bob@x, \"A, B\" <al>, (c) <>, <x >",
                " root@mx, bob@x, \"A, B\" <al@mx>, (c) <>, <x@mx >",
            ),
            (" Foo Bar", " Foo Bar@mx"),
            (" foo (comment)", " foo@mx (comment)"),
            (" x (a@b)", " x@mx (a@b)"),
            (" \"a@b\" <joe>", " \"a@b\" <joe@mx>"),
            (" a,\n b,\n\tc@d", " a@mx,\n b@mx,\n\tc@d"),
            (" ,a,,", " ,a@mx,,"),
            (" (a, b) c", " (a, b) c@mx"),
            (" (a (b) c) d (e)", " (a (b) c) d@mx (e)"),
            (" \"x\\\"y\"", " \"x\\\"y\"@mx"),
            (" joe\n", " joe@mx\n"),
        ];
        for (value, expected) in cases {
            assert_eq!(complete(value), expected, "{value:?}");
        }
        let unchanged = [
            "",
            " ",
            " undisclosed-recipients:;",
            " friends: a, b, c;",
            " \"unbalanced, x",
            " <a",
            " a>",
            " (a",
            " a)",
            " a\\@b",
            " a\\",
            " <>",
            " < >",
            " (only a comment)",
            " <@a,@b:c>",
        ];
        for value in unchanged {
            assert_eq!(complete(value), value);
        }
        assert_eq!(complete(" g: a;, b"), " g: a;, b@mx", "a group ends");
    }

    proptest! {
        #[test]
        fn nothing_but_domains_is_added(value in "[ -~\n]{0,60}") {
            let completed = complete(&value);
            prop_assert_eq!(completed.replace("@mx", ""), value.replace("@mx", ""));
        }
    }
}
