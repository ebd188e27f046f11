//! A configuration without a system around it, for tests, benchmarks and fuzz targets: files in
//! memory, one loopback interface, a few names and accounts.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    KeyFile, KeyFileProblem, LocalAddress, Network, Reading, SourceReader, TableKind, read,
};
use crate::table::file;

/// Name of the main file.
pub const MAIN: &str = "main";
/// Account and group that do not exist. All others do.
pub const NOBODY: &str = "nosuch";

/// Files in memory. There is one table program, for tables of the kind `passwd`.
#[derive(Clone, Debug, Default)]
pub struct Files(pub HashMap<String, Vec<u8>>);

/// A machine with one loopback interface, `lo`.
#[derive(Clone, Copy, Debug)]
pub struct Loopback;

impl Files {
    /// A main file alone.
    #[must_use]
    pub fn main(text: impl Into<Vec<u8>>) -> Self {
        let mut files = Self::default();
        files.add(MAIN, text);
        files
    }

    /// Adds a file, or changes it. One whose name holds `foreign` belongs to another user, and one
    /// whose name holds `open` can be read by everybody.
    pub fn add(&mut self, name: &str, text: impl Into<Vec<u8>>) {
        self.0.insert(name.to_owned(), text.into());
    }

    /// Reads the main file.
    pub fn reading(&mut self, defines: &[(String, String)]) -> Reading {
        read(MAIN, self, &mut Loopback, defines)
    }
}

impl SourceReader for Files {
    fn read(&mut self, path: &str) -> io::Result<Vec<u8>> {
        // As the system says that there is no such file.
        self.0.get(path).cloned().ok_or_else(|| io::Error::from_raw_os_error(2))
    }

    fn table_program(&mut self, backend: &str) -> bool {
        backend == "passwd"
    }

    fn key_file(&mut self, path: &str, kind: KeyFile) -> Result<(), KeyFileProblem> {
        self.read(path).map_err(KeyFileProblem::Unreadable)?;
        if path.contains("foreign") {
            return Err(KeyFileProblem::Owner);
        }
        if path.contains("open") && kind == KeyFile::Key {
            return Err(KeyFileProblem::Mode);
        }
        Ok(())
    }
}

impl Network for Loopback {
    fn server_name(&mut self) -> String {
        "mail.example.org".into()
    }

    fn addresses(&mut self) -> Vec<LocalAddress> {
        let addresses: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        addresses.into_iter().map(LocalAddress::from).collect()
    }

    fn interface(&mut self, name: &str) -> Option<Vec<LocalAddress>> {
        (name == "lo").then(|| self.addresses())
    }

    fn host(&mut self, name: &str) -> io::Result<Vec<IpAddr>> {
        match name {
            "localhost" => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
            "broken" => Err(io::Error::other("no answer")),
            _ => Ok(Vec::new()),
        }
    }

    fn service(&mut self, name: &str) -> Option<u16> {
        match name {
            "smtp" => Some(25),
            "smtps" => Some(465),
            "submission" => Some(587),
            _ => None,
        }
    }

    fn user(&mut self, name: &str) -> io::Result<bool> {
        Ok(name != NOBODY)
    }

    fn group(&mut self, name: &str) -> io::Result<bool> {
        Ok(name != NOBODY)
    }
}

/// What must hold whatever a configuration says: it is refused with a reason, or written out it
/// means the same.
///
/// # Errors
/// Says what does not hold.
pub fn exercise(bytes: &[u8]) -> Result<(), String> {
    let mut files = Files::main(bytes);
    // What is no configuration may still be a table, and the other way round.
    files.add("/table", bytes);
    files.add("/list", "a.org\nb.org\n");
    files.add("/map", "root: bob\n");
    files.add("/key", "");
    let survey = file::survey(bytes, TableKind::Undecided);
    if survey.is_ok_and(|survey| survey.kind == TableKind::Undecided) {
        return Err("a table file that is neither a list nor a mapping".to_owned());
    }
    let Reading { config, diagnostics } = files.reading(&[]);
    let shown = diagnostics.render(true);
    if diagnostics.are_fatal() && shown.is_empty() {
        return Err("refused without a word".to_owned());
    }
    if diagnostics.has_errors() {
        return Ok(());
    }
    let written = config.to_string();
    files.add(MAIN, written.clone());
    let again = files.reading(&[]);
    if again.diagnostics.has_errors() {
        return Err(format!("not read back: {}\n{written}", again.diagnostics));
    }
    let twice = again.config.to_string();
    if twice != written {
        return Err(format!("means something else when read back:\n{written}\n{twice}"));
    }
    Ok(())
}
