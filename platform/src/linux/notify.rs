//! Telling the service supervisor: sd_notify(3), spoken by several supervisors.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::support::Support;

/// Sends `state` to the socket that `NOTIFY_SOCKET` names, if it is set.
pub(super) fn send(state: &str) -> io::Result<Support> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(Support::none("no supervisor asked to be told"));
    };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(Support::full("NOTIFY_SOCKET"))
}
