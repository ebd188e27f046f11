//! What a system offers, as a value that the administrator sees.

use std::fmt;

/// Whether the system has something, and what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Support {
    /// All of it; the text names the mechanism.
    Full(String),
    /// Some of it; the text says what is missing.
    Partial(String),
    /// Nothing; the text says why.
    None(String),
}

impl Support {
    /// All of it, by this mechanism.
    pub fn full(mechanism: impl Into<String>) -> Self {
        Self::Full(mechanism.into())
    }

    /// Some of it; `missing` says what is not there.
    pub fn partial(missing: impl Into<String>) -> Self {
        Self::Partial(missing.into())
    }

    /// Nothing, for this reason.
    pub fn none(reason: impl Into<String>) -> Self {
        Self::None(reason.into())
    }

    /// Whether nothing is missing.
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// Whether nothing is there.
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None(_))
    }

    /// What two mechanisms that belong together offer: full only if both are.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Full(one), Self::Full(two)) => Self::Full(format!("{one}, {two}")),
            (Self::None(one), Self::None(two)) => Self::None(format!("{one}; {two}")),
            (one, two) => Self::Partial(format!("{one}; {two}")),
        }
    }
}

impl fmt::Display for Support {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(text) => write!(formatter, "{text}"),
            Self::Partial(text) => write!(formatter, "in part: {text}"),
            Self::None(text) => write!(formatter, "none: {text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Support;

    #[test]
    fn together_two_mechanisms_are_full_only_if_both_are() {
        let full = || Support::full("a");
        let none = || Support::none("b");
        assert_eq!(full().and(full()), Support::full("a, a"));
        assert_eq!(none().and(none()), Support::none("b; b"));
        assert_eq!(full().and(none()), Support::partial("a; none: b"));
        assert_eq!(none().and(full()).to_string(), "in part: none: b; a");
    }
}
