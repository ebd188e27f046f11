//! Whether everybody in a table can log in with SCRAM, found out once for its contents.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::config::TableId;

/// What is known of tables as they are now.
#[derive(Debug, Default)]
pub(in crate::lookup) struct Verifiers {
    tables: Mutex<HashMap<TableId, Known>>,
}

/// The contents that were looked through, and what was found.
type Known = (Weak<dyn Any + Send + Sync>, bool);

impl Verifiers {
    /// What `look` finds in these contents, or has found before.
    pub(in crate::lookup) fn of<T: Any + Send + Sync>(
        &self,
        table: TableId,
        contents: &Arc<T>,
        look: impl FnOnce() -> bool,
    ) -> bool {
        let contents: Arc<dyn Any + Send + Sync> = Arc::<T>::clone(contents);
        let place = Arc::downgrade(&contents);
        let known = |tables: &HashMap<TableId, Known>| {
            let (before, found) = tables.get(&table)?;
            std::ptr::addr_eq(before.as_ptr(), place.as_ptr()).then_some(*found)
        };
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known(&tables) {
            return found;
        }
        let found = look();
        tables.insert(table, (place, found));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_looked_through_once() {
        let verifiers = Verifiers::default();
        let (first, second) = (Arc::new(1), Arc::new("two"));
        let table = TableId(1);
        assert!(verifiers.of(table, &first, || true));
        assert!(verifiers.of(table, &first, || panic!("looked again")));
        assert!(!verifiers.of(table, &second, || false));
        assert!(!verifiers.of(table, &second, || panic!("looked again")));
        assert!(!verifiers.of(TableId(2), &first, || false));
        drop(first);
        // What comes later is never taken for what was there.
        for _ in 0..100 {
            assert!(!verifiers.of(TableId(2), &Arc::new(1), || false));
        }
    }
}
