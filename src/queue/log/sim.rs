//! A disk for tests that forgets what was not synced, and fails where told.
//!
//! Every file has durable bytes and a list of writes since its last sync; every folder has durable
//! names and a list of changes since its last sync. When the power goes, any part of those may be
//! on the disk: whole or cut at any byte, in any order, sector by sector. A failed sync leaves its
//! writes in that state for good, as real systems do: a later sync succeeds without them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use platform::dir::{Access, Space};

use super::disk::{Disk, DiskFile, Folder};

/// A sector is written whole or not at all.
const SECTOR: usize = 512;

/// Numbers that look random and repeat with the seed.
#[derive(Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit.max(1)
    }
}

/// What fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// The call with this number, once, with this kind.
    Once(u64, io::ErrorKind),
    /// Every call from this number on: the power is off.
    Off(u64),
}

/// What of the unsynced is on the disk after the power went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Survives {
    /// Everything.
    All,
    /// Nothing.
    Nothing,
    /// All before the last write, and so many bytes of that.
    Cut(usize),
    /// Any part.
    Some(u64),
}

#[derive(Clone, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
    /// Pending writes before a failed sync: no sync covers them any more.
    lost: usize,
}

#[derive(Clone)]
enum Change {
    Add(String, usize),
    Remove(String),
    Rename(Folder, String, Folder, String, usize),
}

#[derive(Clone, Default)]
struct Names {
    now: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
}

#[derive(Clone)]
struct Inner {
    inodes: Vec<Inode>,
    folders: BTreeMap<Folder, Names>,
    changes: Vec<Change>,
    calls: u64,
    fault: Fault,
    /// The inode and offset of the last write.
    last_write: Option<(usize, usize)>,
    free: u64,
    no_blocks: bool,
}

/// The disk.
#[derive(Clone)]
pub(super) struct SimDisk(Arc<Mutex<Inner>>);

struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl SimDisk {
    pub(super) fn new() -> Self {
        let folders = [Folder::Corrupt, Folder::Large, Folder::Log];
        Self(Arc::new(Mutex::new(Inner {
            inodes: Vec::new(),
            folders: folders.into_iter().map(|folder| (folder, Names::default())).collect(),
            changes: Vec::new(),
            calls: 0,
            fault: Fault::None,
            last_write: None,
            free: 1 << 40,
            no_blocks: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub(super) fn set_fault(&self, fault: Fault) {
        self.lock().fault = fault;
    }

    /// Calls so far.
    pub(super) fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// How many bytes the system says are free.
    pub(super) fn set_free(&self, bytes: u64) {
        self.lock().free = bytes;
    }

    /// Changes a byte of a file, on the disk and as it is read.
    pub(super) fn damage(&self, folder: Folder, name: &str, offset: usize) {
        let mut inner = self.lock();
        let inode = inner.folders[&folder].now[name];
        let inode = &mut inner.inodes[inode];
        for bytes in [&mut inode.now, &mut inode.durable] {
            bytes[offset] ^= 0x55;
        }
    }

    /// Whether new blocks are refused: files may be written over, not extended.
    pub(super) fn refuse_blocks(&self, refuse: bool) {
        self.lock().no_blocks = refuse;
    }

    /// Whether the power is off.
    pub(super) fn is_off(&self) -> bool {
        let inner = self.lock();
        matches!(inner.fault, Fault::Off(from) if inner.calls >= from)
    }

    /// Length of the last write if it is not durable, nor a segment being filled.
    pub(super) fn last_write(&self) -> Option<usize> {
        let inner = self.lock();
        let (inode, _) = inner.last_write?;
        let last = inner.inodes[inode].pending.last()?;
        (last.1.len() < 100_000).then_some(last.1.len())
    }

    /// The same files for another process: what is unsynced stays readable, and unsynced.
    pub(super) fn restarted(&self) -> Self {
        let mut inner = self.lock().clone();
        inner.fault = Fault::None;
        Self(Arc::new(Mutex::new(inner)))
    }

    /// The disk after the power went.
    pub(super) fn after_power_cut(&self, survives: Survives) -> Self {
        let inner = self.lock();
        let mut random = Random::new(match survives {
            Survives::Some(seed) => seed,
            _ => 1,
        });
        let mut inodes = Vec::new();
        for (number, inode) in inner.inodes.iter().enumerate() {
            let mut bytes = inode.durable.clone();
            let count = inode.pending.len();
            for (at, (offset, written)) in inode.pending.iter().enumerate() {
                let last =
                    at + 1 == count && inner.last_write.is_some_and(|(inode, _)| inode == number);
                match survives {
                    Survives::Nothing => {}
                    Survives::Cut(length) if last => {
                        put(&mut bytes, *offset, written.get(..length).unwrap_or(written));
                    }
                    Survives::All | Survives::Cut(_) => put(&mut bytes, *offset, written),
                    Survives::Some(_) => put_some(&mut bytes, *offset, written, &mut random),
                }
            }
            inodes.push(Inode { now: bytes.clone(), durable: bytes, ..Inode::default() });
        }
        let mut folders = inner.folders.clone();
        for change in &inner.changes {
            let happened = match survives {
                Survives::Nothing => false,
                Survives::All | Survives::Cut(_) => true,
                Survives::Some(_) => random.below(2) == 0,
            };
            if happened {
                apply(&mut folders, change, |names| &mut names.durable);
            }
        }
        for names in folders.values_mut() {
            names.now.clone_from(&names.durable);
        }
        let after = Inner {
            inodes,
            folders,
            changes: Vec::new(),
            calls: 0,
            fault: Fault::None,
            last_write: None,
            free: inner.free,
            no_blocks: inner.no_blocks,
        };
        Self(Arc::new(Mutex::new(after)))
    }

    /// Counts a call and says whether it fails.
    fn call(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.lock();
        let number = inner.calls;
        inner.calls += 1;
        match inner.fault {
            Fault::Once(at, kind) if at == number => Err(io::Error::from(kind)),
            Fault::Off(from) if number >= from => Err(io::Error::other("power is off")),
            _ => Ok(inner),
        }
    }
}

/// What is left of a write outside a range.
fn without(
    (offset, bytes): (usize, Vec<u8>),
    range: &std::ops::Range<usize>,
) -> impl Iterator<Item = (usize, Vec<u8>)> + use<> {
    let end = offset + bytes.len();
    let before = range.start.clamp(offset, end) - offset;
    let after = range.end.clamp(offset, end) - offset;
    let parts = match range.start < end && offset < range.end {
        true => vec![(offset, bytes[..before].to_vec()), (offset + after, bytes[after..].to_vec())],
        false => vec![(offset, bytes)],
    };
    parts.into_iter().filter(|(_, bytes)| !bytes.is_empty())
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(written);
}

/// Writes some of the sectors that a write touches.
fn put_some(bytes: &mut Vec<u8>, offset: usize, written: &[u8], random: &mut Random) {
    let all = random.below(3);
    let mut at = 0;
    while at < written.len() {
        let rest = SECTOR - (offset + at) % SECTOR;
        let end = (at + rest).min(written.len());
        if all == 0 || (all == 1 && random.below(2) == 0) {
            put(bytes, offset + at, &written[at..end]);
        }
        at = end;
    }
}

fn apply(
    folders: &mut BTreeMap<Folder, Names>,
    change: &Change,
    which: impl Fn(&mut Names) -> &mut BTreeMap<String, usize>,
) {
    let mut in_log = |folder: Folder, act: &dyn Fn(&mut BTreeMap<String, usize>)| {
        act(which(folders.get_mut(&folder).unwrap()));
    };
    // Names are unique over the folders, so a change of a plain kind needs no folder.
    match change {
        Change::Add(name, inode) => in_log(folder_of(name), &|names| {
            names.insert(name.clone(), *inode);
        }),
        Change::Remove(name) => in_log(folder_of(name), &|names| {
            names.remove(name);
        }),
        Change::Rename(from, old, to, new, inode) => {
            in_log(*from, &|names| {
                names.remove(old);
            });
            in_log(*to, &|names| {
                names.insert(new.clone(), *inode);
            });
        }
    }
}

fn folder_of(name: &str) -> Folder {
    match name {
        "new" | "spare" | "reserve" => Folder::Log,
        _ if name.ends_with(".seg") => Folder::Log,
        _ if super::record::parse_large_name(name).is_some() => Folder::Large,
        _ => Folder::Corrupt,
    }
}

impl Change {
    fn is_in(&self, folder: Folder) -> bool {
        match self {
            Self::Add(name, _) | Self::Remove(name) => folder_of(name) == folder,
            Self::Rename(from, _, to, _, _) => *from == folder || *to == folder,
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, folder: Folder, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.call()?;
        let names = &inner.folders[&folder].now;
        let inode = match (access, names.get(name).copied()) {
            (Access::Create, Some(_)) => {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            (Access::Read | Access::Write, None) => {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            }
            (Access::Read | Access::Write, Some(inode)) => inode,
            (Access::Create, None) => {
                inner.inodes.push(Inode::default());
                let inode = inner.inodes.len() - 1;
                let change = Change::Add(name.to_owned(), inode);
                apply(&mut inner.folders, &change, |names| &mut names.now);
                inner.changes.push(change);
                inode
            }
        };
        drop(inner);
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn names(&self, folder: Folder) -> io::Result<Vec<String>> {
        Ok(self.call()?.folders[&folder].now.keys().cloned().collect())
    }

    fn rename(&self, from: (Folder, &str), to: (Folder, &str)) -> io::Result<()> {
        let mut inner = self.call()?;
        let inode = inner.folders[&from.0].now.get(from.1).copied();
        let inode = inode.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let change = Change::Rename(from.0, from.1.to_owned(), to.0, to.1.to_owned(), inode);
        apply(&mut inner.folders, &change, |names| &mut names.now);
        inner.changes.push(change);
        Ok(())
    }

    fn unlink(&self, folder: Folder, name: &str) -> io::Result<()> {
        let mut inner = self.call()?;
        if !inner.folders[&folder].now.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        let change = Change::Remove(name.to_owned());
        apply(&mut inner.folders, &change, |names| &mut names.now);
        inner.changes.push(change);
        Ok(())
    }

    fn sync_folder(&self, folder: Folder) -> io::Result<()> {
        let mut inner = self.call()?;
        let changes = std::mem::take(&mut inner.changes);
        let (synced, left): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| change.is_in(folder));
        for change in &synced {
            apply(&mut inner.folders, change, |names| &mut names.durable);
        }
        inner.changes = left;
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let free_bytes = self.call()?.free;
        Ok(Space { free_bytes, total_bytes: 1 << 40, free_inodes: 0, total_inodes: 0 })
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = self.disk.call()?;
        let bytes = &inner.inodes[self.inode].now;
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let failed = self.disk.call().err();
        if self.disk.is_off() {
            return failed.map_or(Ok(()), Err);
        }
        // A failing write may leave any part of itself behind; half is as good as any.
        let written = if failed.is_some() { &bytes[..bytes.len() / 2] } else { bytes };
        let mut inner = self.disk.lock();
        let grows = offset as usize + bytes.len() > inner.inodes[self.inode].now.len();
        if grows && inner.no_blocks {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        inner.last_write = Some((self.inode, offset as usize));
        let inode = &mut inner.inodes[self.inode];
        put(&mut inode.now, offset as usize, written);
        inode.pending.push((offset as usize, written.to_vec()));
        failed.map_or(Ok(()), Err)
    }

    fn allocate(&self, _length: u64) -> io::Result<()> {
        self.disk.call().map(drop)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.call()?.inodes[self.inode].now.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let result = self.disk.call().map(drop);
        if self.disk.is_off() {
            return result;
        }
        let mut inner = self.disk.lock();
        let inode = &mut inner.inodes[self.inode];
        if let Err(error) = result {
            inode.lost = inode.pending.len();
            return Err(error);
        }
        let covered = inode.pending.split_off(inode.lost);
        for (offset, bytes) in covered {
            put(&mut inode.durable, offset, &bytes);
            // What is on the disk now cannot be undone by an older write of the same bytes.
            let older = std::mem::take(&mut inode.pending);
            let range = offset..offset + bytes.len();
            inode.pending = older.into_iter().flat_map(|write| without(write, &range)).collect();
        }
        inode.lost = inode.pending.len();
        Ok(())
    }

    fn descriptor(&self) -> io::Result<File> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_synced_survives_for_sure() {
        let disk = SimDisk::new();
        let file = disk.open(Folder::Log, "1.seg", Access::Create).unwrap();
        file.write_at(b"one", 0).unwrap();
        file.sync().unwrap();
        file.write_at(b"two", 3).unwrap();
        let names = |disk: &SimDisk| disk.names(Folder::Log).unwrap();
        assert!(names(&disk.after_power_cut(Survives::Nothing)).is_empty());
        disk.sync_folder(Folder::Log).unwrap();
        for (survives, expected) in [
            (Survives::Nothing, &b"one"[..]),
            (Survives::All, b"onetwo"),
            (Survives::Cut(1), b"onet"),
        ] {
            let after = disk.after_power_cut(survives);
            let file = after.open(Folder::Log, "1.seg", Access::Read).unwrap();
            let mut bytes = vec![0; 16];
            let length = file.read_at(&mut bytes, 0).unwrap();
            assert_eq!(&bytes[..length], expected, "{survives:?}");
        }
    }

    #[test]
    fn what_a_failed_sync_missed_no_later_one_covers() {
        let disk = SimDisk::new();
        let file = disk.open(Folder::Log, "1.seg", Access::Create).unwrap();
        disk.sync_folder(Folder::Log).unwrap();
        file.write_at(b"one", 0).unwrap();
        disk.set_fault(Fault::Once(disk.calls(), io::ErrorKind::Other));
        assert!(file.sync().is_err());
        file.sync().unwrap();
        let after = disk.after_power_cut(Survives::Nothing);
        let file = after.open(Folder::Log, "1.seg", Access::Read).unwrap();
        assert_eq!(file.length().unwrap(), 0);
    }
}
