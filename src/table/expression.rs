//! Regular expressions in lists, in the notation of POSIX extended expressions.
//!
//! They are taken as written and ignore ASCII case. They run in time linear in the text: constructs
//! that cannot, such as back references, are invalid.

use regex::bytes::{RegexSet, RegexSetBuilder};

/// How many expressions are compiled into one automaton.
const SET_SIZE: usize = 64;

/// Compiled expressions.
#[derive(Debug)]
pub(super) struct Expressions {
    sets: Vec<RegexSet>,
    invalid: Vec<String>,
}

impl Expressions {
    /// Compiles what can be compiled.
    pub fn new<'a>(patterns: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut all = Self { sets: Vec::new(), invalid: Vec::new() };
        let mut texts = Vec::new();
        for pattern in patterns {
            match std::str::from_utf8(pattern) {
                Ok(text) => texts.push(text),
                Err(_) => all.invalid.push(String::from_utf8_lossy(pattern).into_owned()),
            }
        }
        for some in texts.chunks(SET_SIZE) {
            match compile(some) {
                Some(set) => all.sets.push(set),
                None => all.add_one_by_one(some),
            }
        }
        all
    }

    /// For a group with an invalid expression: the others of it are used all the same.
    fn add_one_by_one(&mut self, patterns: &[&str]) {
        for &pattern in patterns {
            match compile(&[pattern]) {
                Some(set) => self.sets.push(set),
                None => self.invalid.push(pattern.to_owned()),
            }
        }
    }

    /// Whether one of them matches somewhere in `text`.
    pub fn matches(&self, text: &str) -> bool {
        self.sets.iter().any(|set| set.is_match(text.as_bytes()))
    }

    /// What could not be compiled.
    pub fn invalid(&self) -> &[String] {
        &self.invalid
    }
}

fn compile(patterns: &[&str]) -> Option<RegexSet> {
    RegexSetBuilder::new(patterns).unicode(false).case_insensitive(true).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_and_texts() {
        let cases = [
            // config case 153
            ("^@$", "@", true),
            ("^@$", "a@b.c", false),
            // config case 157
            ("^TAG", "tagged", true),
            // config case 161
            (r"^re[0-9]+\\.org$", "re12.org", false),
            (r"^re[0-9]+\.org$", "re12.org", true),
            // config case 167
            (r"\.rdns\.example$", "mail.rdns.example", true),
            // config case 191
            ("^[A-Z]+$", "abc", true),
            ("^[A-Z]+$", "123", false),
            ("(?i)x", "X", true),
            ("[[:digit:]]{2}", "a12", true),
            (r"\S", " ", false),
            ("b.r", "bür", false),
        ];
        for (pattern, text, expected) in cases {
            let found = Expressions::new([pattern.as_bytes()].into_iter()).matches(text);
            assert_eq!(found, expected, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn an_invalid_expression_matches_nothing_and_is_named() {
        let patterns: [&[u8]; 5] = [b"a", b"\xff", b"(", br"\1", b"b"];
        let all = Expressions::new(patterns.into_iter());
        assert_eq!(all.invalid(), ["\u{fffd}", "(", r"\1"]);
        assert!(all.matches("xbx") && all.matches("a") && !all.matches("("));
    }
}
