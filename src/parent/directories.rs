//! The directories that the server keeps things in: made where they are missing, and refused where
//! somebody else could write what only the server may.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use platform::privilege::is_root;
use platform::users::{group_by_name, user_by_name, user_by_uid};

use super::prepare::{PrepareError, system};
use crate::paths::Places;
use crate::process::QUEUE_USER;

/// Makes all of them, or checks those that there are. `state` is the directory of a server that has one
/// of its own, `rootless` says that an ordinary user has started it.
///
/// # Errors
/// Names the directory and what is wrong with it.
pub(super) fn make_directories(
    places: &Places,
    state: Option<&Path>,
    rootless: bool,
) -> Result<(), PrepareError> {
    let (queue_user, queue_group) = if rootless {
        (platform::privilege::effective_uid(), platform::privilege::effective_gid())
    } else {
        let account = user_by_name(QUEUE_USER).map_err(system(format!("account {QUEUE_USER}")))?;
        let account = account.ok_or_else(|| {
            PrepareError::Refused(format!("unknown user {QUEUE_USER}: the package creates it"))
        })?;
        let group = group_by_name(QUEUE_USER).map_err(system(format!("group {QUEUE_USER}")))?;
        (account.uid, group.unwrap_or(account.gid))
    };
    let own = (platform::privilege::effective_uid(), platform::privilege::effective_gid());
    if let Some(state) = state {
        make_directory(state, 0o711, own)?;
        make_directory(&state.join("run"), 0o711, own)?;
        make_directory(&state.join("etc"), 0o755, own)?;
    }
    let group = if rootless { own.1 } else { 0 };
    make_directory(&places.spool, 0o711, (own.0, group))?;
    for name in ["log", "large", "corrupt", "policy"] {
        make_directory(&places.spool.join(name), 0o700, (queue_user, queue_group))?;
    }
    make_directory(&places.spool.join("offline"), 0o770, (own.0, queue_group))?;
    make_lock(&places.spool.join("lock"), (queue_user, queue_group))?;
    make_directory(&places.empty, 0o555, own)
}

/// Makes a directory with this mode and owner, or checks that it has them.
fn make_directory(path: &Path, mode: u32, owner: (u32, u32)) -> Result<(), PrepareError> {
    let name = path.display().to_string();
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(system(&*name))?;
            if is_root() {
                chown(path, Some(owner.0), Some(owner.1)).map_err(system(&*name))?;
            }
            return Ok(());
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(system(name)(error)),
    }
    let found = fs::symlink_metadata(path).map_err(system(&*name))?;
    if !found.is_dir() {
        return Err(PrepareError::Refused(format!("{name} is not a directory")));
    }
    if found.uid() != owner.0 {
        let wanted = user_by_uid(owner.0).ok().flatten();
        let wanted = wanted.map_or_else(|| owner.0.to_string(), |account| account.name);
        return Err(PrepareError::Refused(format!("{name} is not owned by {wanted}")));
    }
    // What others may write is no place for mail; narrower than asked for is the owner's choice.
    let too_wide = found.permissions().mode() & 0o777 & !mode & 0o022;
    if too_wide != 0 {
        return Err(PrepareError::Refused(format!("{name} must not be writable by others")));
    }
    Ok(())
}

/// Makes the file that the queue locks, in a directory that it may not write itself.
fn make_lock(path: &Path, owner: (u32, u32)) -> Result<(), PrepareError> {
    let name = path.display().to_string();
    match fs::OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => {
            file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(system(&*name))?;
            if is_root() {
                chown(path, Some(owner.0), Some(owner.1)).map_err(system(&*name))?;
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(system(name)(error)),
    }
}
