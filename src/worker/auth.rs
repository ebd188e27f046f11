//! An auth worker's life: one check of one password with root's rights, then none.
//!
//! It says nothing to the spawner. What the system's modules do in this process ends with it; the
//! system ends one that takes too long.

use std::ffi::CString;
use std::time::Duration;

use platform::auth::{Attempt, Verdict};
use platform::privilege::{Identity, drop_to};
use platform::process::end_in;
use zeroize::Zeroizing;

use crate::ipc::blocking::{Channel, ChannelError};
use crate::ipc::message::auth::{AuthToLookup, LookupToAuth};
use crate::ipc::message::spawner::SpawnerSetup;

/// How long a check may take before the system ends the process.
const LIMIT: Duration = Duration::from_secs(30);

/// The channel to lookup.
pub(super) type Questions = Channel<AuthToLookup, LookupToAuth>;

/// Answers one question.
///
/// # Errors
/// The channel is at its end, or its other end broke the protocol.
pub(super) fn serve(questions: &mut Questions, setup: &SpawnerSetup) -> Result<(), ChannelError> {
    end_in(Some(LIMIT));
    let (number, question) = loop {
        let received = questions.receive()?;
        // Credits come too.
        if let Some(question) = received.message {
            break (received.number, question);
        }
    };
    let checked = check(question);
    let checked = match give_up_rights(setup) {
        Ok(()) => checked,
        Err(error) => Err(format!("ids: {error}")),
    };
    questions.reply(number, &AuthToLookup::Checked(checked), None)?;
    questions.drain()
}

fn check(question: LookupToAuth) -> Result<bool, String> {
    let LookupToAuth::Check { user, mut password, remote } = question;
    let user = CString::new(user.0);
    // With room for the end, so that it is not copied to another place.
    password.0.reserve_exact(1);
    let password = CString::new(std::mem::take(&mut *password.0));
    let (Ok(user), Ok(password)) = (user, password) else { return Ok(false) };
    let remote = remote.and_then(|remote| CString::new(remote.to_string()).ok());
    let attempt = Attempt { user: &user, password: &password, remote: remote.as_deref() };
    let verdict = platform::auth::authenticate(&attempt);
    drop(Zeroizing::new(password.into_bytes()));
    match verdict {
        Ok(verdict) => Ok(verdict == Verdict::Accepted),
        Err(error) => Err(error.to_string()),
    }
}

/// Whoever answers is nobody in particular any more.
fn give_up_rights(setup: &SpawnerSetup) -> std::io::Result<()> {
    match &setup.daemon {
        Some(daemon) if !setup.rootless => {
            drop_to(&Identity { uid: daemon.uid, gid: daemon.gid, groups: vec![daemon.gid] })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::blob::Blob;
    use crate::ipc::message::lookup::Password;

    #[test]
    fn what_no_account_can_have_is_wrong() {
        for (user, password) in [(&b"ro\0ot"[..], &b"secret"[..]), (b"root", b"sec\0ret")] {
            let question = LookupToAuth::Check {
                user: Blob(user.to_vec()),
                password: Password(Zeroizing::new(password.to_vec())),
                remote: None,
            };
            assert_eq!(check(question), Ok(false));
        }
    }
}
