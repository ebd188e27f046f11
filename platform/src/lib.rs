//! What Pillarbox asks of an operating system.
//!
//! [`Os`] says it, [`Host`] is the system compiled for, one file each: `linux`, `freebsd`,
//! `openbsd`, `netbsd`, `dragonfly`, `macos`, over what they share in `posix`. The modules named
//! for their purpose are what the server calls. What a system lacks is a [`Support::None`] that
//! the administrator sees, never a silent nothing.
//!
//! All `unsafe` code of the server is in this crate.

pub mod auth;
pub mod caller;
pub mod crypt;
pub mod dir;
pub mod durable;
pub mod fake;
pub mod fd;
pub mod mbox;
pub mod memory;
pub mod network;
pub mod os;
pub mod paths;
pub mod peer;
pub mod privilege;
pub mod process;
pub mod role;
pub mod sandbox;
pub mod service;
pub mod support;
pub mod syslog;
pub mod terminal;
pub mod tls;
pub mod users;

mod dynamic;
mod posix;

#[cfg(target_os = "dragonfly")]
mod dragonfly;
#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "netbsd")]
mod netbsd;
#[cfg(target_os = "openbsd")]
mod openbsd;

#[cfg(target_os = "dragonfly")]
pub use dragonfly::Host;
#[cfg(target_os = "freebsd")]
pub use freebsd::Host;
#[cfg(target_os = "linux")]
pub use linux::Host;
#[cfg(target_os = "macos")]
pub use macos::Host;
#[cfg(target_os = "netbsd")]
pub use netbsd::Host;
#[cfg(target_os = "openbsd")]
pub use openbsd::Host;
pub use os::Os;
pub use paths::{Paths, paths};
pub use peer::{Peer, peer_of};
pub use role::Role;
pub use sandbox::Confinement;
pub use support::Support;
