//! Children: forking without exec, executing, and the way they end.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::signal::{Blocked, reset_in_child};
use super::spawn::Image;

/// A process id.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Pid(pub i32);

impl fmt::Display for Pid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExitStatus {
    /// By itself, with this status (0-255).
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(formatter, "exit status {status}"),
            Self::Signaled(signal) => write!(formatter, "signal {signal}"),
        }
    }
}

/// Runs `work` in a forked child, which ends with its answer as exit status (101 if it panics).
///
/// Only for a process without threads: in the child of a threaded one a lock may be held for ever.
/// The child begins with default signals and all descriptors of the caller; see
/// [`super::close_all_except`]. Nothing of the caller is dropped or flushed in it.
///
/// # Errors
/// When no process can be made.
pub fn run_in_child(work: impl FnOnce() -> i32) -> io::Result<Pid> {
    let blocked = Blocked::new();
    // SAFETY: by contract the caller has no threads, so the child may run any code.
    match Errno::result(unsafe { libc::fork() })? {
        0 => {
            reset_in_child();
            let status = catch_unwind(AssertUnwindSafe(work)).unwrap_or(101);
            // SAFETY: ends the process; what the caller owns is left to the caller.
            unsafe { libc::_exit(status) }
        }
        pid => {
            drop(blocked);
            Ok(Pid(pid))
        }
    }
}

/// Forks; the child leads a session of its own, works in the root directory and has the null device
/// as standard input and output. True in the child, false in the caller. Standard error stays, for
/// what goes wrong at the start.
///
/// Only for a process without threads.
///
/// # Errors
/// When no process can be made.
pub fn daemonise() -> io::Result<bool> {
    // SAFETY: by contract the caller has no threads, so the child may run any code.
    if Errno::result(unsafe { libc::fork() })? != 0 {
        return Ok(false);
    }
    nix::unistd::setsid()?;
    nix::unistd::chdir("/")?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(true)
}

/// Makes `input` the standard input; standard output and error go to the null device.
///
/// # Errors
/// The system's.
pub fn set_standard_streams(input: impl AsFd) -> io::Result<()> {
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(input)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

/// Replaces this process by `program`, with `args` (the name first) and exactly this environment.
///
/// Descriptors and signals are as they are. Answers only if it failed.
pub fn exec(program: &Path, args: &[OsString], env: &[(OsString, OsString)]) -> io::Error {
    match Image::new(program, args, env) {
        Ok(image) => image.execute().into(),
        Err(error) => error,
    }
}

/// A child that has ended, whichever it is, or `None` if none has. Never blocks.
///
/// # Errors
/// Never in practice; a process without children gets `None`.
pub fn reap() -> io::Result<Option<(Pid, ExitStatus)>> {
    match wait(-1, libc::WNOHANG) {
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        other => other,
    }
}

/// Waits until the child `pid` has ended.
///
/// # Errors
/// When `pid` is not a child, or was reaped already.
pub fn wait_for(pid: Pid) -> io::Result<ExitStatus> {
    loop {
        if let Some((_, status)) = wait(pid.0, 0)? {
            return Ok(status);
        }
    }
}

fn wait(which: i32, options: libc::c_int) -> io::Result<Option<(Pid, ExitStatus)>> {
    loop {
        let mut status = 0;
        // SAFETY: `status` lives until the call returns.
        let pid = match Errno::result(unsafe { libc::waitpid(which, &raw mut status, options) }) {
            Ok(0) => return Ok(None),
            Ok(pid) => Pid(pid),
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if libc::WIFEXITED(status) {
            return Ok(Some((pid, ExitStatus::Exited(libc::WEXITSTATUS(status)))));
        }
        if libc::WIFSIGNALED(status) {
            return Ok(Some((pid, ExitStatus::Signaled(libc::WTERMSIG(status)))));
        }
        // Stopped or continued: only a tracer sees that.
    }
}

/// The file that this process executes, for starting it again in another role.
///
/// # Errors
/// When the system does not tell.
pub fn current_executable() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    if path.is_file() {
        return Ok(path);
    }
    // Linux marks the name of a file that was replaced by an upgrade; the new one has the old name.
    match path.to_str().and_then(|name| name.strip_suffix(" (deleted)")) {
        Some(name) if Path::new(name).is_file() => Ok(PathBuf::from(name)),
        _ => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{} is not there any more", path.display()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::signal::{Signal, signal};
    use super::*;

    #[test]
    fn a_child_ends_with_what_its_work_answers() {
        let ended = |pid: io::Result<Pid>| wait_for(pid.unwrap()).unwrap();
        assert_eq!(ended(run_in_child(|| 7)), ExitStatus::Exited(7));
        assert_eq!(
            ended(run_in_child(|| std::panic::resume_unwind(Box::new(())))),
            ExitStatus::Exited(101)
        );
        let sleeper = run_in_child(|| {
            std::thread::sleep(std::time::Duration::from_secs(60));
            0
        })
        .unwrap();
        signal(sleeper, Signal::Kill).unwrap();
        assert_eq!(wait_for(sleeper).unwrap(), ExitStatus::Signaled(9));
        assert!(wait_for(sleeper).is_err());
    }

    #[test]
    fn a_child_can_execute_and_learn_that_it_could_not() {
        let status = |program: &'static str| {
            let pid = run_in_child(move || {
                let args = ["sh", "-c", "exit 3"].map(OsString::from);
                match exec(Path::new(program), &args, &[]).kind() {
                    io::ErrorKind::NotFound => 44,
                    _ => 45,
                }
            });
            wait_for(pid.unwrap()).unwrap()
        };
        assert_eq!(status("/bin/sh"), ExitStatus::Exited(3));
        assert_eq!(status("/nowhere/sh"), ExitStatus::Exited(44));
    }

    #[test]
    fn the_running_executable_is_found() {
        assert!(current_executable().unwrap().is_file());
    }
}
