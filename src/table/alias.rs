//! What aliases and virtual recipients stand for: the notation of their values, and the keys under
//! which they are looked for.
//!
//! # Keys
//!
//! One ladder holds for every kind of table: inline, file, map and program are asked for the same
//! keys, in lower case, one after the other, and the first that is there decides. `+` stands for the
//! configured delimiter.
//!
//! | | [`alias`](alias_keys) | [`virtual`](virtual_keys) | only if |
//! |---|---|---|---|
//! | 1 | | `user+tag@domain` | there is a tag |
//! | 2 | | `user@domain` | |
//! | 3 | `user+tag` | `user+tag` | there is a tag |
//! | 4 | `user` | `user` | |
//! | 5 | | `@domain` | the domain is the recipient's |
//! | 6 | | `@` | the domain is the recipient's |
//!
//! A user that an entry of a virtual table named has no domain: its keys are `user+tag@`, `user@`,
//! `user+tag`, `user`, and entries for everyone do not count. Who has no entry is looked up in the
//! userbase, without the tag.
//!
//! Source: aliases(5), smtpd.conf(5) on `alias` and `virtual`.

use std::fmt;

use crate::model::Address;

/// The longest value, in bytes.
pub const MAX_VALUE: usize = 2047;
/// The longest text of an `error:` item, in bytes.
const MAX_ERROR: usize = 1023;
/// The longest user name, in bytes.
const MAX_USER: usize = 255;

/// What may be around items and does not belong to them.
const BLANK: [char; 6] = [' ', '\t', '\r', '\n', '\x0b', '\x0c'];

/// What one item of a value names. The order is that in which items are worked on.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Item {
    /// A user of this machine, lower-cased.
    User(String),
    /// A file to append to, by its absolute path.
    File(String),
    /// A shell command.
    Command(String),
    /// A file with more items, by its absolute path.
    Include(String),
    /// An address, which the rules are asked about.
    Address(Address),
    /// A refusal: reply code, space, text.
    Error(String),
}

/// The item as a value has it: [`parse`] of one that it made gives it back.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => f.write_str(name),
            Self::File(path) => Protected(path).fmt(f),
            // Without the quotes, blanks at the end would not be its own.
            Self::Command(command) if command.ends_with(BLANK) => {
                write!(f, "\"|{}\"", Protected(command))
            }
            Self::Command(command) => write!(f, "|{}", Protected(command)),
            Self::Include(path) => write!(f, ":include:{}", Protected(path)),
            Self::Address(address) => Protected(&address.to_string()).fmt(f),
            Self::Error(text) => write!(f, "error:{}", Protected(text)),
        }
    }
}

/// Text with a backslash before each character that would mean something.
struct Protected<'a>(&'a str);

impl fmt::Display for Protected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if matches!(character, '\\' | ',' | '"' | '\'' | '#') {
                f.write_str("\\")?;
            }
            write!(f, "{character}")?;
        }
        Ok(())
    }
}

/// A value holds something that is no item.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a list of users, addresses, commands and files")]
pub struct BadValue;

/// Reads a value: items separated by commas, outside of quotes. A backslash protects the next
/// character and goes away, quotes stay, empty items count as nothing.
///
/// # Errors
/// [`BadValue`]: one of the items is none, a quote is open, the last character is a backslash, or
/// the value has 2048 bytes or more.
pub fn parse(value: &str) -> Result<Vec<Item>, BadValue> {
    if value.len() > MAX_VALUE {
        return Err(BadValue);
    }
    let mut items = Vec::new();
    for text in split(value)? {
        let text = text.trim_matches(BLANK);
        if !text.is_empty() {
            items.push(item(text).ok_or(BadValue)?);
        }
    }
    Ok(items)
}

/// The keys of an alias table for a user, lower-cased, in the order in which they are tried.
#[must_use]
pub fn alias_keys(user: &str, delimiter: char) -> Vec<String> {
    let user = user.to_ascii_lowercase();
    match user.split_once(delimiter) {
        Some((name, _)) if !name.is_empty() => vec![user.clone(), name.to_owned()],
        _ => vec![user],
    }
}

/// The keys of a virtual table for a recipient, lower-cased, in the order in which they are tried. A
/// user that another entry led to has no domain: then no entry for all users counts.
#[must_use]
pub fn virtual_keys(user: &str, domain: &str, delimiter: char) -> Vec<String> {
    let (user, domain) = (user.to_ascii_lowercase(), domain.to_ascii_lowercase());
    let (name, tagged) = match user.split_once(delimiter) {
        Some((name, tag)) => (name, (!tag.is_empty()).then_some(user.as_str())),
        None => (user.as_str(), None),
    };
    let mut keys = Vec::with_capacity(6);
    keys.extend(tagged.map(|user| format!("{user}@{domain}")));
    keys.push(format!("{name}@{domain}"));
    keys.extend(tagged.map(str::to_owned));
    keys.push(name.to_owned());
    if !domain.is_empty() {
        keys.push(format!("@{domain}"));
        keys.push("@".to_owned());
    }
    keys
}

/// The items of a value, with the blanks around them.
pub(super) fn split(value: &str) -> Result<Vec<String>, BadValue> {
    let mut items = vec![String::new()];
    let mut quote = None;
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        let kept = match character {
            '\\' => characters.next().ok_or(BadValue)?,
            ',' if quote.is_none() => {
                items.push(String::new());
                continue;
            }
            '"' | '\'' => {
                match quote {
                    None => quote = Some(character),
                    Some(open) if open == character => quote = None,
                    Some(_) => {}
                }
                character
            }
            other => other,
        };
        if let Some(item) = items.last_mut() {
            item.push(kept);
        }
    }
    if quote.is_some() { Err(BadValue) } else { Ok(items) }
}

/// One item, trimmed and not empty.
fn item(text: &str) -> Option<Item> {
    if text.contains('\0') {
        return None;
    }
    if let Some(rest) = after_word(text, "error:") {
        return is_error(rest).then(|| Item::Error(rest.to_owned()));
    }
    if let Some(path) = after_word(text, "include:") {
        return path.starts_with('/').then(|| Item::Include(path.to_owned()));
    }
    let unquoted = text.strip_prefix("\"|").and_then(|text| text.strip_suffix('"'));
    if let Some(command) = unquoted.or_else(|| text.strip_prefix('|')) {
        return (!command.is_empty()).then(|| Item::Command(command.to_owned()));
    }
    if text.starts_with('/') {
        return Some(Item::File(text.to_owned()));
    }
    match text.split_once('@') {
        Some((local, domain)) => {
            is_address(local, domain).then(|| Item::Address(Address::new(local, domain)))
        }
        None => is_user(text).then(|| Item::User(text.to_ascii_lowercase())),
    }
}

/// What follows `word`, in any case, with or without a colon before it.
fn after_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let text = text.strip_prefix(':').unwrap_or(text);
    let head = text.get(..word.len())?;
    if head.eq_ignore_ascii_case(word) { text.get(word.len()..) } else { None }
}

/// Three digits of which the first is 4 or 5, a space, and text that begins with a letter or digit.
fn is_error(text: &str) -> bool {
    let [b'4' | b'5', tens, units, b' ', first, ..] = text.as_bytes() else { return false };
    text.len() <= MAX_ERROR
        && tens.is_ascii_digit()
        && units.is_ascii_digit()
        && first.is_ascii_alphanumeric()
}

fn is_address(local: &str, domain: &str) -> bool {
    let in_local = |byte: u8| byte.is_ascii_alphanumeric() || b"!#%*/?^~&'+-=_.".contains(&byte);
    let in_domain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    !local.is_empty()
        && !domain.is_empty()
        && local.bytes().all(in_local)
        && domain.bytes().all(in_domain)
}

fn is_user(text: &str) -> bool {
    let in_user = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-+".contains(&byte);
    text.len() <= MAX_USER && text.bytes().all(in_user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_case;

    fn user(name: &str) -> Item {
        Item::User(name.to_owned())
    }

    fn command(text: &str) -> Item {
        Item::Command(text.to_owned())
    }

    #[test]
    fn values() {
        let address = |local, domain| Item::Address(Address::new(local, domain));
        let error = |text: &str| Item::Error(text.to_owned());
        let long = "a".repeat(256);
        let cases = [
            ("bob", Ok(vec![user("bob")])),
            ("Bob+Tag, _x.y-z+1", Ok(vec![user("bob+tag"), user("_x.y-z+1")])),
            ("bob,,alice", Ok(vec![user("bob"), user("alice")])),
            ("bob,", Ok(vec![user("bob")])),
            ("", Ok(vec![])),
            ("Bob@Example.ORG", Ok(vec![address("Bob", "Example.ORG")])),
            ("user@example.org.", Ok(vec![address("user", "example.org.")])),
            ("!#%*/?^~&+-=_.@d", Ok(vec![address("!#%*/?^~&+-=_.", "d")])),
            (r"o\'neil@d", Ok(vec![address("o'neil", "d")])),
            ("|/bin/cat", Ok(vec![command("/bin/cat")])),
            ("\"|/bin/cat -n\"", Ok(vec![command("/bin/cat -n")])),
            ("|\"/bin/cat -n\"", Ok(vec![command("\"/bin/cat -n\"")])),
            ("\"|a, b\", bob", Ok(vec![command("a, b"), user("bob")])),
            (r"|a\, b", Ok(vec![command("a, b")])),
            ("/var/mail/x y", Ok(vec![Item::File("/var/mail/x y".to_owned())])),
            (":include:/a", Ok(vec![Item::Include("/a".to_owned())])),
            ("INCLUDE:/a", Ok(vec![Item::Include("/a".to_owned())])),
            ("error:550 5.1.1 gone away", Ok(vec![error("550 5.1.1 gone away")])),
            (":Error:450 later", Ok(vec![error("450 later")])),
            ("alice, error:550 5.1.1 m", Ok(vec![user("alice"), error("550 5.1.1 m")])),
            ("error:550 ", Err(BadValue)),
            ("error:250 ok", Err(BadValue)),
            ("error:550 !x", Err(BadValue)),
            (":include:relative", Err(BadValue)),
            ("@example.org", Err(BadValue)),
            ("bob@", Err(BadValue)),
            ("bob smith", Err(BadValue)),
            ("bob!x", Err(BadValue)),
            ("$HOME", Err(BadValue)),
            ("~/x", Err(BadValue)),
            (": bob", Err(BadValue)),
            ("#c", Err(BadValue)),
            ("|", Err(BadValue)),
            ("\"|cat", Err(BadValue)),
            ("bob\\", Err(BadValue)),
            ("bob@my_domain.org", Err(BadValue)),
            ("bob@a@b", Err(BadValue)),
            ("bob@[127.0.0.1]", Err(BadValue)),
            ("a.b@c.d:25", Err(BadValue)),
            ("bob@example.org # note", Err(BadValue)),
            ("bob # note", Err(BadValue)),
            // characters that a shell could take for more
            ("a$b@d", Err(BadValue)),
            ("a`b@d", Err(BadValue)),
            ("a{b@d", Err(BadValue)),
            ("a|b@d", Err(BadValue)),
            ("a}b@d", Err(BadValue)),
            (&long, Err(BadValue)),
            ("|x\0y", Err(BadValue)),
            ("bob\r", Ok(vec![user("bob")])),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text:?}");
        }
        assert_eq!(parse(&"a,".repeat(1024)), Err(BadValue));
        // 277 as decided: what is no address is no user either.
        for number in [183, 276, 277] {
            spec_case::ran("config", number);
        }
    }

    #[test]
    fn an_item_is_written_as_it_is_read() {
        let cases = [
            ("\"|/bin/cat -n\"", "|/bin/cat -n"),
            ("|\"/bin/cat\" -n", r#"|\"/bin/cat\" -n"#),
            (r"|a\, b", r"|a\, b"),
            (r"o\'neil@d", r"o\'neil@d"),
            ("/a #b", r"/a \#b"),
            (":ERROR:550 no", "error:550 no"),
            ("\"|x \"", "\"|x \""),
        ];
        for (text, expected) in cases {
            let items = parse(text).unwrap();
            assert_eq!(items[0].to_string(), expected, "{text:?}");
            assert_eq!(parse(expected), Ok(items), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_was_read_is_read_again(value in "([a-zA-Z0-9@/|:,\"'#\\\\ .+-]|error:550 |include:/){0,30}") {
            if let Ok(items) = parse(&value) {
                for item in items {
                    let text = item.to_string();
                    if text.len() <= MAX_VALUE {
                        proptest::prop_assert_eq!(parse(&text), Ok(vec![item]), "{}", text);
                    }
                }
            }
        }
    }

    #[test]
    fn keys_of_aliases() {
        assert_eq!(alias_keys("Alice+Tag", '+'), ["alice+tag", "alice"]);
        assert_eq!(alias_keys("bob", '+'), ["bob"]);
        assert_eq!(alias_keys("+x", '+'), ["+x"]);
    }

    #[test]
    fn keys_of_virtual_recipients() {
        let tagged = ["nobody+x@v.org", "nobody@v.org", "nobody+x", "nobody", "@v.org", "@"];
        assert_eq!(virtual_keys("Nobody+X", "V.org", '+'), tagged);
        assert_eq!(virtual_keys("u6", "", '+'), ["u6@", "u6"]);
        assert_eq!(virtual_keys("u+", "v", '+'), ["u@v", "u", "@v", "@"]);
        for number in [278, 279] {
            spec_case::ran("config", number);
        }
    }
}
