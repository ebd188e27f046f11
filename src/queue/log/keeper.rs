//! Work on files that must not hold up the log: making the next segment ready, sealing, removing,
//! and large bodies.
//!
//! The log asks for a [`Job`]; [`perform`] does it against a disk and answers with a [`Report`] that
//! the log takes in when it next runs. Here is no state and no order of its own, so the model test
//! can perform jobs at whatever moment and in whatever order.

use std::io;
use std::sync::Arc;

use platform::dir::{Access, Space};

use super::disk::{Disk, DiskFile, Folder};
use super::place::SegmentSlot;
use super::record::{LargeRef, crc, large_name};
use super::segment::{Identity, SegmentFile, Skeleton, seal, segment_name};
use crate::model::id::MessageId;

/// Name of the segment file that is kept for the day when the disk is full.
pub(super) const RESERVE: &str = "reserve";
/// Name of a segment file that is kept to be written again.
pub(super) const SPARE: &str = "spare";
/// Name under which a segment is made.
pub(super) const NEW: &str = "new";

/// Where a segment's blocks come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Source {
    /// A new file.
    New,
    /// The file [`RESERVE`].
    Reserve,
    /// The file [`SPARE`].
    Spare,
}

/// Something to be done.
pub(super) enum Job {
    /// Make a segment that can be written at once.
    Prepare { identity: Identity, source: Source },
    /// Write the reserve file.
    MakeReserve { size: u64 },
    /// Write a segment's index.
    Seal { slot: SegmentSlot, file: SegmentFile, end: u64, skeleton: Skeleton },
    /// Remove a segment's file, or keep it as the spare.
    Remove { slot: SegmentSlot, file: SegmentFile, keep: bool },
    /// Read what a segment holds.
    Read { slot: SegmentSlot, file: SegmentFile },
    /// Remove large bodies.
    RemoveLarge { names: Vec<String> },
    /// Look at free space.
    Space,
}

/// What came of it.
pub(super) enum Report {
    Prepared { source: Source, result: io::Result<SegmentFile> },
    Reserve(io::Result<()>),
    Sealed { slot: SegmentSlot, result: io::Result<u64> },
    Removed { slot: SegmentSlot, file: SegmentFile, spare: bool, result: io::Result<()> },
    Read { slot: SegmentSlot, result: io::Result<Skeleton> },
    LargeRemoved,
    Space(io::Result<Space>),
}

/// Does a job.
pub(super) fn perform(disk: &dyn Disk, job: Job) -> Report {
    match job {
        Job::Prepare { identity, source } => {
            Report::Prepared { source, result: prepare(disk, identity, source) }
        }
        Job::MakeReserve { size } => Report::Reserve(make_reserve(disk, size)),
        Job::Seal { slot, file, end, skeleton } => {
            let sealed = seal(&*file.file, &file.identity, end, &skeleton);
            Report::Sealed { slot, result: sealed.map(|()| skeleton.len() as u64) }
        }
        Job::Remove { slot, file, keep } => {
            // A reader may still hold the file: then its bytes must stay.
            let spare = keep && Arc::strong_count(&file.file) == 1;
            let result = remove(disk, &file, spare);
            Report::Removed { slot, file, spare, result }
        }
        Job::Read { slot, file } => {
            Report::Read { slot, result: file.contents().map(|contents| contents.skeleton) }
        }
        Job::RemoveLarge { names } => {
            for name in names {
                // What stays is found and removed at the next start.
                let _ = disk.unlink(Folder::Large, &name);
            }
            Report::LargeRemoved
        }
        Job::Space => Report::Space(disk.space()),
    }
}

/// Writes every byte: blocks that are only set aside would make the first sync of each batch write
/// metadata as well, and could be missing when the disk is full.
fn fill(file: &dyn DiskFile, from: u64, size: u64) -> io::Result<()> {
    let zeros = vec![0; 256 * 1024];
    let mut at = from;
    while at < size {
        let length = usize::try_from(size - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_at(zeros.get(..length).unwrap_or_default(), at)?;
        at += length as u64;
    }
    Ok(())
}

fn create(disk: &dyn Disk, name: &str, size: u64) -> io::Result<Arc<dyn DiskFile>> {
    let file = match disk.open(Folder::Log, name, Access::Create) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.unlink(Folder::Log, name)?;
            disk.open(Folder::Log, name, Access::Create)?
        }
        other => other?,
    };
    let filled = file.allocate(size).and_then(|()| fill(&*file, 0, size));
    match filled {
        Ok(()) => Ok(file),
        Err(error) => {
            // Gives the blocks back; what stays is removed at the next start.
            let _ = disk.unlink(Folder::Log, name);
            Err(error)
        }
    }
}

fn prepare(disk: &dyn Disk, identity: Identity, source: Source) -> io::Result<SegmentFile> {
    let (name, file) = match source {
        Source::New => (NEW, create(disk, NEW, identity.size)?),
        Source::Reserve => (RESERVE, disk.open(Folder::Log, RESERVE, Access::Write)?),
        Source::Spare => (SPARE, disk.open(Folder::Log, SPARE, Access::Write)?),
    };
    let length = file.length()?;
    let identity = Identity { size: identity.size.min(length), ..identity };
    file.write_at(&identity.blocks(), 0)?;
    file.sync()?;
    disk.rename((Folder::Log, name), (Folder::Log, &segment_name(identity.number)))?;
    disk.sync_folder(Folder::Log)?;
    Ok(SegmentFile { identity, file })
}

fn make_reserve(disk: &dyn Disk, size: u64) -> io::Result<()> {
    create(disk, NEW, size)?.sync()?;
    disk.rename((Folder::Log, NEW), (Folder::Log, RESERVE))?;
    disk.sync_folder(Folder::Log)
}

fn remove(disk: &dyn Disk, file: &SegmentFile, spare: bool) -> io::Result<()> {
    let name = segment_name(file.identity.number);
    let gone = match spare {
        true => disk.rename((Folder::Log, &name), (Folder::Log, SPARE)),
        false => disk.unlink(Folder::Log, &name),
    };
    match gone {
        // An earlier attempt removed the name and could not sync.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    disk.sync_folder(Folder::Log)
}

/// Makes a large body durable: checks its length, takes its CRC, syncs it and its name.
///
/// # Errors
/// The system's; `InvalidData` if the file's length is not `size`.
pub(super) fn finish_large(
    disk: &dyn Disk,
    message: MessageId,
    sequence: u64,
    size: u64,
) -> io::Result<LargeRef> {
    let file = disk.open(Folder::Large, &large_name(message, sequence), Access::Read)?;
    if file.length()? != size {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let sum = checksum(&*file)?;
    file.sync()?;
    disk.sync_folder(Folder::Large)?;
    Ok(LargeRef { sequence, size, crc: sum })
}

/// CRC-32C of a whole file.
pub(super) fn checksum(file: &dyn DiskFile) -> io::Result<u32> {
    let mut buffer = vec![0; 128 * 1024];
    let (mut sum, mut at) = (0, 0);
    loop {
        let read = file.read_at(&mut buffer, at)?;
        sum = crc(sum, buffer.get(..read).unwrap_or_default());
        at += read as u64;
        if read < buffer.len() {
            return Ok(sum);
        }
    }
}

/// Puts a copy of damaged bytes aside in `corrupt/`, with the reason beside it. Best effort: the
/// bytes also stay where they are until their segment is freed.
pub(super) fn quarantine(disk: &dyn Disk, id: &str, bytes: &[u8], reason: &str) -> io::Result<()> {
    for (name, content) in [(id.to_owned(), bytes), (format!("{id}.reason"), reason.as_bytes())] {
        let file = match disk.open(Folder::Corrupt, &name, Access::Create) {
            // Kept already by an earlier start.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        };
        file.write_at(content, 0)?;
        file.sync()?;
    }
    disk.sync_folder(Folder::Corrupt)
}
