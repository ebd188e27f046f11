//! Replies that filters give to clients.

use crate::proto::reply::MAX_LINE;

/// What a client is told when a filter fails, or gives a reply that is none; the session ends.
pub const INTERNAL: &str = "421 Internal server error";

/// A reply as a client may see it: `4yz` or `5yz`, a blank, at least one byte of text, on one line of
/// printable ASCII, cut where replies are. `None` for what is no such reply.
#[must_use]
pub fn reply(text: &[u8]) -> Option<String> {
    let [b'4' | b'5', tens, ones, b' ', _, ..] = text else { return None };
    if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
        return None;
    }
    let printable = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '?',
    };
    Some(text.iter().take(MAX_LINE).map(printable).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_are_replies() {
        let cases = [
            ("550 nope", Some("550 nope")),
            ("421 4.7.0 go", Some("421 4.7.0 go")),
            ("450 x", Some("450 x")),
            ("550 a\r\tb\u{e9}", Some("550 a??b??")),
            ("550 ", None),
            ("550", None),
            ("", None),
            ("200 ok", None),
            ("55 foo", None),
            ("550-foo", None),
            ("5x0 foo", None),
            (" 550 foo", None),
        ];
        for (text, expected) in cases {
            assert_eq!(reply(text.as_bytes()).as_deref(), expected, "{text:?}");
        }
        assert!(reply(INTERNAL.as_bytes()).is_some());
        let long = format!("550 {}", "x".repeat(60_000));
        assert_eq!(reply(long.as_bytes()).as_deref(), long.get(..MAX_LINE));
    }
}
