//! Starting a program in a new process.
//!
//! The child of a process with threads may only call async-signal-safe functions until it
//! executes, so everything is prepared before the fork, and the child reports a failure through a
//! pipe that a successful exec closes.
//!
//! Sources: fork(2), execve(2), signal-safety(7).

use std::ffi::{CString, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::ptr;

use nix::errno::Errno;

use super::child::{Pid, wait_for};
use super::descriptors::{Mapping, arrange};
use super::signal::{Blocked, reset_in_child};
use crate::fd;
use crate::privilege::{Identity, chroot_to, drop_to, set_usual_descriptor_limit};

/// The highest number a descriptor may be given; targets beyond it are a mistake of the caller.
const HIGHEST_TARGET: RawFd = 255;

/// Starts `program` and answers once it runs.
///
/// `args` begins with the name it is to see itself under. `env` is its whole environment. Each
/// descriptor of `fds` has exactly the number beside it in the program, and all others are closed;
/// standard input, output and error that are not named are `/dev/null`. Signals have their default
/// effect and none is blocked. With `new_session` it leads a session of its own, and a group that
/// [`super::kill_group`] reaches.
///
/// # Errors
/// Also what kept the program from being executed, as the child saw it (`NotFound`, …);
/// `InvalidInput` for NUL bytes, a target below 0 or above 255, or named twice.
pub fn spawn(
    program: &Path,
    args: &[OsString],
    env: &[(OsString, OsString)],
    fds: &[(BorrowedFd<'_>, RawFd)],
    new_session: bool,
) -> io::Result<Pid> {
    start(&Image::new(program, args, env)?, fds, new_session, || Ok(()))
}

/// Starts `program` as `identity`, or as whoever this process is, in a session of its own and with
/// at most 1024 open descriptors of its own choice; in all else as [`spawn`].
///
/// Only for a process without threads: the child changes its identity before it executes.
///
/// # Errors
/// As [`spawn`]; also what kept the child from becoming `identity`.
pub fn spawn_as(
    identity: Option<&Identity>,
    program: &Path,
    args: &[OsString],
    env: &[(OsString, OsString)],
    fds: &[(BorrowedFd<'_>, RawFd)],
) -> io::Result<Pid> {
    start(&Image::new(program, args, env)?, fds, true, || {
        set_usual_descriptor_limit()?;
        identity.map_or(Ok(()), drop_to)
    })
}

/// As [`spawn_as`], with `root` as the root directory and the working directory of the program, if
/// it is to have another one; `program` is a path there.
///
/// # Errors
/// As [`spawn_as`]; also what kept the child from changing its root directory.
pub fn spawn_in(
    root: Option<&Path>,
    identity: Option<&Identity>,
    program: &Path,
    args: &[OsString],
    env: &[(OsString, OsString)],
    fds: &[(BorrowedFd<'_>, RawFd)],
) -> io::Result<Pid> {
    start(&Image::new(program, args, env)?, fds, true, || {
        set_usual_descriptor_limit()?;
        root.map_or(Ok(()), chroot_to)?;
        identity.map_or(Ok(()), drop_to)
    })
}

/// Forks, and has the child become the program after `prepare`, with all that is arranged for it.
fn start(
    image: &Image,
    fds: &[(BorrowedFd<'_>, RawFd)],
    new_session: bool,
    prepare: impl FnOnce() -> io::Result<()>,
) -> io::Result<Pid> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let mut mappings = mappings(fds, null.as_raw_fd())?;
    let (report, child_report) = fd::pipe()?;

    let blocked = Blocked::new();
    // SAFETY: the child calls only async-signal-safe functions until it executes or leaves; what
    // `prepare` calls besides is for callers without threads.
    let pid = match Errno::result(unsafe { libc::fork() })? {
        0 => become_program(image, &mut mappings, child_report.as_raw_fd(), new_session, prepare),
        pid => Pid(pid),
    };
    drop(blocked);
    drop(child_report);

    let mut failure = Vec::new();
    File::from(report).take(size_of::<i32>() as u64).read_to_end(&mut failure)?;
    match <[u8; size_of::<i32>()]>::try_from(failure) {
        Err(_) => Ok(pid),
        Ok(errno) => {
            wait_for(pid)?;
            let error = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
            let program = image.program.to_string_lossy();
            Err(io::Error::new(error.kind(), format!("{program}: {error}")))
        }
    }
}

/// A program to execute, with everything allocated.
pub(super) struct Image {
    program: CString,
    // The pointers below point into these.
    _strings: Vec<CString>,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
}

impl Image {
    pub(super) fn new(
        program: &Path,
        args: &[OsString],
        env: &[(OsString, OsString)],
    ) -> io::Result<Self> {
        let mut strings = Vec::with_capacity(args.len() + env.len());
        for argument in args {
            strings.push(CString::new(argument.as_bytes())?);
        }
        for (name, value) in env {
            let mut variable = name.clone();
            variable.push("=");
            variable.push(value);
            strings.push(CString::new(variable.into_vec())?);
        }
        let pointers = |strings: &[CString]| {
            strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
        };
        let (arguments, environment) = strings.split_at(args.len());
        Ok(Self {
            program: CString::new(program.as_os_str().as_bytes())?,
            arguments: pointers(arguments),
            environment: pointers(environment),
            _strings: strings,
        })
    }

    /// Becomes the program, or answers why not. Async-signal-safe.
    pub(super) fn execute(&self) -> Errno {
        // SAFETY: NUL-terminated strings in null-terminated arrays, all owned by `self`.
        unsafe {
            libc::execve(self.program.as_ptr(), self.arguments.as_ptr(), self.environment.as_ptr());
        }
        Errno::last()
    }
}

fn mappings(fds: &[(BorrowedFd<'_>, RawFd)], null: RawFd) -> io::Result<Vec<Mapping>> {
    let mut mappings: Vec<_> = fds
        .iter()
        .map(|(source, target)| Mapping { source: source.as_raw_fd(), target: *target })
        .collect();
    for standard in 0..=2 {
        if mappings.iter().all(|mapping| mapping.target != standard) {
            mappings.push(Mapping { source: null, target: standard });
        }
    }
    mappings.sort_by_key(|mapping| mapping.target);
    let in_range = mappings.iter().all(|mapping| (0..=HIGHEST_TARGET).contains(&mapping.target));
    let distinct = mappings.windows(2).all(|pair| pair[0].target != pair[1].target);
    if !in_range || !distinct {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    Ok(mappings)
}

/// What the child does.
fn become_program(
    image: &Image,
    mappings: &mut [Mapping],
    report: RawFd,
    session: bool,
    prepare: impl FnOnce() -> io::Result<()>,
) -> ! {
    let mut report = report;
    if session {
        // SAFETY: async-signal-safe; a fresh child leads no group, so it cannot fail.
        unsafe { libc::setsid() };
    }
    let errno = match arrange(mappings, report) {
        Some(moved) => {
            report = moved;
            reset_in_child();
            match prepare() {
                Ok(()) => image.execute() as i32,
                Err(error) => error.raw_os_error().unwrap_or(libc::EPERM),
            }
        }
        None => Errno::last_raw(),
    };
    let errno = errno.to_ne_bytes();
    // SAFETY: write and _exit are async-signal-safe; `errno` lives until the call returns.
    unsafe {
        libc::write(report, errno.as_ptr().cast(), errno.len());
        libc::_exit(127)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    use super::super::child::ExitStatus;
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    /// Runs `script` with the given descriptors and answers what it writes to `3`.
    fn output_of(script: &str, extra: &[(BorrowedFd<'_>, RawFd)]) -> String {
        let (mut here, there) = UnixStream::pair().unwrap();
        let mut fds = vec![(there.as_fd(), 3)];
        fds.extend_from_slice(extra);
        let env = [("GIVEN".into(), "yes".into())];
        let pid =
            spawn(Path::new("/bin/sh"), &words(&["sh", "-c", script]), &env, &fds, true).unwrap();
        drop(there);
        let mut output = String::new();
        here.read_to_string(&mut output).unwrap();
        assert_eq!(wait_for(pid).unwrap(), ExitStatus::Exited(0), "{output}");
        output
    }

    #[test]
    fn a_program_has_the_descriptors_meant_for_it_and_no_others() {
        let mut file = File::from(fd::pipe().unwrap().0);
        let listed = output_of("ls /dev/fd | grep -v '^[0-2]$' | tr '\\n' ' ' >&3", &[]);
        // The listing itself has one open: the lowest free number.
        assert_eq!(listed, "3 4 ");
        let (mut write, read) = UnixStream::pair().unwrap();
        write.write_all(b"through nine\n").unwrap();
        let crossed = [(read.as_fd(), 9), (file.as_fd(), 4)];
        assert_eq!(output_of("read line <&9; echo $line >&3", &crossed), "through nine\n");
        assert_eq!(file.read(&mut []).unwrap(), 0);
    }

    #[test]
    fn descriptors_may_swap_their_numbers() {
        let pipe_holding = |text: &str| {
            let (read, write) = fd::pipe().unwrap();
            File::from(write).write_all(text.as_bytes()).unwrap();
            // Off the number that the output has.
            let lifted = nix::fcntl::fcntl(&read, nix::fcntl::F_DUPFD_CLOEXEC(20)).unwrap();
            // SAFETY: fresh, and owned by nobody else.
            unsafe { OwnedFd::from_raw_fd(lifted) }
        };
        let (one, two) = (pipe_holding("one "), pipe_holding("two "));
        let swapped = [(one.as_fd(), two.as_raw_fd()), (two.as_fd(), one.as_raw_fd())];
        let script = format!("cat /dev/fd/{} /dev/fd/{} >&3", one.as_raw_fd(), two.as_raw_fd());
        assert_eq!(output_of(&script, &swapped), "two one ");
    }

    #[test]
    fn a_program_has_the_environment_given_and_a_session_of_its_own() {
        assert_eq!(output_of("echo $GIVEN$HOME >&3", &[]), "yes\n");
        assert_eq!(output_of("kill -0 -$$ && echo leader >&3", &[]), "leader\n");
        assert_eq!(output_of("cat; echo read >&3", &[]), "read\n");
    }

    #[test]
    fn a_program_can_be_started_as_somebody_else() {
        let id =
            if crate::privilege::is_root() { 64_244 } else { crate::privilege::effective_uid() };
        let gid = if crate::privilege::is_root() { id } else { crate::privilege::effective_gid() };
        let identity = Identity { uid: id, gid, groups: Vec::new() };
        let (mut here, there) = UnixStream::pair().unwrap();
        let script = words(&["sh", "-c", "echo $(id -u) $(id -g) $(ulimit -n) >&3"]);
        let (env, fds) = ([("PATH".into(), "/usr/bin:/bin".into())], [(there.as_fd(), 3)]);
        let pid = spawn_as(Some(&identity), Path::new("/bin/sh"), &script, &env, &fds).unwrap();
        drop(there);
        let mut output = String::new();
        here.read_to_string(&mut output).unwrap();
        assert_eq!(wait_for(pid).unwrap(), ExitStatus::Exited(0));
        let (ids, limit) = output.trim().rsplit_once(' ').unwrap();
        assert_eq!(ids, format!("{id} {gid}"));
        assert!(limit.parse::<u64>().is_ok_and(|limit| limit <= 1024), "{output}");
        if !crate::privilege::is_root() {
            let root = Identity { uid: 0, gid: 0, groups: Vec::new() };
            let error = spawn_as(Some(&root), Path::new("/bin/sh"), &script, &env, &[]);
            assert_eq!(error.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn what_cannot_be_executed_is_reported_by_its_reason() {
        let start = |program: &str, target| {
            let null = File::open("/dev/null").unwrap();
            spawn(Path::new(program), &words(&["x"]), &[], &[(null.as_fd(), target)], false)
                .unwrap_err()
                .kind()
        };
        assert_eq!(start("/nowhere/program", 3), io::ErrorKind::NotFound);
        assert_eq!(start("/dev/null", 3), io::ErrorKind::PermissionDenied);
        assert_eq!(start("/bin/sh", -1), io::ErrorKind::InvalidInput);
        assert_eq!(start("/bin/sh", 256), io::ErrorKind::InvalidInput);
        assert_eq!(start("/bin/s\0h", 3), io::ErrorKind::InvalidInput);
    }
}
