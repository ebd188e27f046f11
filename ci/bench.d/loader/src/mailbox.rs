//! Maildirs as a destination.
//!
//! The time of arrival is the file's change time, which the rename into `new/` sets; so nobody
//! has to watch, and watching takes no processor time from the server.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::arrival::Arrivals;
use crate::message::Judge;

/// Every `new/` directly in `root`, or in a directory in it.
fn new_directories(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for directory in std::iter::once(root.to_owned()).chain(subdirectories(root)?) {
        let new = directory.join("new");
        if new.is_dir() {
            found.push(new);
        }
    }
    Ok(found)
}

fn subdirectories(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if root.is_dir() {
        for entry in fs::read_dir(root)? {
            let path = entry?.path();
            if path.is_dir() {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// How many messages are in all Maildirs below `root`.
pub fn count(root: &Path) -> io::Result<usize> {
    let mut count = 0;
    for directory in new_directories(root)? {
        count += fs::read_dir(directory)?.count();
    }
    Ok(count)
}

/// Reads every message below `root` and notes it.
pub fn examine(root: &Path, run: &str, arrivals: &mut Arrivals) -> io::Result<()> {
    for directory in new_directories(root)? {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let content = fs::read(entry.path())?;
            let content = content.strip_suffix(b"\n").unwrap_or(&content);
            let mut judge = Judge::new(run);
            for line in content.split(|byte| *byte == b'\n') {
                judge.line(line.strip_suffix(b"\r").unwrap_or(line));
            }
            arrivals.note(judge.verdict(), changed(&entry.metadata()?));
        }
    }
    Ok(())
}

#[cfg(unix)]
fn changed(metadata: &fs::Metadata) -> SystemTime {
    use std::os::unix::fs::MetadataExt;
    let seconds = Duration::from_secs(metadata.ctime().unsigned_abs());
    SystemTime::UNIX_EPOCH + seconds + Duration::from_nanos(metadata.ctime_nsec().unsigned_abs())
}
