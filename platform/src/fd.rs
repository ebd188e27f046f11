//! Descriptors: making them, passing them, and the sockets that the server listens on.
//!
//! Every descriptor made here is closed on exec; a program that is to get one gets it by
//! [`crate::process::spawn`], under a number that was agreed on.
//!
//! Sources: sendmsg(2), unix(7), cmsg(3), RFC 3542 section 20 for the layout of control data.

use std::io::{self, IoSlice};
use std::mem::{self, MaybeUninit};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::{fs, ptr};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, SockType, SockaddrStorage, UnixAddr, bind, listen, setsockopt, sockopt,
};

use crate::{Host, Os};

/// Descriptors that one [`recv`] has room for. More than [`PASSED_AT_ONCE`] are an error, but they
/// must arrive to be closed.
const RECEIVED_AT_MOST: usize = 16;

/// Descriptors that one call may carry.
const PASSED_AT_ONCE: usize = 1;

/// Bytes of control data with room for [`RECEIVED_AT_MOST`] descriptors; generous on every system.
const CONTROL_BYTES: usize = 64 + RECEIVED_AT_MOST * size_of::<RawFd>();

/// Control data, aligned as the kernel's headers in it must be.
#[repr(C, align(16))]
struct Control([u8; CONTROL_BYTES]);

/// Flag of `open`: do not wait, as for the writer of a pipe.
pub const OPEN_NONBLOCK: i32 = libc::O_NONBLOCK;

/// Flag of `open`: fail if the name is that of a symbolic link.
pub const OPEN_NO_FOLLOW: i32 = libc::O_NOFOLLOW;

/// Whether a [`recv`] that brings less than it has room for, and no descriptor, has taken all that
/// there was to take.
pub const SHORT_RECEIVE_IS_ALL: bool = <Host as Os>::SHORT_RECEIVE_IS_ALL;

/// Whether an error says nothing about the file that was to be opened or read: descriptors or memory
/// are used up, or the disk or a server fails.
#[must_use]
pub fn is_passing(error: &io::Error) -> bool {
    const PASSING: [i32; 9] = [
        libc::EAGAIN,
        libc::EINTR,
        libc::EIO,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::ESTALE,
        libc::ETIMEDOUT,
    ];
    error.raw_os_error().is_some_and(|number| PASSING.contains(&number))
}

/// Takes over the descriptor that the process was started with under `number`.
///
/// To be called at most once for a number, before anything else could have opened it.
///
/// # Errors
/// When no such descriptor is open.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD only fails for a number that is not open.
    let set = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if set == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the contract above nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Two connected local stream sockets, blocking, closed on exec.
///
/// # Errors
/// When descriptors or memory are used up.
pub fn socketpair() -> io::Result<(OwnedFd, OwnedFd)> {
    Host.stream_pair()
}

/// A pipe: the end to read from, the end to write to. Both blocking, closed on exec.
///
/// # Errors
/// When descriptors are used up.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Host.pipe()
}

/// Sends `bufs` as one stretch of bytes, and with its first byte the descriptor `passed`.
///
/// Answers how many bytes went; the descriptor went with them if that is not 0. Signals no
/// `SIGPIPE`.
///
/// # Errors
/// `WouldBlock` on a full non-blocking socket, `BrokenPipe` when the other end is gone.
pub fn send_vectored(
    fd: BorrowedFd<'_>,
    bufs: &[IoSlice<'_>],
    passed: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let mut control = Control([0; CONTROL_BYTES]);
    // SAFETY: an all-zero msghdr is a valid value of that plain C struct.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    // IoSlice has the layout of iovec by its documentation; the kernel only reads through it.
    header.msg_iov = bufs.as_ptr().cast_mut().cast();
    header.msg_iovlen = bufs.len() as _;
    if let Some(passed) = passed {
        let length = size_of::<RawFd>() as libc::c_uint;
        header.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(length) } as _;
        // SAFETY: msg_control points to CONTROL_BYTES aligned bytes, more than CMSG_SPACE of one
        // descriptor, so the first header and its data lie inside.
        unsafe {
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(length) as _;
            ptr::write_unaligned(libc::CMSG_DATA(first).cast(), passed.as_raw_fd());
        }
    }
    loop {
        // SAFETY: header names `bufs` and `control`, which live until the call returns.
        let sent =
            unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, Host::MESSAGE_SEND_FLAGS) };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok(sent);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Receives up to `buf.len()` bytes, and appends a descriptor that came with them to `fds`.
///
/// Answers the number of bytes; 0 is the end of the stream. Received descriptors are closed on
/// exec.
///
/// # Errors
/// `WouldBlock` when nothing is there; `InvalidData` when more than one descriptor came or control
/// data was cut off: everything that came is closed, and the channel is not to be trusted any more.
pub fn recv(fd: BorrowedFd<'_>, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut control = MaybeUninit::<Control>::uninit();
    let mut bytes = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: an all-zero msghdr is a valid value of that plain C struct.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut bytes;
    header.msg_iovlen = 1;
    let received = loop {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_BYTES as _;
        // SAFETY: header names `buf` and `control`, writable and alive until the call returns.
        let received =
            unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, Host::MESSAGE_RECEIVE_FLAGS) };
        if let Ok(received) = usize::try_from(received) {
            break received;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    if header.msg_controllen == 0 && header.msg_flags & libc::MSG_CTRUNC == 0 {
        return Ok(received);
    }
    let before = fds.len();
    // SAFETY: the kernel has filled `control` up to msg_controllen.
    unsafe { take_descriptors(&header, fds) };
    let mut refusal = None;
    if header.msg_flags & libc::MSG_CTRUNC != 0 {
        refusal = Some("control data was cut off");
    }
    if fds.len() - before > PASSED_AT_ONCE {
        refusal = Some("more descriptors came than one message may carry");
    }
    for fresh in &fds[before..] {
        Host.close_received_on_exec(fresh.as_fd())?;
    }
    if let Some(reason) = refusal {
        fds.truncate(before);
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(received)
}

/// Moves every descriptor of the control data into `fds`.
///
/// # Safety
/// `header` must be as a successful `recvmsg` left it, its control data alive and not taken before.
#[allow(clippy::unnecessary_cast)] // the widths of these lengths differ by C library
unsafe fn take_descriptors(header: &libc::msghdr, fds: &mut Vec<OwnedFd>) {
    // SAFETY: the kernel's own control data; the macros stay inside msg_controllen.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = next.as_ref() {
            if message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(next).cast::<RawFd>();
                let bytes = message.cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for index in 0..bytes / size_of::<RawFd>() {
                    // The kernel has just installed this number for us alone.
                    fds.push(OwnedFd::from_raw_fd(ptr::read_unaligned(data.add(index))));
                }
            }
            next = libc::CMSG_NXTHDR(header, next);
        }
    }
}

/// Switches `O_NONBLOCK` of the open file behind `fd`.
///
/// # Errors
/// When `fd` cannot be switched.
pub fn set_nonblocking(fd: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    let before = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    let mut after = before;
    after.set(OFlag::O_NONBLOCK, nonblocking);
    if after != before {
        fcntl(fd, FcntlArg::F_SETFL(after))?;
    }
    Ok(())
}

/// Switches whether `fd` is closed on exec.
///
/// # Errors
/// When `fd` cannot be switched.
pub fn set_cloexec(fd: BorrowedFd<'_>, cloexec: bool) -> io::Result<()> {
    let flags = if cloexec { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(fd, FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// Asks for send and receive buffers of `bytes` each; the system may give more or less.
///
/// # Errors
/// When `fd` is not a socket.
pub fn set_socket_buffers(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    setsockopt(&fd, sockopt::SndBuf, &bytes)?;
    setsockopt(&fd, sockopt::RcvBuf, &bytes)?;
    Ok(())
}

/// A listening TCP socket at `addr`, non-blocking, its queue as long as the system allows.
///
/// An IPv6 socket takes IPv6 alone, so that `0.0.0.0` and `::` do not collide.
///
/// # Errors
/// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied` for a privileged port.
pub fn listen_tcp(addr: SocketAddr) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = open_socket(family)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if addr.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(addr))?;
    listen(&socket, longest_backlog()?)?;
    Ok(socket)
}

/// A listening local stream socket at `path` with exactly the permission bits `mode`, non-blocking.
///
/// A socket that nobody listens on any more is removed first. The mode is set before the socket
/// listens, so nobody connects with more rights than `mode` gives.
///
/// # Errors
/// `AddrInUse` when another process listens there; `AlreadyExists` when something that is not a
/// socket has the name, which is left alone.
pub fn listen_unix(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    remove_dead_socket(path)?;
    let socket = open_socket(AddressFamily::Unix)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    listen(&socket, longest_backlog()?)?;
    Ok(socket)
}

fn remove_dead_socket(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{} is there and is not a socket", path.display()),
        ));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("another process listens on {}", path.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn open_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let socket = Host.socket(family, SockType::Stream)?;
    set_nonblocking(socket.as_fd(), true)?;
    Ok(socket)
}

fn longest_backlog() -> io::Result<Backlog> {
    Ok(Backlog::new(libc::SOMAXCONN)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn is_cloexec(fd: BorrowedFd<'_>) -> bool {
        let flags = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).unwrap());
        flags.contains(FdFlag::FD_CLOEXEC)
    }

    #[test]
    fn bytes_and_a_descriptor_arrive_together_and_closed_on_exec() {
        let (here, there) = socketpair().unwrap();
        assert!(is_cloexec(here.as_fd()) && is_cloexec(there.as_fd()));
        let (read, write) = pipe().unwrap();
        let parts = [IoSlice::new(b"he"), IoSlice::new(b"llo")];
        assert_eq!(send_vectored(here.as_fd(), &parts, Some(write.as_fd())).unwrap(), 5);
        drop(write);

        let (mut text, mut passed) = ([0; 16], Vec::new());
        assert_eq!(recv(there.as_fd(), &mut text, &mut passed).unwrap(), 5);
        assert_eq!(&text[..5], b"hello");
        assert_eq!(passed.len(), 1);
        assert!(is_cloexec(passed[0].as_fd()));
        fs::File::from(passed.remove(0)).write_all(b"through").unwrap();
        let mut through = String::new();
        fs::File::from(read).read_to_string(&mut through).unwrap();
        assert_eq!(through, "through");

        drop(here);
        assert_eq!(recv(there.as_fd(), &mut text, &mut passed).unwrap(), 0);
        assert!(passed.is_empty());
    }

    #[test]
    fn more_descriptors_than_one_are_refused_and_closed() {
        for count in [2, RECEIVED_AT_MOST, 40] {
            let (here, there) = socketpair().unwrap();
            let (read, write) = pipe().unwrap();
            let many = vec![write.as_raw_fd(); count];
            let rights = [nix::sys::socket::ControlMessage::ScmRights(&many)];
            nix::sys::socket::sendmsg::<()>(
                here.as_raw_fd(),
                &[IoSlice::new(b"x")],
                &rights,
                nix::sys::socket::MsgFlags::empty(),
                None,
            )
            .unwrap();
            drop(write);
            let mut passed = Vec::new();
            let error = recv(there.as_fd(), &mut [0; 4], &mut passed).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{count}");
            assert!(passed.is_empty());
            // All copies of the writing end are closed: the pipe has ended.
            assert_eq!(fs::File::from(read).read(&mut [0]).unwrap(), 0);
        }
    }

    #[test]
    fn a_full_or_closed_channel_is_an_error_and_no_signal() {
        let (here, there) = socketpair().unwrap();
        set_nonblocking(here.as_fd(), true).unwrap();
        set_socket_buffers(here.as_fd(), 8192).unwrap();
        let block = [0; 4096];
        let error = loop {
            if let Err(error) = send_vectored(here.as_fd(), &[IoSlice::new(&block)], None) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(there);
        let error = send_vectored(here.as_fd(), &[IoSlice::new(&block)], None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn tcp_listeners_of_both_families_share_a_port() {
        let four = listen_tcp("0.0.0.0:0".parse().unwrap()).unwrap();
        let four = std::net::TcpListener::from(four);
        let port = four.local_addr().unwrap().port();
        assert_eq!(four.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        let again = listen_tcp(([0, 0, 0, 0], port).into()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        if let Err(error) = listen_tcp(SocketAddr::new("::".parse().unwrap(), port)) {
            // A machine without IPv6.
            assert_ne!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn a_local_listener_takes_the_place_of_a_dead_one_alone() {
        let directory = std::env::temp_dir().join(format!("platform-sock-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("socket");
        drop(UnixListener::bind(&path).unwrap());
        let live = listen_unix(&path, 0o666).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o666);
        assert_eq!(listen_unix(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let connected = UnixStream::connect(&path).unwrap();
        let peer = crate::peer_of(connected.as_fd()).unwrap();
        assert_eq!(peer.uid, crate::privilege::effective_uid());
        drop((live, connected));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert_eq!(listen_unix(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::remove_dir_all(&directory).unwrap();
    }
}
