//! Map files: tables that are looked up on the disk (`db:`), as makemap(8) writes them.
//!
//! A map is written once, by [`write()`], and only read after that: another version of it is another
//! file. It is a `redb` database of three tables: the entries, what of their keys are networks, and
//! which keys are patterns that must be tried one by one. So every look-up but that of regular
//! expressions is a few steps down a tree.
//!
//! A [`Map`] reads through a [`ReadOnly`] storage: no locks, no writes, nothing but a descriptor. It is
//! a file that others may have made: whatever is in it, the answer is right or an error.
//!
//! Sources: makemap(8), table(5); `docs/decisions/0003-map-files.md` for the choice.

use std::fmt;
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use ipnet::IpNet;
use redb::{
    Builder, ReadOnlyDatabase, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _,
    StorageBackend, TableDefinition,
};

use super::expression::Expressions;
use super::network::{self, Prefixes};
use super::{Service, domain, mailaddr};

/// Keys, lower-cased, and values.
const ENTRIES: TableDefinition<'static, &str, &str> = TableDefinition::new("entries");
/// Keys that are networks, by [`network_key`].
const NETWORKS: TableDefinition<'static, &[u8], ()> = TableDefinition::new("networks");
/// Keys that are patterns, as domains or mail addresses, and not plain.
const PATTERNS: TableDefinition<'static, &str, ()> = TableDefinition::new("patterns");
/// Value of the entries of a set, which has keys alone.
pub const SET_VALUE: &str = "<set>";
/// Bytes of a map that are kept in memory.
const CACHE: usize = 4 * 1024 * 1024;
/// How a map file begins.
pub const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// Numbers by which Berkeley DB knows its hashes and trees.
const BERKELEY: [u32; 2] = [0x0006_1561, 0x0005_3162];
/// Where those numbers stand in its files: the old versions of BSD systems, the others.
const BERKELEY_AT: [usize; 2] = [0, 12];
/// How many bytes from the beginning of a file tell what it is.
pub const HEAD: usize = 16;

/// Why a map cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// A file of another library: its source has to be made into a map.
    #[error("a Berkeley DB file, which is not read: make a map of its text source with makemap(8)")]
    Berkeley,
    /// It does not hold what a map holds.
    #[error("a damaged map file: {0}")]
    Damaged(String),
    /// Something else.
    #[error("not a map file")]
    NotAMap,
    /// The system refuses.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Whether a file that begins with `head`, its first [`HEAD`] bytes, is a map.
///
/// # Errors
/// It is something else.
pub fn recognise(head: &[u8]) -> Result<(), MapError> {
    if head.starts_with(MAGIC) {
        return Ok(());
    }
    let number = |at: usize| <[u8; 4]>::try_from(head.get(at..at + 4)?).ok();
    let is_berkeley = |at: &usize| {
        number(*at).is_some_and(|bytes| {
            BERKELEY.contains(&u32::from_be_bytes(bytes))
                || BERKELEY.contains(&u32::from_le_bytes(bytes))
        })
    };
    let berkeley = BERKELEY_AT.iter().any(is_berkeley);
    Err(if berkeley { MapError::Berkeley } else { MapError::NotAMap })
}

/// What to do about a map file at `path` that is one of Berkeley DB, with the words for a shell.
#[must_use]
pub fn conversion(path: &str) -> String {
    match path.strip_suffix(".db") {
        Some(source) => format!("makemap {source}, or for aliases makemap -t aliases {source}"),
        None => format!("makemap -o {path} SOURCE, for aliases with -t aliases"),
    }
}

/// A file that is read at offsets.
pub struct ReadOnly<F> {
    file: F,
    length: u64,
}

impl<F> ReadOnly<F> {
    /// A file of so many bytes.
    pub fn new(file: F, length: u64) -> Self {
        Self { file, length }
    }
}

impl<F> fmt::Debug for ReadOnly<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadOnly").field("length", &self.length).finish_non_exhaustive()
    }
}

impl<F: FileExt + Send + Sync + 'static> StorageBackend for ReadOnly<F> {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, _: u64) -> Result<(), io::Error> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), io::Error> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// Writes a map to an empty storage and syncs it. Keys are lower-cased and best come in order.
///
/// # Errors
/// The storage's.
pub fn write<'a>(
    storage: impl StorageBackend,
    entries: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), MapError> {
    guarded(|| {
        let mut database = Builder::new().create_with_backend(storage)?;
        let transaction = database.begin_write()?;
        {
            let mut stored = transaction.open_table(ENTRIES)?;
            let mut networks = transaction.open_table(NETWORKS)?;
            let mut patterns = transaction.open_table(PATTERNS)?;
            for (key, value) in entries {
                stored.insert(key, value)?;
                if let Some(network) = network::entry(key.as_bytes()) {
                    networks.insert(network_key(network).as_slice(), ())?;
                }
                if !domain::is_plain(key.as_bytes()) || !mailaddr::is_plain(key.as_bytes()) {
                    patterns.insert(key, ())?;
                }
            }
        }
        transaction.commit()?;
        database.compact()?;
        Ok(())
    })
}

/// An open map.
pub struct Map {
    entries: ReadOnlyTable<&'static str, &'static str>,
    networks: ReadOnlyTable<&'static [u8], ()>,
    prefixes: Prefixes,
    patterns: Vec<String>,
    expressions: OnceLock<Expressions>,
    /// What the tables are read from.
    _database: ReadOnlyDatabase,
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("patterns", &self.patterns.len()).finish_non_exhaustive()
    }
}

impl Map {
    /// Opens the map in a storage.
    ///
    /// # Errors
    /// It is none, or is damaged.
    pub fn open(storage: impl StorageBackend) -> Result<Self, MapError> {
        let length = storage.len()?;
        let mut head = [0; HEAD];
        if length < HEAD as u64 {
            return Err(MapError::NotAMap);
        }
        storage.read(0, &mut head)?;
        recognise(&head)?;
        guarded(|| {
            let database =
                Builder::new().set_cache_size(CACHE).open_read_only_with_backend(storage)?;
            let transaction = database.begin_read()?;
            let entries = transaction.open_table(ENTRIES)?;
            let networks = transaction.open_table(NETWORKS)?;
            let mut patterns = Vec::new();
            for pattern in transaction.open_table(PATTERNS)?.iter()? {
                patterns.push(pattern?.0.value().to_owned());
            }
            let mut prefixes = Prefixes::default();
            for (family, prefix) in every_prefix() {
                let (first, last) = ([family, prefix], [family, prefix + 1]);
                let mut found = networks.range(first.as_slice()..last.as_slice())?;
                if let Some((key, _)) = found.next().transpose()? {
                    prefixes.add(read_network(key.value()).ok_or(
                        redb::StorageError::Corrupted("a key that is no network".to_owned()),
                    )?);
                }
            }
            let expressions = OnceLock::new();
            Ok(Self { entries, networks, prefixes, patterns, expressions, _database: database })
        })
    }

    /// Whether `key` is there under the comparison of `service`. `delimiter` separates user and tag
    /// of a local part.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn contains(&self, service: Service, key: &str, delimiter: char) -> Result<bool, MapError> {
        let lower = key.to_ascii_lowercase();
        guarded(|| match service {
            Service::Domain => {
                let patterns = || {
                    self.patterns
                        .iter()
                        .any(|pattern| domain::matches(pattern.as_bytes(), lower.as_bytes()))
                };
                Ok(self.has_any(domain::plain_patterns(&lower))? || patterns())
            }
            Service::Mailaddr => {
                let patterns = || {
                    self.patterns
                        .iter()
                        .any(|entry| mailaddr::matches(entry.as_bytes(), &lower, delimiter))
                };
                let plain = mailaddr::plain_entries(&lower, delimiter);
                Ok(self.has_any(plain.into_iter())? || patterns())
            }
            Service::Netaddr => {
                if self.entries.get(lower.as_str())?.is_some() {
                    return Ok(true);
                }
                for network in self.prefixes.networks_of(&lower) {
                    if self.networks.get(network_key(network).as_slice())?.is_some() {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Service::Regex => Ok(self.expressions()?.matches(key)),
            Service::Addrname
            | Service::Alias
            | Service::Auth
            | Service::Credentials
            | Service::Mailaddrmap
            | Service::Relayhost
            | Service::Source
            | Service::String
            | Service::Userinfo => Ok(self.entries.get(lower.as_str())?.is_some()),
        })
    }

    /// The value of the key equal to `key`.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn value(&self, key: &str) -> Result<Option<String>, MapError> {
        let lower = key.to_ascii_lowercase();
        guarded(|| {
            let found = self.entries.get(lower.as_str())?;
            Ok(found.map(|value| value.value().to_owned()))
        })
    }

    /// Calls `take` with every key and value, in byte order of the keys, until it answers `false`.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn each(&self, mut take: impl FnMut(&str, &str) -> bool) -> Result<(), MapError> {
        guarded(|| {
            for entry in self.entries.iter()? {
                let (key, value) = entry?;
                if !take(key.value(), value.value()) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// The keys that are no valid regular expressions and so match nothing.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn invalid_expressions(&self) -> Result<Vec<String>, MapError> {
        guarded(|| Ok(self.expressions()?.invalid().to_vec()))
    }

    fn has_any(&self, keys: impl Iterator<Item = String>) -> Result<bool, redb::Error> {
        for key in keys {
            if self.entries.get(key.as_str())?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn expressions(&self) -> Result<&Expressions, redb::Error> {
        if let Some(made) = self.expressions.get() {
            return Ok(made);
        }
        let mut written = Vec::new();
        for entry in self.entries.iter()? {
            written.push(entry?.0.value().to_owned());
        }
        let texts = written.iter().map(String::as_bytes);
        Ok(self.expressions.get_or_init(|| Expressions::new(texts)))
    }
}

/// Runs what reads or writes a database: a file of others may make it panic.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, MapError> {
    // What the work leaves behind is thrown away with the map, or was only read.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(redb::Error::Io(error))) => Err(MapError::System(error)),
        Ok(Err(error)) => Err(MapError::Damaged(error.to_string())),
        Err(_) => Err(MapError::Damaged("what it says cannot be".to_owned())),
    }
}

/// Family, prefix length, octets.
fn network_key(network: IpNet) -> Vec<u8> {
    let (family, octets) = match network {
        IpNet::V4(network) => (4, network.network().octets().to_vec()),
        IpNet::V6(network) => (6, network.network().octets().to_vec()),
    };
    [vec![family, network.prefix_len()], octets].concat()
}

/// The reverse of [`network_key`].
fn read_network(key: &[u8]) -> Option<IpNet> {
    let (&[_, prefix], octets) = key.split_first_chunk()?;
    let address = match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok()?.into(),
        _ => <[u8; 16]>::try_from(octets).ok()?.into(),
    };
    IpNet::new(address, prefix).ok()
}

/// The first two octets that a [`network_key`] may have.
fn every_prefix() -> impl Iterator<Item = (u8, u8)> {
    (0..=32).map(|prefix| (4, prefix)).chain((0..=128).map(|prefix| (6, prefix)))
}

#[cfg(test)]
mod tests;
