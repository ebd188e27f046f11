//! Going to the background: the one who started the daemon waits until it serves.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

/// Which process this is after [`split`].
pub enum Side {
    /// The daemon, with what tells the starter that it serves.
    Daemon(Ready),
    /// The one who was started, with the status to leave with.
    Starter(ExitCode),
}

/// Tells the starter that the daemon serves; dropped without a word, that it failed.
#[derive(Debug)]
pub struct Ready(File);

impl Ready {
    /// The daemon serves.
    pub fn tell(mut self) {
        // A starter that is gone does not wait.
        let _gone = self.0.write_all(&[1]);
    }
}

/// Makes the daemon a process of its own session; the starter waits for it.
///
/// # Errors
/// There can be no other process.
pub fn split() -> io::Result<Side> {
    let (told, ready) = platform::fd::pipe()?;
    if platform::process::daemonise()? {
        drop(told);
        return Ok(Side::Daemon(Ready(File::from(ready))));
    }
    drop(ready);
    Ok(Side::Starter(wait(told)))
}

fn wait(told: OwnedFd) -> ExitCode {
    let mut word = [0];
    match File::from(told).read_exact(&mut word) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
