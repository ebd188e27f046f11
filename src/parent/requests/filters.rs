//! Starting filter programs for the dispatcher, which names them by their numbers: users, groups,
//! commands and directories are those of the configuration, and there is a pause between two starts.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use platform::users::group_by_name;
use tokio::time::sleep;

use super::Offices;
use crate::config::{Config, Process, ProcessId};
use crate::ipc::message::parent::ParentToRole;
use crate::ipc::message::spawner::{
    Account, FilterOrder, FilterStream, ParentToSpawner, SpawnerToParent, UserAnswer,
};

/// Shortest time between two starts of one program. A dispatcher waits longer after each failure, so
/// only one that was taken over meets it: it can make no storm of processes.
const BETWEEN_STARTS: Duration = Duration::from_millis(50);
/// Starts that would have to wait longer than this are refused.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// When programs are started, the last time of each, by their numbers. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct FilterStarts(Arc<Mutex<HashMap<u32, Instant>>>);

impl FilterStarts {
    /// How long the next start of a program has to wait; `None` if that is too long.
    fn turn(&self, process: u32, now: Instant) -> Option<Duration> {
        let mut starts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = starts.get(&process).map_or(now, |last| now.max(*last + BETWEEN_STARTS));
        let wait = turn.duration_since(now);
        if wait > LONGEST_WAIT {
            return None;
        }
        starts.insert(process, turn);
        Some(wait)
    }
}

/// The group that a filter program has instead of its user's, if it has one: its number, or why there
/// is none.
type OwnGroup = Option<Result<u32, String>>;

/// The groups that filter programs have instead of their users', by the numbers of the programs.
///
/// Asked when the configuration is read: later a look-up could take long. A group that does not exist
/// was refused then.
#[derive(Clone, Debug, Default)]
pub struct FilterGroups(Arc<[OwnGroup]>);

impl FilterGroups {
    /// Those of the programs in `config`.
    pub fn of(config: &Config) -> Self {
        let group = |process: &Process| {
            let name = process.group.as_deref()?;
            Some(match group_by_name(name) {
                Ok(Some(group)) => Ok(group),
                Ok(None) => Err(format!("no such group: {name}")),
                Err(error) => Err(format!("group {name}: {error}: asked again at the next reload")),
            })
        };
        Self(config.processes.iter().map(group).collect())
    }

    /// That of one program.
    fn group(&self, process: u32) -> OwnGroup {
        self.0.get(process as usize).cloned().flatten()
    }
}

impl Offices {
    /// Starts the filter program with this number.
    pub(super) async fn start_filter(&self, process: u32) -> (ParentToRole, Option<OwnedFd>) {
        let failed =
            |error: String| (ParentToRole::Filter { error: Some(error), ended: None }, None);
        let order = match self.filter_order(process).await {
            Ok(order) => ParentToSpawner::StartFilter(order),
            Err(error) => return failed(error),
        };
        match self.filter_starts.turn(process, Instant::now()) {
            Some(wait) => sleep(wait).await,
            None => return failed("started too often".to_owned()),
        }
        // A pipe and no socket: what it reads does not wake who writes, nor the other way round.
        let (theirs, ours) = match platform::fd::pipe() {
            Ok(pair) => pair,
            Err(error) => return failed(error.to_string()),
        };
        match self.spawner.request(&order, Some(theirs)).await {
            Ok((SpawnerToParent::FilterStarted { error, ended }, _)) => {
                let input = error.is_none().then_some(ours);
                (ParentToRole::Filter { error, ended }, input)
            }
            Ok(_) => failed("the spawner did not answer the question".to_owned()),
            Err(error) => failed(error.to_string()),
        }
    }

    /// What a filter program that was started writes.
    pub(super) async fn filter_stream(
        &self,
        process: u32,
        stream: FilterStream,
    ) -> Result<OwnedFd, String> {
        let request = ParentToSpawner::FilterStream { process, stream };
        match self.spawner.request(&request, None).await {
            Ok((SpawnerToParent::FilterStream { error: None }, Some(end))) => Ok(end),
            Ok((SpawnerToParent::FilterStream { error: Some(error) }, _)) => Err(error),
            Ok(_) => Err("the spawner did not answer the question".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn filter_order(&self, number: u32) -> Result<FilterOrder, String> {
        let declared = self.config.process(ProcessId(number));
        let Process { command, user, group, chroot, .. } =
            declared.ok_or_else(|| "no such filter program".to_owned())?;
        let account = match user {
            Some(name) => Some(self.filter_user(name).await?),
            None => self.setup.daemon.clone(),
        };
        let own_group = match group {
            None => None,
            Some(name) => {
                let known = self.filter_groups.group(number);
                Some(known.unwrap_or_else(|| Err(format!("no such group: {name}")))?)
            }
        };
        let (account, group) = if self.setup.rootless {
            self.check_rootless(account.as_ref(), own_group, chroot.as_deref())?;
            (None, None)
        } else if account.is_none() {
            return Err("there is no account for the daemon".to_owned());
        } else {
            (account, own_group)
        };
        Ok(FilterOrder {
            process: number,
            command: command.clone(),
            account,
            group,
            root: chroot.clone(),
        })
    }

    async fn filter_user(&self, name: &str) -> Result<Account, String> {
        match self.look_up(name.to_owned()).await {
            UserAnswer::Found(account) => Ok(account),
            UserAnswer::NotFound => Err(format!("no such user: {name}")),
            UserAnswer::Failed(reason) => Err(reason),
        }
    }

    /// Without root's rights a program can only be what the daemon is.
    fn check_rootless(
        &self,
        account: Option<&Account>,
        group: Option<u32>,
        root: Option<&str>,
    ) -> Result<(), String> {
        let another = account
            .is_some_and(|account| account.uid != platform::privilege::effective_uid())
            || group.is_some_and(|group| group != platform::privilege::effective_gid());
        if another {
            return Err("only root can start programs as somebody else".to_owned());
        }
        match root {
            Some(_) => Err("only root can change the root directory".to_owned()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_of_one_program_have_pauses_and_too_many_are_refused() {
        let starts = FilterStarts::default();
        let begun = Instant::now();
        let waits: Vec<_> = (0..30).map_while(|_| starts.turn(7, begun)).collect();
        assert_eq!(waits.len(), 21);
        assert!((0..).zip(&waits).all(|(count, wait)| *wait == count * BETWEEN_STARTS));
        // Others are none of its business, and its own turn comes again.
        assert_eq!(starts.turn(8, begun), Some(Duration::ZERO));
        assert_eq!(starts.turn(7, begun), None);
        assert_eq!(starts.turn(7, begun + 2 * LONGEST_WAIT), Some(Duration::ZERO));
    }
}
