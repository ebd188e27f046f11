//! What a service supervisor is told, and the pid file.
//!
//! Sources: sd_notify(3); design of rc.d scripts for the pid file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::support::Support;
use crate::{Host, Os};

/// Tells the supervisor, if one asked, that the service is ready.
///
/// # Errors
/// A supervisor asked to be told and could not be reached.
pub fn notify_ready() -> io::Result<Support> {
    Host.notify("READY=1")
}

/// Tells the supervisor, if one asked, that the service is going to end.
///
/// # Errors
/// As [`notify_ready`].
pub fn notify_stopping() -> io::Result<Support> {
    Host.notify("STOPPING=1")
}

/// Writes this process's id and a line feed to `path`, replacing what is there; mode 0644.
///
/// # Errors
/// When the file cannot be written, or `path` is a link.
pub fn write_pid_file(path: &Path) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_file_names_this_process_and_a_link_is_not_followed() {
        let path = std::env::temp_dir().join(format!("platform-pid-{}", std::process::id()));
        std::fs::write(&path, "a longer text that was there before").unwrap();
        write_pid_file(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(write_pid_file(&path).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
