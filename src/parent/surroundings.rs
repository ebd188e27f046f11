//! What the configuration is read from and checked against: files, interfaces, names, accounts.

use std::fs;
use std::io::{self, Read as _};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use platform::users::{group_by_name, user_by_name};

use super::pki;
use super::requests::open_regular;
use crate::config::{KeyFile, KeyFileProblem, LocalAddress, Network, Scope, SourceReader};
use crate::table::map::HEAD;

/// Largest configuration or table file that is read, in bytes.
const MAX_FILE: u64 = 512 * 1024 * 1024;

/// The content of the configured file at `path`.
///
/// # Errors
/// It cannot be opened or read, or is no file.
pub fn configured_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Hands in configured files.
#[derive(Debug)]
pub(super) struct Files {
    /// Where relative names begin.
    pub directory: PathBuf,
    /// Directory of helper programs.
    pub libexec: PathBuf,
    /// Whether the daemon runs under an ordinary user, to whom its keys belong.
    pub rootless: bool,
}

impl SourceReader for Files {
    fn read(&mut self, path: &str) -> io::Result<Vec<u8>> {
        configured_file(&self.directory.join(path))
    }

    fn read_head(&mut self, path: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        open_regular(self.directory.join(path))?.take(HEAD as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn table_program(&mut self, backend: &str) -> bool {
        !backend.contains('/') && self.libexec.join(format!("table-{backend}")).is_file()
    }

    fn key_file(&mut self, path: &str, kind: KeyFile) -> Result<(), KeyFileProblem> {
        let file = open_regular(self.directory.join(path)).map_err(KeyFileProblem::Unreadable)?;
        pki::check(&file, kind, self.rootless)
    }

    fn key_pair(&mut self, certificate: &str, key: &str) -> Result<(), String> {
        pki::check_pair(&self.directory.join(certificate), &self.directory.join(key))
    }

    fn authorities(&mut self, path: &str) -> Result<(), String> {
        pki::check_authorities(&self.directory.join(path))
    }
}

/// What this machine says about itself.
#[derive(Debug)]
pub(super) struct Machine {
    mailname: PathBuf,
    interfaces: Vec<platform::network::InterfaceAddress>,
}

impl Machine {
    /// What there is now. `mailname` is the file with the name of this server.
    ///
    /// # Errors
    /// The system does not tell its interfaces.
    pub fn new(mailname: &Path) -> io::Result<Self> {
        let interfaces = platform::network::interface_addresses()?;
        Ok(Self { mailname: mailname.to_owned(), interfaces })
    }
}

fn local_address(entry: &platform::network::InterfaceAddress) -> LocalAddress {
    let scope =
        (entry.scope != 0).then(|| Scope { index: entry.scope, name: entry.interface.clone() });
    LocalAddress { address: entry.address, scope }
}

impl Network for Machine {
    fn server_name(&mut self) -> String {
        if let Ok(text) = fs::read_to_string(&self.mailname) {
            return text.lines().next().unwrap_or_default().to_owned();
        }
        let name = platform::network::host_name().unwrap_or_default();
        if name.contains('.') {
            return name;
        }
        platform::network::canonical_name(&name).unwrap_or(name)
    }

    fn addresses(&mut self) -> Vec<LocalAddress> {
        self.interfaces.iter().map(local_address).collect()
    }

    fn interface(&mut self, name: &str) -> Option<Vec<LocalAddress>> {
        let found: Vec<_> =
            self.interfaces.iter().filter(|entry| entry.interface == name).collect();
        (!found.is_empty()).then(|| found.into_iter().map(local_address).collect())
    }

    fn host(&mut self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in (name, 0).to_socket_addrs()? {
            if !addresses.contains(&address.ip()) {
                addresses.push(address.ip());
            }
        }
        Ok(addresses)
    }

    fn service(&mut self, name: &str) -> Option<u16> {
        platform::network::tcp_service(name).or_else(|| port_of_mail(name))
    }

    fn user(&mut self, name: &str) -> io::Result<bool> {
        user_by_name(name).map(|account| account.is_some())
    }

    fn group(&mut self, name: &str) -> io::Result<bool> {
        group_by_name(name).map(|group| group.is_some())
    }
}

/// The ports of mail, for systems that have no list of services, as small ones do (the registry of
/// RFC 6335; RFC 8314 for submissions).
fn port_of_mail(name: &str) -> Option<u16> {
    match name {
        "lmtp" => Some(24),
        "smtp" => Some(25),
        "smtps" | "submissions" => Some(465),
        "submission" => Some(587),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_of_mail_are_known_without_a_list_and_agree_with_one() {
        let names = [("smtp", 25), ("smtps", 465), ("submission", 587), ("submissions", 465)];
        for (name, port) in names {
            assert_eq!(port_of_mail(name), Some(port), "{name}");
            let listed = platform::network::tcp_service(name);
            assert!(listed.is_none_or(|listed| listed == port), "{name}: {listed:?}");
        }
        assert_eq!(port_of_mail("lmtp"), Some(24));
        assert_eq!(port_of_mail("nosuchsvc"), None);
    }
}
