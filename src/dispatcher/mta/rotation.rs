//! Who reads a table of own addresses, one reader at a time.
//!
//! A table gives one address at a question, in turn. Two relays that read one table at once would
//! each get some of its addresses, and take these for all that there are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// The tables that are read, by name: no more than the configuration has.
#[derive(Debug, Default)]
pub(super) struct Rotations(Mutex<HashMap<String, Arc<Turn<()>>>>);

impl Rotations {
    /// Waits until nobody else reads `table`; the reader has what is returned as long as it reads.
    pub(super) async fn of(&self, table: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(tables.entry(table.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn one_relay_reads_a_table_and_others_read_others() {
        let rotations = Rotations::default();
        let reading = rotations.of("pool").await;
        let mut next = pin!(rotations.of("pool"));
        let mut context = Context::from_waker(Waker::noop());
        assert!(next.as_mut().poll(&mut context).is_pending());
        drop(rotations.of("other").await);
        drop(reading);
        drop(next.await);
    }
}
