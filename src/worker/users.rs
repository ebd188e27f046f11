//! The look-up helper: asks the system about users, so that nobody with rights has to.
//!
//! The system's own modules (directories, databases) run in whoever asks, and may hang or crash.
//! So a worker under the daemon's own user asks, one question at a time, and the spawner replaces
//! it if it does not answer.

use platform::users::{supplementary_groups, user_by_name};

use super::serve::Control;
use crate::ipc::blocking::ChannelError;
use crate::ipc::message::spawner::{Account, SpawnerToWorker, UserAnswer, WorkerToSpawner};

/// Answers until the channel ends.
pub(super) fn serve(control: &mut Control) -> Result<(), ChannelError> {
    loop {
        let received = control.receive()?;
        if let Some(SpawnerToWorker::LookUpUser { name }) = received.message {
            let answer = WorkerToSpawner::User(look_up(&name));
            control.reply(received.number, &answer, None)?;
        }
    }
}

fn look_up(name: &str) -> UserAnswer {
    let account = match user_by_name(name) {
        Ok(Some(account)) => account,
        Ok(None) => return UserAnswer::NotFound,
        Err(error) => return UserAnswer::Failed(error.to_string()),
    };
    let groups = match supplementary_groups(name, account.gid) {
        Ok(groups) => groups,
        Err(error) => return UserAnswer::Failed(error.to_string()),
    };
    let home = account.home.into_os_string().into_string();
    let Ok(home) = home else {
        return UserAnswer::Failed("the home directory's name is not UTF-8".to_owned());
    };
    UserAnswer::Found(Account {
        name: account.name,
        uid: account.uid,
        gid: account.gid,
        groups,
        home,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_or_not() {
        let UserAnswer::Found(root) = look_up("root") else { panic!("root is not found") };
        assert_eq!((root.name.as_str(), root.uid), ("root", 0));
        assert_eq!(look_up("no-such-user-here"), UserAnswer::NotFound);
    }
}
