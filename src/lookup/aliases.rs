//! What aliases and virtual recipients stand for: the notation of their values, and the keys under
//! which they are looked for.
//!
//! Source: aliases(5), smtpd.conf(5) on `alias` and `virtual`.

use super::address::Address;

/// The longest value, in bytes.
const MAX_VALUE: usize = 2047;
/// The longest text of an `error:` item, in bytes.
const MAX_ERROR: usize = 1023;
/// The longest user name, in bytes.
const MAX_USER: usize = 255;

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
        let text = text.trim_matches([' ', '\t']);
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

fn split(value: &str) -> Result<Vec<String>, BadValue> {
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
            // config case 276
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
            // config case 277, as decided
            ("bob@my_domain.org", Err(BadValue)),
            ("bob@a@b", Err(BadValue)),
            ("bob@[127.0.0.1]", Err(BadValue)),
            ("a.b@c.d:25", Err(BadValue)),
            // config case 183
            ("bob@example.org # note", Err(BadValue)),
            ("bob # note", Err(BadValue)),
            // characters that a shell could take for more
            ("a$b@d", Err(BadValue)),
            ("a`b@d", Err(BadValue)),
            ("a{b@d", Err(BadValue)),
            ("a|b@d", Err(BadValue)),
            ("a}b@d", Err(BadValue)),
            (&long, Err(BadValue)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text:?}");
        }
        assert_eq!(parse(&"a,".repeat(1024)), Err(BadValue));
        crate::spec_case::ran("config", 276);
    }

    #[test]
    fn keys_of_aliases() {
        assert_eq!(alias_keys("Alice+Tag", '+'), ["alice+tag", "alice"]);
        assert_eq!(alias_keys("bob", '+'), ["bob"]);
        assert_eq!(alias_keys("+x", '+'), ["+x"]);
    }

    #[test]
    fn keys_of_virtual_recipients() {
        // config cases 278, 279
        let tagged = ["nobody+x@v.org", "nobody@v.org", "nobody+x", "nobody", "@v.org", "@"];
        assert_eq!(virtual_keys("Nobody+X", "V.org", '+'), tagged);
        assert_eq!(virtual_keys("u6", "", '+'), ["u6@", "u6"]);
        assert_eq!(virtual_keys("u+", "v", '+'), ["u@v", "u", "@v", "@"]);
    }
}
