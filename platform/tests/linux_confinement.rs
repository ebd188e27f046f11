//! What each confined role can still do on Linux, and what it cannot.
//!
//! Every case runs in a forked child that is confined like the role. As root the child also changes
//! its root directory and its user first, as the roles do; as an ordinary user it is confined like
//! a rootless one.

#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use platform::memory::MemoryProbe;
use platform::privilege::{self, Identity};
use platform::process::{ExitStatus, end_in, run_in_child, wait_for};
use platform::sandbox::{self, Confinement};
use platform::syslog::{Priority, SysLog};
use platform::{Role, fd};

/// Roles that are confined; a worker stands for one that executes nothing.
const CONFINED: [Role; 7] = [
    Role::Control,
    Role::Lookup,
    Role::Dispatcher,
    Role::Queue,
    Role::Scheduler,
    Role::Keys,
    Role::Worker,
];

/// An id without an account.
const NOBODY: u32 = 64_242;

/// Exit status of a child that could not be confined.
const NOT_CONFINED: i32 = 200;

/// What a child has before it is confined.
struct Setting {
    /// The spool, or home directory, as the confined child names it.
    directory: PathBuf,
    /// The same directory, opened.
    opened: File,
    /// A file of the system, outside.
    outside: File,
    tcp: SocketAddr,
    local: UnixListener,
    memory: MemoryProbe,
    log: SysLog,
}

/// How an action may go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    Works,
    /// Fails with this error; 0 stands for any.
    Fails(i32),
    /// Ends the process.
    Killed,
}

/// A directory that is removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // A killed run leaves its directories, and process ids come again.
        let now = UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let name = format!("confinement-{}-{now}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        if privilege::is_root() {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Runs `action` in a child confined like `role`; errors without a number count as 199.
fn outcome(role: Role, action: impl FnOnce(&Setting) -> io::Result<()>) -> Outcome {
    let directory = Directory::new();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut setting = Setting {
        directory: directory.0.clone(),
        opened: File::open(&directory.0).unwrap(),
        outside: File::open("/etc/passwd").unwrap(),
        tcp: tcp.local_addr().unwrap(),
        local: UnixListener::bind(directory.0.join("socket")).unwrap(),
        memory: MemoryProbe::open().unwrap(),
        log: SysLog::open(c"confinement").unwrap(),
    };
    let socket = directory.0.join("socket");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let child = run_in_child(|| {
        if confine_as(role, &mut setting).is_err() {
            return NOT_CONFINED;
        }
        match action(&setting) {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(199),
        }
    });
    match wait_for(child.unwrap()).unwrap() {
        ExitStatus::Exited(0) => Outcome::Works,
        ExitStatus::Exited(NOT_CONFINED) => panic!("{role} could not be confined"),
        ExitStatus::Exited(errno) => Outcome::Fails(errno),
        ExitStatus::Signaled(libc::SIGSYS) => Outcome::Killed,
        ExitStatus::Signaled(signal) => panic!("{role} died of signal {signal}"),
    }
}

fn confine_as(role: Role, setting: &mut Setting) -> io::Result<()> {
    let rootless = !privilege::is_root();
    if !rootless {
        // A worker sees the file system as its user does.
        if role != Role::Worker {
            privilege::chroot_to(&setting.directory)?;
            setting.directory = PathBuf::from("/");
        }
        privilege::drop_to(&Identity { uid: NOBODY, gid: NOBODY, groups: Vec::new() })?;
    }
    privilege::set_limits_for(role)?;
    privilege::make_undumpable()?;
    if role == Role::Worker {
        sandbox::confine_worker(std::slice::from_ref(&setting.directory))?;
        return Ok(());
    }
    let spool = (role == Role::Queue).then(|| setting.directory.clone());
    sandbox::confine(role, &Confinement { spool, rootless })?;
    Ok(())
}

/// Runs `action` as every confined role and compares with what is expected of it.
fn every_role(action: impl Fn(&Setting) -> io::Result<()>, expected: impl Fn(Role) -> Outcome) {
    for role in CONFINED {
        let outcome = outcome(role, &action);
        match (outcome, expected(role)) {
            (Outcome::Fails(_), Outcome::Fails(0)) => {}
            (outcome, expected) => assert_eq!(outcome, expected, "{role}"),
        }
    }
}

/// The result of a C function that answers -1 for an error.
fn result(answer: impl Into<i64>) -> io::Result<i32> {
    match answer.into() {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(i32::try_from(answer).unwrap_or(i32::MAX)),
    }
}

fn require(right: bool) -> io::Result<()> {
    if right { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
}

/// No call was refused until now.
fn nothing_refused() -> io::Result<()> {
    match sandbox::denied().latest_call {
        None => Ok(()),
        // Shows the number of the call as exit status, as far as it fits.
        Some(call) => Err(io::Error::from_raw_os_error(i32::try_from(call).unwrap_or(198))),
    }
}

const EPERM: Outcome = Outcome::Fails(libc::EPERM);

const fn has_files(role: Role) -> bool {
    matches!(role, Role::Queue | Role::Worker)
}

const fn has_network(role: Role) -> bool {
    matches!(role, Role::Dispatcher | Role::Lookup | Role::Worker)
}

#[test]
fn every_role_has_threads_memory_time_and_what_it_was_given() {
    every_role(
        |setting| {
            let thread = std::thread::Builder::new().name("worker thread".into()).spawn(|| {
                let touched = vec![1_u8; 8 << 20];
                std::thread::sleep(Duration::from_millis(2));
                usize::from(touched[4096]) + format!("{:?}", std::time::SystemTime::now()).len()
            })?;
            require(thread.join().is_ok_and(|length| length > 1))?;
            let panicked = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(())));
            require(panicked.is_err())?;
            let mut random = [0_u8; 16];
            // SAFETY: `random` has the length given.
            result(unsafe { libc::getrandom(random.as_mut_ptr().cast(), 16, 0) } as i64)?;
            let mut text = [0; 4];
            setting.outside.read_exact_at(&mut text, 0)?;
            require(setting.outside.metadata()?.len() > 4)?;
            drop(setting.outside.try_clone()?);
            require(setting.memory.read()?.rss_bytes > 0)?;
            platform::process::set_title("confined");
            setting.log.write(Priority::Debug, "a line of a confined role")?;
            nothing_refused()
        },
        |_| Outcome::Works,
    );
}

#[test]
fn every_role_can_be_passed_a_descriptor() {
    let (read, write) = fd::pipe().unwrap();
    let (here, there) = fd::socketpair().unwrap();
    for _ in CONFINED {
        fd::send_vectored(here.as_fd(), &[IoSlice::new(b"x")], Some(write.as_fd())).unwrap();
    }
    every_role(
        |_| {
            let mut passed = Vec::new();
            require(fd::recv(there.as_fd(), &mut [0; 1], &mut passed)? == 1 && passed.len() == 1)?;
            require(File::from(passed.remove(0)).write(b"y")? == 1)?;
            nothing_refused()
        },
        |_| Outcome::Works,
    );
    let mut written = [0; CONFINED.len()];
    File::from(read).read_exact(&mut written).unwrap();
    assert_eq!(written, [b'y'; CONFINED.len()]);
}

#[test]
fn every_role_can_build_and_run_its_runtime() {
    every_role(
        |_| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (here, there) = fd::socketpair()?;
                let stream = |end: OwnedFd| {
                    let end = UnixStream::from(end);
                    end.set_nonblocking(true)?;
                    tokio::net::UnixStream::from_std(end)
                };
                let (here, there) = (stream(here)?, stream(there)?);
                let reader = tokio::spawn(async move {
                    there.readable().await?;
                    there.try_read(&mut [0; 8])
                });
                tokio::time::sleep(Duration::from_millis(2)).await;
                require(here.try_write(b"hello")? == 5)?;
                require(reader.await.is_ok_and(|read| matches!(read, Ok(5))))?;
                let blocking = tokio::task::spawn_blocking(|| 7).await;
                require(blocking.is_ok_and(|seven| seven == 7))
            })?;
            let threaded = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            threaded.block_on(async {
                require(tokio::spawn(async { 7 }).await.is_ok_and(|seven| seven == 7))
            })?;
            drop(threaded);
            nothing_refused()
        },
        |_| Outcome::Works,
    );
}

#[test]
fn only_queue_and_worker_open_files_and_only_in_their_directory() {
    // In a changed root directory there is no such file; otherwise Landlock refuses.
    every_role(
        |_| File::open("/etc/passwd").map(drop),
        |role| if has_files(role) { Outcome::Fails(0) } else { EPERM },
    );
    every_role(
        |setting| {
            // SAFETY: `..` is NUL-terminated.
            let parent = unsafe {
                libc::openat(setting.opened.as_raw_fd(), c"../..".as_ptr(), libc::O_RDONLY)
            };
            let parent = result(parent)?;
            // SAFETY: just opened.
            let parent = unsafe { OwnedFd::from_raw_fd(parent) };
            // SAFETY: the path is NUL-terminated.
            let file =
                unsafe { libc::openat(parent.as_raw_fd(), c"etc/passwd".as_ptr(), libc::O_RDONLY) };
            result(file).map(drop)
        },
        |role| if has_files(role) { Outcome::Fails(0) } else { EPERM },
    );
    every_role(
        |setting| use_files(&setting.directory),
        |role| if has_files(role) { Outcome::Works } else { EPERM },
    );
}

/// What a queue and a delivery to a maildir do with files.
fn use_files(directory: &Path) -> io::Result<()> {
    let (tmp, new) = (directory.join("tmp"), directory.join("new"));
    fs::create_dir(&tmp)?;
    fs::create_dir(&new)?;
    let mut file = File::options().read(true).append(true).create_new(true).open(tmp.join("a"))?;
    file.write_all(b"text")?;
    file.sync_all()?;
    file.sync_data()?;
    file.set_len(2)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.try_lock()?;
    platform::dir::Dir::open(directory)?.space()?;
    // SAFETY: takes numbers only.
    unsafe {
        result(libc::posix_fallocate(file.as_raw_fd(), 0, 65536))?;
        result(libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE))?;
    }
    fs::rename(tmp.join("a"), new.join("a"))?;
    fs::hard_link(new.join("a"), directory.join("b"))?;
    File::open(&new)?.sync_all()?;
    require(fs::read_dir(&new)?.count() == 1)?;
    require(fs::symlink_metadata(directory.join("b"))?.len() == 65536)?;
    fs::remove_file(new.join("a"))?;
    fs::remove_dir(&new)?;
    nothing_refused()
}

#[test]
fn the_network_is_for_those_who_talk_to_it() {
    every_role(
        |setting| TcpStream::connect(setting.tcp).map(drop).and_then(|()| nothing_refused()),
        |role| if has_network(role) { Outcome::Works } else { Outcome::Killed },
    );
    // A source address, with a port of the system's choice.
    every_role(
        |_| TcpListener::bind("127.0.0.1:0").map(drop),
        // Binding works, listening does not.
        |role| if has_network(role) { EPERM } else { Outcome::Killed },
    );
    every_role(
        |_| {
            let socket = socket(libc::AF_INET)?;
            bind_loopback(&socket, 0)?;
            bind_loopback(&self::socket(libc::AF_INET)?, 40_404)
        },
        // Landlock's answer for a port that is not in its rules.
        |role| if has_network(role) { Outcome::Fails(libc::EACCES) } else { Outcome::Killed },
    );
    every_role(|_| socket(libc::AF_NETLINK).map(drop), |_| Outcome::Killed);
    every_role(|_| socket(libc::AF_VSOCK).map(drop), |_| Outcome::Killed);
}

fn socket(family: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let socket = result(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) });
    // SAFETY: just opened.
    socket.map(|socket| unsafe { OwnedFd::from_raw_fd(socket) })
}

fn bind_loopback(socket: &OwnedFd, port: u16) -> io::Result<()> {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_be_bytes([127, 0, 0, 1]).to_be() },
        sin_zero: [0; 8],
    };
    let length = size_of_val(&address) as u32;
    // SAFETY: `address` has the length given.
    result(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(())
}

#[test]
fn local_sockets_are_for_lmtp_and_for_the_control_socket() {
    let connects = |role| matches!(role, Role::Dispatcher | Role::Worker);
    every_role(
        |setting| UnixStream::connect(setting.directory.join("socket")).map(drop),
        |role| if connects(role) { Outcome::Works } else { EPERM },
    );
    every_role(
        |setting| {
            setting.local.set_nonblocking(true)?;
            match setting.local.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                other => other.map(drop),
            }
        },
        |role| match role {
            Role::Control | Role::Dispatcher => Outcome::Works,
            _ => EPERM,
        },
    );
}

#[test]
fn what_only_an_intruder_does_ends_the_role() {
    every_role(
        |_| {
            let args = ["sh".into(), "-c".into(), "exit 0".into()];
            Err(platform::process::exec(Path::new("/bin/sh"), &args, &[]))
        },
        |_| Outcome::Killed,
    );
    for call in [
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_bpf,
        libc::SYS_mount,
        libc::SYS_open_tree,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
    ] {
        every_role(
            // SAFETY: all arguments are null or 0; no such call has an effect.
            |_| result(unsafe { libc::syscall(call, 0, 0, 0, 0, 0, 0) }).map(drop),
            |_| Outcome::Killed,
        );
    }
}

#[test]
fn what_no_role_needs_fails_and_is_counted() {
    let refused_once = |call: i64, answer: i64| {
        let error = result(answer).err().and_then(|error| error.raw_os_error());
        let counted = sandbox::denied();
        require(error == Some(libc::EPERM))?;
        require(counted.count == 1 && counted.latest_call == Some(call))
    };
    every_role(
        |_| {
            // SAFETY: no child comes to be.
            let answer = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0) };
            refused_once(libc::SYS_clone, answer)
        },
        |_| Outcome::Works,
    );
    every_role(
        // SAFETY: signal 0 only asks.
        |_| refused_once(libc::SYS_kill, unsafe { libc::kill(libc::getppid(), 0) }.into()),
        |_| Outcome::Works,
    );
    every_role(
        |_| {
            let protection = libc::PROT_READ | libc::PROT_EXEC;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a mapping of its own, if it came to be.
            let mapped =
                unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
            refused_once(libc::SYS_mmap, mapped as i64)
        },
        |_| Outcome::Works,
    );
    every_role(
        // SAFETY: takes a number only.
        |_| refused_once(libc::SYS_prctl, unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) }.into()),
        |_| Outcome::Works,
    );
    every_role(
        // SAFETY: takes numbers only.
        |_| refused_once(libc::SYS_setuid, unsafe { libc::syscall(libc::SYS_setuid, 0) }),
        |_| Outcome::Works,
    );
    every_role(
        // SAFETY: no flags and no attributes: the call would fail.
        |_| match result(unsafe { libc::syscall(libc::SYS_clone3, 0, 0) }) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => nothing_refused(),
            other => other.map(drop).and(Err(io::ErrorKind::Other.into())),
        },
        |_| Outcome::Works,
    );
}

#[test]
fn a_confined_role_has_no_new_privileges_and_is_not_dumpable() {
    let status = |role| {
        let (mut here, there) = UnixStream::pair().unwrap();
        let child = run_in_child(|| {
            let confined = sandbox::confine(role, &Confinement::default());
            let mut byte = [0];
            let told = (&there).write_all(b"x").and_then(|()| (&there).read_exact(&mut byte));
            i32::from(confined.is_err() || told.is_err())
        })
        .unwrap();
        let mut byte = [0];
        here.read_exact(&mut byte).unwrap();
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap();
        here.write_all(b"x").unwrap();
        assert_eq!(wait_for(child).unwrap(), ExitStatus::Exited(0));
        status
    };
    for role in CONFINED.into_iter().filter(|role| *role != Role::Worker) {
        let status = status(role);
        assert!(status.contains("NoNewPrivs:\t1"), "{role}: {status}");
        assert!(status.contains("Seccomp:\t2"), "{role}: {status}");
    }
}

#[test]
fn roles_that_start_programs_are_not_confined_and_say_so() {
    for role in [Role::Parent, Role::Spawner, Role::Auth, Role::Worker] {
        assert!(sandbox::confine(role, &Confinement::default()).unwrap().is_none(), "{role}");
    }
}

#[test]
fn a_worker_can_set_an_end_to_itself() {
    let set_and_taken_back = outcome(Role::Worker, |_| {
        end_in(Some(Duration::from_secs(60)));
        end_in(None);
        Ok(())
    });
    assert_eq!(set_and_taken_back, Outcome::Works);
    let child = run_in_child(|| {
        end_in(Some(Duration::ZERO));
        std::thread::sleep(Duration::from_secs(30));
        0
    });
    assert_eq!(wait_for(child.unwrap()).unwrap(), ExitStatus::Signaled(libc::SIGALRM));
}

#[test]
fn a_worker_needs_its_directories_to_be_there() {
    let child = run_in_child(|| {
        let missing = sandbox::confine_worker(&[PathBuf::from("/nowhere/home")]);
        let kind = missing.map_err(|error| error.kind());
        i32::from(kind.err() != Some(io::ErrorKind::NotFound))
    });
    assert_eq!(wait_for(child.unwrap()).unwrap(), ExitStatus::Exited(0));
}
