//! Mail addresses in lists: `user@domain`, `@domain`, `user`, and `@` for everyone.
//!
//! The domain of an entry is a pattern; its user must be equal. An entry whose user has no tag
//! matches the user with any tag.
//!
//! Where entries are kept is the caller's business: [`plain_entries`] names those that match an
//! address and can be looked for; of the others ([`is_plain`] says which) [`matches()`] tells.

use memchr::memrchr;

use super::domain;

/// An entry that is kept, and compared with many addresses.
#[derive(Debug)]
pub(super) struct Entry {
    /// Lower-cased; empty for every user.
    user: Box<[u8]>,
    /// `None` for every domain.
    domain: Option<domain::Pattern>,
}

/// An address that is kept, and compared with many entries.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// Lower-cased.
    user: Box<[u8]>,
    /// The user without the tag, if it has one; lower-cased.
    untagged: Option<Box<[u8]>>,
    domain: domain::Name,
}

impl Entry {
    /// The entry that is written so; `None` when a part is too long to match anything.
    pub fn new(entry: &str) -> Option<Self> {
        let (user, domain) = split(entry)?;
        let domain = (!domain.is_empty()).then(|| domain::Pattern::new(domain));
        Some(Self { user: lower(user), domain })
    }

    /// As [`matches()`].
    #[inline]
    pub fn matches(&self, address: &Address) -> bool {
        // Where entries have a user, most of them differ in it.
        (self.user.is_empty()
            || self.user == address.user
            || address.untagged.as_ref() == Some(&self.user))
            && self.domain.as_ref().is_none_or(|domain| domain.matches(&address.domain))
    }
}

impl Address {
    /// The address that is written so; `None` when a part is too long to be one.
    pub fn new(address: &str, delimiter: char) -> Option<Self> {
        let (user, domain) = split(address)?;
        let untagged = user.split_once(delimiter).map(|(untagged, _)| lower(untagged));
        Some(Self { user: lower(user), untagged, domain: domain::Name::new(domain) })
    }
}

fn lower(text: &str) -> Box<[u8]> {
    text.to_ascii_lowercase().into_bytes().into()
}

/// Whether [`plain_entries`] has this entry for every address that it matches.
pub(super) fn is_plain(entry: &[u8]) -> bool {
    match memrchr(b'@', entry) {
        Some(at) => domain::is_plain(entry.get(at + 1..).unwrap_or_default()),
        None => true,
    }
}

/// The plain entries that match `address`, lower-cased; the null sender is `@` or nothing.
pub(super) fn plain_entries(address: &str, delimiter: char) -> Vec<String> {
    let Some((user, domain)) = split(address) else { return Vec::new() };
    let mut entries = vec!["@".to_owned(), String::new()];
    let patterns: Vec<String> = match domain {
        "" => Vec::new(),
        domain => domain::plain_patterns(domain).collect(),
    };
    entries.extend(patterns.iter().map(|pattern| format!("@{pattern}")));
    for user in users(user, delimiter) {
        // Without a domain, what follows an `@` of the user would be taken for one.
        if !user.contains('@') {
            entries.push(user.to_owned());
        }
        entries.push(format!("{user}@"));
        entries.extend(patterns.iter().map(|pattern| format!("{user}@{pattern}")));
    }
    entries
}

/// Whether `entry` matches `address`, in any case.
pub(super) fn matches(entry: &[u8], address: &str, delimiter: char) -> bool {
    let (wanted_user, wanted_domain) = match memrchr(b'@', entry) {
        Some(at) => (entry.get(..at).unwrap_or_default(), entry.get(at + 1..).unwrap_or_default()),
        None => (entry, &[][..]),
    };
    let Some((user, domain)) = split(address) else { return false };
    if wanted_user.len().max(wanted_domain.len()) > domain::MAX_NAME {
        return false;
    }
    // Most entries differ in the domain.
    if !wanted_domain.is_empty() && !domain::matches(wanted_domain, domain.as_bytes()) {
        return false;
    }
    wanted_user.is_empty()
        || users(user, delimiter).any(|user| user.as_bytes().eq_ignore_ascii_case(wanted_user))
}

/// The names under which a user may be listed: in full, which alone finds an entry with a tag, and
/// without the tag.
fn users(user: &str, delimiter: char) -> impl Iterator<Item = &str> {
    let untagged = user.split_once(delimiter).map(|(untagged, _)| untagged);
    [Some(user), untagged].into_iter().flatten().filter(|user| !user.is_empty())
}

/// User and domain; `None` when a part is too long to be one. Of an entry, too.
fn split(address: &str) -> Option<(&str, &str)> {
    let at = memrchr(b'@', address.as_bytes());
    let (user, domain) = match at.and_then(|at| address.split_at_checked(at)) {
        Some((user, rest)) => (user, rest.get(1..).unwrap_or_default()),
        None => (address, ""),
    };
    (user.len() <= domain::MAX_NAME && domain.len() <= domain::MAX_NAME).then_some((user, domain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_case;

    #[test]
    fn entries_and_addresses() {
        let long = format!("@{}", "x".repeat(256));
        let cases = [
            (154, "bob", "bob@z.z", true),
            (154, "bob", "bob+x@z.z", true),
            (0, "bob", "rob@z.z", false),
            (155, "@bad.org", "x@bad.org", true),
            (155, "@bad.org", "x@good.org", false),
            (0, "@*.bad.org", "x@a.bad.org", true),
            (0, "@*bad.org", "x@notbad.org", true),
            (162, "alice@rt.org", "alice+x@rt.org", true),
            (193, "bob+tag@example.org", "bob@example.org", false),
            (193, "bob+tag@example.org", "bob+tag@example.org", true),
            (0, "bob+tag@example.org", "bob+other@example.org", false),
            (193, "bob@example.org", "bob+tag@example.org", true),
            (0, "bob@*.org", "bob@example.org", true),
            (0, "bob@ex*.org", "bob+x@example.org", true),
            (0, "rob@ex*.org", "bob@example.org", false),
            (0, "bob@", "bob@example.org", true),
            (194, "@", "@", true),
            (194, "@", "", true),
            (0, "", "a@b", true),
            (0, "@", "a@b", true),
            (0, "bob", "@", false),
            (0, "bob", "bob@", true),
            (0, "@bad.org", "@", false),
            (0, "@*", "@", false),
            (195, "example.org", "bob@example.org", false),
            (196, "al*@z.org", "alan@z.org", false),
            (0, "a@b@c", "a@b@c", true),
            (0, "a@b", "a@b@c", false),
            (0, &long, &long, false),
        ];
        for (number, entry, address, expected) in cases {
            if is_plain(entry.as_bytes()) {
                let found = plain_entries(address, '+').iter().any(|plain| plain == entry);
                assert_eq!(found, expected, "config case {number}: {entry:?} {address:?}");
            }
            let kept = Entry::new(&entry.to_uppercase())
                .zip(Address::new(address, '+'))
                .is_some_and(|(entry, address)| entry.matches(&address));
            assert_eq!(kept, expected, "config case {number}, kept: {entry:?} {address:?}");
            let found = matches(entry.as_bytes(), &address.to_uppercase(), '+');
            assert_eq!(found, expected, "config case {number}, alone: {entry:?} {address:?}");
            spec_case::ran("config", number);
        }
    }
}
