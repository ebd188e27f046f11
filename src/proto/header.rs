//! Address headers: a domain for addresses that have none, another address instead of them all.
//!
//! The value is looked at element by element, between commas that are outside quotes, comments
//! and escapes. Everything is copied as it stands, folding included; the domain is inserted where
//! an element needs it. An element that cannot be understood is left alone. Sources: RFC 5322
//! section 3.4; the SMTP page of the specification, 1.9.

use std::ops::Range;

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

/// Appends `value`, the text of a From header behind its colon, to `output`, with `address` instead
/// of every address in it: of what is between angle brackets, or without them of the last word.
/// Display names and comments stay. Line ends in `value` count as blanks; a header of blanks alone
/// gets the address.
pub fn replace_addresses(value: &[u8], address: &str, output: &mut Vec<u8>) {
    if value.trim_ascii().is_empty() {
        let end = value.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
        let (blanks, line_end) = value.split_at(end.map_or(0, |last| last + 1));
        output.extend_from_slice(blanks);
        output.extend_from_slice(address.as_bytes());
        output.extend_from_slice(line_end);
        return;
    }
    let mut rest = value;
    let mut in_group = false;
    loop {
        let element = Element::read(rest, in_group);
        let (text, behind) = rest.split_at_checked(element.length).unwrap_or((rest, b""));
        match element
            .address
            .and_then(|range| Some((text.get(..range.start)?, text.get(range.end..)?)))
        {
            Some((before, after)) => {
                for part in [before, address.as_bytes(), after] {
                    output.extend_from_slice(part);
                }
            }
            None => output.extend_from_slice(text),
        }
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
    /// What is between its brackets, or else its last word; not of a group.
    address: Option<Range<usize>>,
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
        let mut grouped = in_group;
        // Position behind the last byte that is neither blank nor in a comment.
        let mut last = None;
        // Inside brackets, and where the domain goes there.
        let mut bracket = false;
        let mut in_bracket = None;
        let mut had_bracket = false;
        let mut between = 0..0;
        // Where the last word begins, and whether the next byte begins one.
        let mut word = 0;
        let mut apart = true;
        let mut length = text.len();
        for (position, &byte) in text.iter().enumerate() {
            let escapes = escaped;
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
                        grouped = true;
                        in_group = true;
                    }
                    b';' => {
                        untouched = true;
                        grouped = true;
                        in_group = false;
                    }
                    b'<' => {
                        balanced &= !had_bracket;
                        had_bracket = true;
                        bracket = true;
                        between = position + 1..position + 1;
                        continue;
                    }
                    b'>' => {
                        balanced &= bracket;
                        bracket = false;
                        between.end = position;
                        continue;
                    }
                    _ => {}
                }
            }
            if comments > 0 {
                continue;
            }
            let blank = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
            if blank && !quoted && !escapes {
                apart = true;
            } else if !bracket && std::mem::take(&mut apart) {
                word = position;
            }
            if !blank {
                let behind = Some(position + 1);
                if bracket { in_bracket = behind } else { last = behind }
            }
        }
        let whole = balanced && !escaped && !quoted && comments == 0 && !bracket;
        let place = if had_bracket { in_bracket } else { last };
        let address = if had_bracket { Some(between) } else { last.map(|end| word..end) };
        Self {
            length,
            address: address.filter(|_| whole && !grouped),
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

    // Proves: smtp case 192 (the values).
    #[test]
    fn every_address_of_a_header_is_replaced() {
        let cases = [
            (" evil@x", " me@b"),
            (" a b <c@d> (x)", " a b <me@b> (x)"),
            ("", "me@b"),
            ("\n", "me@b\n"),
            (" \t\n", " \tme@b\n"),
            (" a@b, \"c, d\" <e@f>,\n\tg (h)", " me@b, \"c, d\" <me@b>,\n\tme@b (h)"),
            (" evil@x (comment)\n", " me@b (comment)\n"),
            (" (comment) evil@x", " (comment) me@b"),
            (" Foo Bar", " Foo me@b"),
            (" \"a b\"", " me@b"),
            (" \"a b\"@c", " me@b"),
            (" a\\ b", " me@b"),
            (" ev(x)il@x", " me@b"),
            (" x<>", " x<me@b>"),
            (" < a@b >", " <me@b>"),
            (" ,a,,", " ,me@b,,"),
            (" g: a@b;, c", " g: a@b;, me@b"),
        ];
        for (value, expected) in cases {
            let mut output = Vec::new();
            replace_addresses(value.as_bytes(), "me@b", &mut output);
            assert_eq!(String::from_utf8(output).unwrap(), expected, "{value:?}");
        }
        let unchanged =
            [" grp: a@b;", " g: a, b", " \"unbalanced", " <a", " a>", " (a", " a\\", " a <b> <c>"];
        for value in unchanged {
            let mut output = Vec::new();
            replace_addresses(value.as_bytes(), "me@b", &mut output);
            assert_eq!(String::from_utf8(output).unwrap(), value);
        }
    }

    proptest! {
        #[test]
        fn nothing_but_addresses_is_replaced(value in "[ -~\n]{0,60}") {
            let mut output = Vec::new();
            replace_addresses(value.as_bytes(), "", &mut output);
            // What is left is in the same order.
            let mut rest = value.bytes();
            prop_assert!(output.iter().all(|byte| rest.any(|other| other == *byte)));
        }

        #[test]
        fn nothing_but_domains_is_added(value in "[ -~\n]{0,60}") {
            let completed = complete(&value);
            prop_assert_eq!(completed.replace("@mx", ""), value.replace("@mx", ""));
        }
    }
}
