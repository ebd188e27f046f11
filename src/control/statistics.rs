//! What `show stats` makes of the counters of all roles.
//!
//! Each role counts for itself and tells when asked. A name that has never had a value is not
//! listed; once listed it stays, also at zero. Names come from other processes: what is not a name
//! is dropped, and so is what is too much.
//!
//! Source: the queue page of the specification, 8; cases 210 to 212.

use std::collections::{BTreeMap, BTreeSet};

use crate::ipc::message::client::Statistic;

/// Longest name, in bytes.
const MAX_NAME: usize = 64;
/// Most names that are listed.
const MAX_NAMES: usize = 2048;

/// Which names have had a value since this process began.
#[derive(Debug, Default)]
pub struct Registry {
    touched: BTreeSet<String>,
}

/// One answer in the making.
#[derive(Debug, Default)]
pub struct Sum {
    values: BTreeMap<String, i64>,
}

impl Sum {
    /// Adds `value` to what is called `name`: roles that count the same thing count together.
    pub fn add(&mut self, name: &str, value: i64) {
        if !is_name(name) {
            return;
        }
        if let Some(known) = self.values.get_mut(name) {
            *known = known.saturating_add(value);
        } else if self.values.len() < MAX_NAMES {
            self.values.insert(name.to_owned(), value);
        }
    }

    /// Adds all counters of one role.
    pub fn add_all<'a>(&mut self, counters: impl IntoIterator<Item = (&'a str, i64)>) {
        for (name, value) in counters {
            self.add(name, value);
        }
    }
}

impl Registry {
    /// What is listed of `sum`, in order of the names.
    pub fn list(&mut self, sum: Sum) -> Vec<Statistic> {
        let mut listed = Vec::with_capacity(sum.values.len());
        for (name, value) in sum.values {
            if value != 0 && !self.touched.contains(&name) && self.touched.len() < MAX_NAMES {
                self.touched.insert(name.clone());
            }
            if value != 0 || self.touched.contains(&name) {
                listed.push(Statistic { name, value });
            }
        }
        listed
    }
}

/// Lower-case letters, digits, `-`, `_` and dots between them.
fn is_name(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(registry: &mut Registry, counters: &[(&str, i64)]) -> Vec<(String, i64)> {
        let mut sum = Sum::default();
        sum.add_all(counters.iter().copied());
        registry.list(sum).into_iter().map(|one| (one.name, one.value)).collect()
    }

    // queue case 211.
    #[test]
    fn a_name_is_listed_from_its_first_value_on() {
        let mut registry = Registry::default();
        let fresh = [("smtp.session", 0), ("control.session", 1), ("uptime", 3)];
        let listed = list(&mut registry, &fresh);
        assert_eq!(listed, [("control.session".into(), 1), ("uptime".into(), 3)]);
        list(&mut registry, &[("smtp.session", 2)]);
        assert_eq!(list(&mut registry, &[("smtp.session", 0)]), [("smtp.session".into(), 0)]);
    }

    #[test]
    fn roles_that_count_the_same_count_together() {
        let mut registry = Registry::default();
        let listed = list(&mut registry, &[("a", i64::MAX), ("b", 2), ("a", 5), ("b", -3)]);
        assert_eq!(listed, [("a".into(), i64::MAX), ("b".into(), -1)]);
    }

    #[test]
    fn what_is_not_a_name_is_dropped_and_names_are_bounded() {
        let mut registry = Registry::default();
        let long = "x".repeat(MAX_NAME + 1);
        let bad = [("", 1), ("a=b", 1), ("a\nb", 1), ("A", 1), (&long, 1)];
        assert!(list(&mut registry, &bad).is_empty());
        let names: Vec<String> = (0..3 * MAX_NAMES).map(|number| format!("n{number}")).collect();
        let many: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        assert_eq!(list(&mut registry, &many).len(), MAX_NAMES);
    }
}
