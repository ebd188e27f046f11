//! Processors for which no filter can be made.

use std::io;

use crate::role::Role;
use crate::sandbox::Denied;
use crate::support::Support;

pub(super) fn probe() -> Support {
    Support::none("seccomp: no filters for this processor")
}

pub(super) fn confine(_role: Role) -> io::Result<Support> {
    Ok(probe())
}

pub(super) fn denied() -> Denied {
    Denied::default()
}
