//! Putting programs where tests start them.

use std::path::Path;
use std::process::Command;

/// Copies a program, by a process of its own.
///
/// A descriptor that this process had open for writing could be inherited by a child that another
/// thread forks at that moment, and while it is open the copy cannot be executed (ETXTBSY).
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let status = Command::new("cp").arg(from.as_ref()).arg(to.as_ref()).status();
    assert!(status.is_ok_and(|status| status.success()), "{}", to.as_ref().display());
}
