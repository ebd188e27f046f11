//! Which roles have channels to each other.

use platform::Role;

use crate::ipc::message::parent::Peer;

/// Every pair of roles that has a channel. The parent and the spawner have their own.
pub const PAIRS: [(Role, Role); 9] = [
    (Role::Control, Role::Dispatcher),
    (Role::Control, Role::Keys),
    (Role::Control, Role::Lookup),
    (Role::Control, Role::Queue),
    (Role::Control, Role::Scheduler),
    (Role::Dispatcher, Role::Keys),
    (Role::Dispatcher, Role::Lookup),
    (Role::Dispatcher, Role::Queue),
    (Role::Queue, Role::Scheduler),
];

/// The roles of a set, in the order in which they are started.
pub const ROLES: [Role; 6] =
    [Role::Queue, Role::Dispatcher, Role::Lookup, Role::Scheduler, Role::Control, Role::Keys];

/// Whether this role can be replaced while the others go on.
#[must_use]
pub fn is_replaceable(role: Role) -> bool {
    !matches!(role, Role::Dispatcher | Role::Queue)
}

/// A role as its neighbours see it; `None` for those that have no neighbours.
#[must_use]
pub fn as_peer(role: Role) -> Option<Peer> {
    match role {
        Role::Control => Some(Peer::Control),
        Role::Dispatcher => Some(Peer::Dispatcher),
        Role::Keys => Some(Peer::Keys),
        Role::Lookup => Some(Peer::Lookup),
        Role::Queue => Some(Peer::Queue),
        Role::Scheduler => Some(Peer::Scheduler),
        Role::Auth | Role::Parent | Role::Spawner | Role::Worker => None,
    }
}
