//! A mail address as rules and expansion see it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Local part and domain, as given by the sender. The null sender has neither.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Address {
    /// What is before the `@`, case kept.
    pub local: String,
    /// What is after it.
    pub domain: String,
}

impl Address {
    /// The address of these parts.
    #[must_use]
    pub fn new(local: &str, domain: &str) -> Self {
        Self { local: local.to_owned(), domain: domain.to_owned() }
    }

    /// Whether it is the null sender.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.local.is_empty() && self.domain.is_empty()
    }
}

/// `local@domain`; the null sender is `@`, as in tables.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}
