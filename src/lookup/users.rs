//! Accounts of the system, looked up by a helper of the spawner and remembered for a moment.
//!
//! A failed look-up is never remembered, and never means that there is no such user.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ipc::message::parent::{ParentToRole, RoleToParent};
use crate::ipc::message::spawner::UserAnswer;
use crate::process::ParentLink;
use crate::table::{Account, Answer};

/// How long a found user is remembered.
const FOUND: Duration = Duration::from_secs(10);
/// How long it is remembered that there is no such user: a new one gets mail soon.
const NOT_FOUND: Duration = Duration::from_secs(2);
/// Users remembered at most.
const REMEMBERED: usize = 10_000;

/// Asks for accounts.
#[derive(Debug)]
pub struct Users {
    parent: ParentLink,
    remembered: Mutex<HashMap<String, (Instant, Option<Account>)>>,
}

impl Users {
    /// Asks by way of the parent.
    #[must_use]
    pub fn new(parent: &ParentLink) -> Self {
        Self { parent: parent.clone(), remembered: Mutex::new(HashMap::new()) }
    }

    /// The answer, if it is remembered.
    #[must_use]
    pub fn known(&self, name: &str) -> Option<Answer> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, account) = remembered.get(name)?;
        (*until > Instant::now()).then(|| Answer::Account(account.clone()))
    }

    /// Asks the system.
    pub async fn look_up(&self, name: &str) -> Answer {
        let request = RoleToParent::LookUpUser { name: name.to_owned() };
        let account = match self.parent.request(&request, None).await {
            Ok((ParentToRole::User(UserAnswer::Found(account)), _)) => {
                Some(Account { uid: account.uid, gid: account.gid, home: account.home })
            }
            Ok((ParentToRole::User(UserAnswer::NotFound), _)) => None,
            Ok((ParentToRole::User(UserAnswer::Failed(reason)), _)) => {
                tracing::warn!("warn: lookup: user {name}: {reason}");
                return Answer::Failed;
            }
            Ok(_) | Err(_) => return Answer::Failed,
        };
        let lifetime = if account.is_some() { FOUND } else { NOT_FOUND };
        let now = Instant::now();
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED {
            remembered.retain(|_, (until, _)| *until > now);
            if remembered.len() >= REMEMBERED {
                remembered.clear();
            }
        }
        remembered.insert(name.to_owned(), (now + lifetime, account.clone()));
        Answer::Account(account)
    }
}
