//! Whether clients of a listener can log in with SCRAM, as its table is now.
//!
//! Lookup knows the table. It is asked when a session begins, once it has answered at most every ten
//! seconds for all sessions of a listener together; a session keeps what held when it began.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::settings::{AuthSettings, Settings};
use crate::config::TableId;
use crate::dispatcher::shared::Shared;
use crate::ipc::message::lookup::{DispatcherToLookup, LookupToDispatcher};

/// How long an answer holds.
const FRESH: Duration = Duration::from_secs(10);
/// How long a session waits for one; then the answer before it holds.
const PATIENCE: Duration = Duration::from_secs(1);

/// The settings of a listener's sessions.
#[derive(Debug)]
pub(super) struct Offer {
    /// Users of the listener, if they are in a table.
    users: Option<TableId>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    settings: Arc<Settings>,
    asked: Option<Instant>,
    /// Whether there was an answer ever. Before that nobody goes by the one before.
    answered: bool,
}

impl Offer {
    /// Settings as the configuration has them.
    pub(super) fn new(settings: Settings, users: Option<TableId>) -> Self {
        let settings = Arc::new(settings);
        Self { users, current: Mutex::new(Current { settings, asked: None, answered: false }) }
    }

    /// The settings of a session that begins.
    pub(super) async fn settings(&self, shared: &Shared) -> Arc<Settings> {
        let Some(table) = self.due() else { return self.with(|current| current.settings.clone()) };
        let question = DispatcherToLookup::Mechanisms { table };
        let answer = timeout(PATIENCE, shared.lookup.request(&question, None)).await;
        let scram = match answer {
            Ok(Ok((LookupToDispatcher::Mechanisms { scram }, _))) => Some(scram),
            _ => None,
        };
        self.with(|current| {
            match scram {
                Some(scram) => current.take(scram),
                // The next session asks again.
                None => current.asked = None,
            }
            Arc::clone(&current.settings)
        })
    }

    /// The table that is to be asked about now. Who comes meanwhile goes by the answer before, if there
    /// is one.
    fn due(&self) -> Option<TableId> {
        let table = self.users?;
        self.with(|current| {
            let asked = current.asked.is_some_and(|asked| asked.elapsed() < FRESH);
            let fresh = current.answered && asked;
            if fresh || current.settings.auth.is_none() {
                return None;
            }
            current.asked = Some(Instant::now());
            Some(table)
        })
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Current) -> T) -> T {
        use_it(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Current {
    fn take(&mut self, scram: bool) {
        self.answered = true;
        let Some(auth) = self.settings.auth.filter(|auth| auth.scram != scram) else { return };
        let mut settings = Settings::clone(&self.settings);
        settings.auth = Some(AuthSettings { scram, ..auth });
        self.settings = Arc::new(settings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_table_is_asked_about_once_in_a_while_and_new_sessions_get_what_it_says() {
        let mut settings = Settings::new("mx.example.org");
        let offer = Offer::new(settings.clone(), Some(TableId(1)));
        assert_eq!(offer.due(), None, "nobody logs in there");

        settings.auth =
            Some(AuthSettings { required: true, scram: false, table: Some(TableId(1)) });
        assert_eq!(Offer::new(settings.clone(), None).due(), None, "accounts have no verifiers");
        let offer = Offer::new(settings, Some(TableId(1)));
        assert_eq!(offer.due(), Some(TableId(1)));
        assert_eq!(offer.due(), Some(TableId(1)), "nothing is known yet");
        let offered =
            || offer.with(|current| current.settings.auth.map(|auth| (auth.required, auth.scram)));
        assert_eq!(offered(), Some((true, false)));
        offer.with(|current| current.take(true));
        assert_eq!(offered(), Some((true, true)));
        assert_eq!(offer.due(), None);
        tokio::time::advance(FRESH).await;
        assert_eq!(offer.due(), Some(TableId(1)));
        offer.with(|current| current.take(false));
        assert_eq!(offered(), Some((true, false)));
    }
}
