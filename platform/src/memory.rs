//! How much memory a process has, as it can tell once it is confined.

use std::fmt;
use std::io;

use crate::{Host, Os};

/// Memory of this process; on systems other than Linux the most that it had so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Memory {
    /// Bytes, those shared with other processes divided among them; equal to `rss_bytes` where the
    /// system does not tell.
    pub pss_bytes: u64,
    /// Bytes present in memory, shared ones in full.
    pub rss_bytes: u64,
}

/// Reads this process's memory figures, also once it is confined.
pub struct MemoryProbe {
    read: Box<dyn Fn() -> io::Result<Memory> + Send + Sync>,
}

impl MemoryProbe {
    /// Opens what [`MemoryProbe::read`] needs: before the process is confined or undumpable.
    ///
    /// # Errors
    /// When the system's figures cannot be opened.
    pub fn open() -> io::Result<Self> {
        Host.open_memory_probe()
    }

    /// A probe that calls `read`.
    pub(crate) fn new(read: impl Fn() -> io::Result<Memory> + Send + Sync + 'static) -> Self {
        Self { read: Box::new(read) }
    }

    /// The figures of this moment.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn read(&self) -> io::Result<Memory> {
        (self.read)()
    }
}

impl fmt::Debug for MemoryProbe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MemoryProbe")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_grows_with_what_is_touched() {
        let probe = MemoryProbe::open().unwrap();
        // Tests beside this one may give some of theirs back meanwhile: once it is seen alone.
        let grew = (0..20).any(|_| {
            let before = probe.read().unwrap();
            assert!(before.pss_bytes > 0 && before.pss_bytes <= before.rss_bytes);
            let touched = vec![1_u8; 32 << 20];
            let after = probe.read().unwrap();
            assert_eq!(touched[touched.len() / 2], 1);
            after.rss_bytes >= before.rss_bytes + (30 << 20)
        });
        assert!(grew);
    }
}
