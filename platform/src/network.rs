//! What the system knows about this machine's names and addresses.
//!
//! Sources: getifaddrs(3), gethostname(3), getaddrinfo(3), services(5).

use std::ffi::{CStr, CString};
use std::io;
use std::net::IpAddr;
use std::ptr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// An address of one of this machine's interfaces.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InterfaceAddress {
    /// Name of the interface.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// For a link-local IPv6 address, the number of its interface; else 0.
    pub scope: u32,
}

/// The addresses of all interfaces that are up.
///
/// # Errors
/// When the system cannot tell.
pub fn interface_addresses() -> io::Result<Vec<InterfaceAddress>> {
    let mut addresses = Vec::new();
    for entry in getifaddrs()? {
        if !entry.flags.contains(InterfaceFlags::IFF_UP) {
            continue;
        }
        let Some(storage) = entry.address else { continue };
        let (address, scope) = if let Some(v4) = storage.as_sockaddr_in() {
            (IpAddr::V4(v4.ip()), 0)
        } else if let Some(v6) = storage.as_sockaddr_in6() {
            (IpAddr::V6(v6.ip()), v6.scope_id())
        } else {
            continue;
        };
        addresses.push(InterfaceAddress { interface: entry.interface_name, address, scope });
    }
    Ok(addresses)
}

/// The name of this machine, as it was set.
///
/// # Errors
/// When it is not text.
pub fn host_name() -> io::Result<String> {
    nix::unistd::gethostname()?
        .into_string()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the host name is not text"))
}

/// The canonical name of the host `name`, as the system's resolver has it; `None` without one.
pub fn canonical_name(name: &str) -> Option<String> {
    let name = CString::new(name).ok()?;
    // SAFETY: all-zero is a valid addrinfo: no address, no name, no next.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_flags = libc::AI_CANONNAME;
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = ptr::null_mut();
    // SAFETY: the name is NUL-terminated, `hints` and `list` live through the call.
    if unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &raw const hints, &raw mut list) }
        != 0
        || list.is_null()
    {
        return None;
    }
    // SAFETY: the call succeeded, so `list` is a valid entry until it is freed below.
    let canonical = unsafe { (*list).ai_canonname };
    let text = (!canonical.is_null()).then(|| {
        // SAFETY: a canonical name that is not null is NUL-terminated and lives as its entry.
        unsafe { CStr::from_ptr(canonical) }.to_string_lossy().into_owned()
    });
    // SAFETY: `list` came from getaddrinfo and is not used after this.
    unsafe { libc::freeaddrinfo(list) };
    text.filter(|text| !text.is_empty())
}

/// The port of the TCP service `name` in the system's list.
pub fn tcp_service(name: &str) -> Option<u16> {
    let text = std::fs::read("/etc/services").unwrap_or_default();
    service_in(&String::from_utf8_lossy(&text), name)
}

fn service_in(text: &str, name: &str) -> Option<u16> {
    text.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let official = words.next()?;
        let port = words.next()?.strip_suffix("/tcp")?;
        let known = official == name || words.any(|alias| alias == name);
        if known { port.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_among_the_interfaces() {
        let addresses = interface_addresses().unwrap();
        assert!(addresses.iter().any(|entry| entry.address.is_loopback()), "{addresses:?}");
    }

    #[test]
    fn services_are_found_by_name_and_alias_for_tcp_alone() {
        let text = "smtp 25/tcp mail # comment submission 9/tcp\nntp 123/udp\nsubmission\t587/tcp";
        assert_eq!(service_in(text, "mail"), Some(25));
        assert_eq!(service_in(text, "submission"), Some(587));
        assert_eq!(service_in(text, "ntp"), None);
    }
}
