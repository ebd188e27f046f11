//! Giving up rights, in the one order that works.
//!
//! Limits; root directory; groups, ids and the proof that they cannot be taken back; then not
//! dumpable; then what the system has of sandboxes. Threads come later, so that all have it.

use std::path::PathBuf;

use platform::privilege::Identity;
use platform::{Confinement, Role};

use super::StartError;
use crate::ipc::message::parent::Setup;

/// The daemon's own account, for roles that touch the network or its inputs.
pub const DAEMON_USER: &str = "_smtpd";
/// The account that owns the spool and the keys.
pub const QUEUE_USER: &str = "_smtpq";

/// Confines this process as `role`. Says how, in words.
pub(super) fn confine(role: Role, setup: &Setup) -> Result<String, StartError> {
    let fail =
        |step: &'static str| move |source| StartError::Confine { role: role.name(), step, source };
    platform::privilege::set_limits_for(role).map_err(fail("limits"))?;
    let mut words = Vec::new();
    if !setup.rootless {
        let identity = identity_of(role).map_err(fail("account"))?;
        let root = root_of(role, setup);
        platform::privilege::chroot_to(&root).map_err(fail("chroot"))?;
        platform::privilege::drop_to(&identity).map_err(fail("ids"))?;
        words.push("chroot".to_owned());
    }
    platform::privilege::make_undumpable().map_err(fail("not dumpable"))?;
    // As the process sees it by now.
    let spool = if setup.rootless { setup.spool.as_str() } else { "/" };
    let spool = (role == Role::Queue).then(|| PathBuf::from(spool));
    let extra = Confinement { spool, rootless: setup.rootless };
    let support = platform::sandbox::confine(role, &extra).map_err(fail("sandbox"))?;
    words.push(support.to_string());
    Ok(words.join(", "))
}

fn identity_of(role: Role) -> std::io::Result<Identity> {
    let name = match role {
        Role::Queue | Role::Scheduler | Role::Keys => QUEUE_USER,
        _ => DAEMON_USER,
    };
    let account = platform::users::user_by_name(name)?.ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::NotFound, format!("no account {name}"))
    })?;
    Ok(Identity { uid: account.uid, gid: account.gid, groups: vec![account.gid] })
}

fn root_of(role: Role, setup: &Setup) -> PathBuf {
    if role == Role::Queue { PathBuf::from(&setup.spool) } else { PathBuf::from(&setup.empty) }
}
