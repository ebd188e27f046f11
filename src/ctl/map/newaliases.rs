//! `newaliases`: makes the map of the aliases, and has the server read them again.
//!
//! Which file holds them, the configuration says: the source of the table `aliases`. Only that is of
//! interest here, so what the configuration asks of the network is taken as it stands.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use super::options::{self, Kind, Newaliases, with_suffix};
use super::{build, fail};
use crate::config::{self, Config, Diagnostics, LocalAddress, Network, SourceReader, TableSource};
use crate::ctl::connection::Connection;
use crate::ctl::exchange::Exchange as _;
use crate::ipc::message::client::Request;
use crate::paths::Places;
use crate::table::map::MAGIC;

/// The table whose source the aliases are.
const TABLE: &str = "aliases";
/// Longest file of a configuration, in bytes.
const MAX_FILE: u64 = 512 * 1024 * 1024;

/// Runs `newaliases` with the words after its name, for the server that keeps everything under
/// `state`; answers with the exit status. `find_state` tells the directory of the server that is
/// meant when this one is named.
pub fn run(
    arguments: &[OsString],
    find_state: impl FnOnce(Option<PathBuf>) -> Result<Option<PathBuf>, String>,
) -> u8 {
    let name = "newaliases";
    let mut given = match options::newaliases(arguments) {
        Ok(given) => given,
        Err(error) => {
            eprintln!("{error}");
            return 1;
        }
    };
    given.state = match find_state(given.state.take()) {
        Ok(state) => state,
        Err(error) => return fail(name, &error),
    };
    if given.state.is_none() && !platform::privilege::is_root() {
        return fail(name, &"need root privileges");
    }
    let places = Places::new(given.state.as_deref());
    let source = match source(&given, &places) {
        Ok(source) => source,
        Err(diagnostics) => {
            eprint!("{}", diagnostics.render(io::stderr().is_terminal()));
            return 1;
        }
    };
    let output = with_suffix(source.as_os_str());
    match build(Kind::Aliases, &options::Input::File(source.clone()), &output) {
        Ok(count) => println!("{}: {count} aliases", source.display()),
        Err(error) => return fail(name, &error),
    }
    // The map is made: whether a server runs and has a table of this name is another matter.
    if let Ok(mut connection) = Connection::open(&places.control_socket) {
        let asked = connection.ask(Request::UpdateTable { name: TABLE.to_owned() });
        let _answer = asked.and_then(|()| connection.reply());
    }
    0
}

/// The text of the aliases.
fn source(given: &Newaliases, places: &Places) -> Result<PathBuf, Diagnostics> {
    if let Some(source) = &given.source {
        return Ok(source.clone());
    }
    let path = given.configuration.as_ref().unwrap_or(&places.config_file);
    let mut files = Files { libexec: places.libexec.clone() };
    let loaded = config::load(&path.to_string_lossy(), &mut files, &mut AnyNetwork, &[])?;
    let default = match &given.state {
        Some(state) => state.join("etc/aliases"),
        None => platform::paths().aliases,
    };
    Ok(source_of(&loaded.config).unwrap_or(default))
}

/// The text of the table `aliases`, if there is such a table with a file.
fn source_of(config: &Config) -> Option<PathBuf> {
    let table = config.table(config.table_named(TABLE)?)?;
    match &table.source {
        TableSource::Db(path) | TableSource::File(path) => {
            Some(path.strip_suffix(".db").unwrap_or(path).into())
        }
        _ => None,
    }
}

/// Hands in configured files.
struct Files {
    libexec: PathBuf,
}

impl SourceReader for Files {
    fn read(&mut self, path: &str) -> io::Result<Vec<u8>> {
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn read_head(&mut self, _: &str) -> io::Result<Vec<u8>> {
        // The map may be what is to be made.
        Ok(MAGIC.to_vec())
    }

    fn table_program(&mut self, backend: &str) -> bool {
        !backend.contains('/') && self.libexec.join(format!("table-{backend}")).is_file()
    }
}

/// A network that has every name.
struct AnyNetwork;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Network for AnyNetwork {
    fn server_name(&mut self) -> String {
        "localhost".to_owned()
    }

    fn addresses(&mut self) -> Vec<LocalAddress> {
        vec![LOOPBACK.into()]
    }

    fn interface(&mut self, name: &str) -> Option<Vec<LocalAddress>> {
        // A name that is an address, or of a host, is not one of an interface.
        let interface = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        interface.then(|| self.addresses())
    }

    fn host(&mut self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![LOOPBACK])
    }

    fn service(&mut self, name: &str) -> Option<u16> {
        platform::network::tcp_service(name)
    }
}
