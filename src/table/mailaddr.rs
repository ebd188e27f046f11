//! Mail addresses in lists: `user@domain`, `@domain`, `user`, and `@` for everyone.
//!
//! The domain of an entry is a pattern; its user must be equal. An entry whose user has no tag
//! matches the user with any tag.

use std::collections::{HashMap, HashSet};

use super::domain::Domains;

/// The longest local part and the longest domain that match anything, in bytes.
const MAX_PART: usize = 255;

/// Entries by what they name.
#[derive(Debug, Default)]
pub(super) struct MailAddresses {
    everyone: bool,
    users: HashSet<Box<str>>,
    domains: Domains,
    both: HashMap<Box<str>, Domains>,
}

impl MailAddresses {
    /// The entries, lower-cased.
    pub fn new<'a>(entries: impl Iterator<Item = &'a str>) -> Self {
        let mut all = Self::default();
        for (user, domain) in entries.filter_map(split) {
            match (user, domain) {
                ("", "") => all.everyone = true,
                ("", domain) => all.domains.insert(domain),
                (user, "") => {
                    all.users.insert(user.into());
                }
                (user, domain) => all.both.entry(user.into()).or_default().insert(domain),
            }
        }
        all
    }

    /// Whether an entry matches `address`, lower-cased; the null sender is `@` or nothing.
    pub fn contains(&self, address: &str, delimiter: char) -> bool {
        let Some((user, domain)) = split(address) else { return false };
        if self.everyone || self.domains.contains(domain) {
            return true;
        }
        let named = |user: &str| {
            self.users.contains(user)
                || self.both.get(user).is_some_and(|domains| domains.contains(domain))
        };
        // An entry without a delimiter can only be found by the user without its tag, one with a
        // delimiter only by the whole.
        match user.split_once(delimiter) {
            Some((untagged, _)) => named(user) || named(untagged),
            None => named(user),
        }
    }
}

/// User and domain; `None` when a part is too long to be one.
fn split(address: &str) -> Option<(&str, &str)> {
    let (user, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    (user.len() <= MAX_PART && domain.len() <= MAX_PART).then_some((user, domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_addresses() {
        let long = format!("@{}", "x".repeat(256));
        let cases = [
            // config case 154
            ("bob", "bob@z.z", true),
            ("bob", "bob+x@z.z", true),
            ("bob", "rob@z.z", false),
            // config case 155
            ("@bad.org", "x@bad.org", true),
            ("@bad.org", "x@good.org", false),
            ("@*.bad.org", "x@a.bad.org", true),
            // config case 162
            ("alice@rt.org", "alice+x@rt.org", true),
            // config case 193
            ("bob+tag@example.org", "bob@example.org", false),
            ("bob+tag@example.org", "bob+tag@example.org", true),
            ("bob+tag@example.org", "bob+other@example.org", false),
            ("bob@example.org", "bob+tag@example.org", true),
            ("bob@*.org", "bob@example.org", true),
            // config case 194
            ("@", "@", true),
            ("@", "", true),
            ("@", "a@b", true),
            ("bob", "@", false),
            ("@bad.org", "@", false),
            // config case 195
            ("example.org", "bob@example.org", false),
            ("al*@z.org", "alan@z.org", false),
            ("a@b@c", "a@b@c", true),
            (&long, &long, false),
        ];
        for (entry, address, expected) in cases {
            let found = MailAddresses::new([entry].into_iter()).contains(address, '+');
            assert_eq!(found, expected, "{entry:?} {address:?}");
        }
    }
}
