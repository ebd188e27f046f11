//! Domain patterns: names in which `*` stands for something.
//!
//! A `*` skips to the first occurrence of the character after it and never looks further, so that
//! `*.example.org` covers exactly one label. At the end it stands for at least one character.

use std::collections::HashSet;

/// Patterns, most of them found by hashing.
#[derive(Debug, Default)]
pub(super) struct Domains {
    /// Patterns without a star.
    exact: HashSet<Box<str>>,
    /// What follows `*.` in patterns without another star.
    below: HashSet<Box<str>>,
    /// The pattern `*` alone.
    any: bool,
    /// All others, tried one by one.
    others: Vec<Box<str>>,
}

impl Domains {
    /// The patterns, lower-cased.
    pub fn new<'a>(patterns: impl Iterator<Item = &'a str>) -> Self {
        let mut all = Self::default();
        for pattern in patterns {
            all.insert(pattern);
        }
        all
    }

    /// Adds one, lower-cased.
    pub fn insert(&mut self, pattern: &str) {
        match pattern.strip_prefix("*.") {
            _ if pattern == "*" => self.any = true,
            _ if !pattern.contains('*') => {
                self.exact.insert(pattern.into());
            }
            Some(rest) if !rest.contains('*') => {
                self.below.insert(rest.into());
            }
            _ => self.others.push(pattern.into()),
        }
    }

    /// Whether a pattern matches `name`, lower-cased.
    pub fn contains(&self, name: &str) -> bool {
        let below = || name.split_once('.').is_some_and(|(_, rest)| self.below.contains(rest));
        (self.any && !name.is_empty())
            || self.exact.contains(name)
            || (!self.below.is_empty() && below())
            || self.others.iter().any(|pattern| matches(pattern, name))
    }
}

/// Whether `pattern` matches the whole of `name`; both are lower-cased.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pattern = pattern.as_bytes();
    let mut name = name.as_bytes();
    while let (Some((&wanted, pattern_rest)), Some((&found, name_rest))) =
        (pattern.split_first(), name.split_first())
    {
        if wanted == b'*' {
            pattern = pattern_rest;
            while let Some((b'*', rest)) = pattern.split_first() {
                pattern = rest;
            }
            let skipped = match pattern.first() {
                Some(next) => name.iter().position(|byte| byte == next).unwrap_or(name.len()),
                None => name.len(),
            };
            name = name.get(skipped..).unwrap_or_default();
            continue;
        }
        if wanted != found {
            return false;
        }
        (pattern, name) = (pattern_rest, name_rest);
    }
    pattern.is_empty() && name.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let cases = [
            ("a.org", "a.org", true),
            ("a.org", "b.a.org", false),
            // config case 163
            ("*.wild.org", "a.wild.org", true),
            ("*.wild.org", "a.b.wild.org", false),
            ("*.wild.org", "wild.org", false),
            ("*example.org", "notexample.org", true),
            ("*example.org", "eexample.org", false),
            ("a*c", "abc", true),
            ("a*c", "abcbc", false),
            ("foo*", "foobar", true),
            ("foo*", "foo", false),
            ("pat.*.org", "pat.x.org", true),
            ("pat.*.org", "pat.x.y.org", false),
            ("good.*", "good.host", true),
            ("*", "x", true),
            ("*", "", false),
            ("", "", true),
            ("**", "x", true),
            ("a**b", "a12b", true),
        ];
        for (pattern, name, expected) in cases {
            let found = Domains::new([pattern].into_iter()).contains(name);
            assert_eq!(found, expected, "{pattern:?} {name:?}");
            assert_eq!(matches(pattern, name), expected, "one by one: {pattern:?} {name:?}");
        }
    }
}
