//! Domain patterns: names in which `*` stands for something.
//!
//! A `*` skips to the first occurrence of the character after it and never looks further, so that
//! `*.example.org` covers exactly one label. At the end it stands for at least one character.
//!
//! A pattern without a star, one whose only star is its first label, and `*` alone are *plain*: they
//! are found by looking for the few that could match ([`plain_patterns`]). The others have to be
//! tried one by one ([`matches()`]).

use memchr::memchr;

/// The longest name that matches anything, in bytes.
pub(super) const MAX_NAME: usize = 255;

/// A pattern that is kept, and compared with many names.
#[derive(Debug)]
pub(super) struct Pattern {
    /// Lower-cased.
    text: Box<[u8]>,
    shape: Shape,
}

/// How a pattern is compared.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// With every name but the empty one.
    Any,
    /// With what comes after the first label of a name.
    Below,
    /// With the whole of a name.
    Name,
    /// Byte by byte.
    Other,
}

/// A name that is kept, and compared with many patterns.
#[derive(Clone, Debug)]
pub(super) struct Name {
    /// Lower-cased.
    text: Box<[u8]>,
    /// Where what comes after its first label begins.
    below: Option<usize>,
}

impl Pattern {
    /// The pattern that is written so.
    pub fn new(pattern: &str) -> Self {
        let text: Box<[u8]> = pattern.to_ascii_lowercase().into_bytes().into();
        let shape = match &*text {
            b"*" => Shape::Any,
            text if !is_plain(text) => Shape::Other,
            [b'*', b'.', ..] => Shape::Below,
            _ => Shape::Name,
        };
        Self { text, shape }
    }

    /// As [`matches()`].
    #[inline]
    pub fn matches(&self, name: &Name) -> bool {
        match self.shape {
            Shape::Any => !name.text.is_empty(),
            Shape::Below => {
                let below = name.below.and_then(|below| name.text.get(below..));
                below.is_some_and(|below| self.text.get(2..) == Some(below))
            }
            Shape::Name => self.is(name),
            Shape::Other => matches(&self.text, &name.text),
        }
    }

    /// Whether it is written as the name is, in any case.
    #[inline]
    pub fn is(&self, name: &Name) -> bool {
        self.text == name.text
    }
}

impl Name {
    /// The name that is written so.
    pub fn new(name: &str) -> Self {
        let text: Box<[u8]> = name.to_ascii_lowercase().into_bytes().into();
        let below = memchr(b'.', &text).map(|dot| dot + 1);
        Self { text, below }
    }
}

/// Whether [`plain_patterns`] has this pattern for every name that it matches.
pub(super) fn is_plain(pattern: &[u8]) -> bool {
    let rest = pattern.strip_prefix(b"*.").unwrap_or(pattern);
    pattern == b"*" || !rest.contains(&b'*')
}

/// The plain patterns that match `name`.
pub(super) fn plain_patterns(name: &str) -> impl Iterator<Item = String> {
    let exact = Some(name.to_owned());
    let below = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
    let any = (!name.is_empty()).then(|| "*".to_owned());
    [exact, below, any].into_iter().flatten()
}

/// Whether `pattern` matches the whole of `name`, in any case.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut pattern, mut name) = (pattern, name);
    while let (Some((&wanted, pattern_rest)), Some((&found, name_rest))) =
        (pattern.split_first(), name.split_first())
    {
        if wanted == b'*' {
            pattern = pattern_rest;
            while let Some((b'*', rest)) = pattern.split_first() {
                pattern = rest;
            }
            let skipped = match pattern.first() {
                Some(next) => name.iter().position(|byte| byte.eq_ignore_ascii_case(next)),
                None => None,
            };
            name = name.get(skipped.unwrap_or(name.len())..).unwrap_or_default();
            continue;
        }
        if !wanted.eq_ignore_ascii_case(&found) {
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
            ("*.wild.org", ".wild.org", true),
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
            ("*.*", "a.b", true),
        ];
        for (pattern, name, expected) in cases {
            let upper = name.to_ascii_uppercase();
            let found = matches(pattern.as_bytes(), upper.as_bytes());
            assert_eq!(found, expected, "one by one: {pattern:?} {name:?}");
            let found = Pattern::new(&pattern.to_ascii_uppercase()).matches(&Name::new(name));
            assert_eq!(found, expected, "kept: {pattern:?} {name:?}");
            if is_plain(pattern.as_bytes()) {
                let found = plain_patterns(name).any(|plain| plain == pattern);
                assert_eq!(found, expected, "by looking: {pattern:?} {name:?}");
            }
        }
    }

    #[test]
    fn a_pattern_matches_itself_so_it_may_be_looked_for_as_a_name() {
        for pattern in ["a.org", "*.org", "*", "a*c", "x*", "*y", "**c", "a*a*b"] {
            assert!(matches(pattern.as_bytes(), pattern.as_bytes()), "{pattern}");
        }
    }

    #[test]
    fn plain_ones_have_their_star_in_front() {
        for plain in ["", "a.org", "*", "*.a.org", "*."] {
            assert!(is_plain(plain.as_bytes()), "{plain}");
        }
        for other in ["**", "*a.org", "a.*", "*.*", "*.a*.org", "x*"] {
            assert!(!is_plain(other.as_bytes()), "{other}");
        }
    }
}
