//! The system's log.
//!
//! Source: syslog(3). The connection is made at once, so that it outlives a change of the root
//! directory.

use std::ffi::{CStr, CString};
use std::io;

unsafe extern "C" {
    /// tzset(3).
    fn tzset();
}

/// How urgent a line is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Priority {
    /// The service cannot go on.
    Critical,
    /// Something failed.
    Error,
    /// Something may fail.
    Warning,
    /// Normal but worth attention.
    Notice,
    /// What happens every day.
    Info,
    /// For those who look for a fault.
    Debug,
}

impl Priority {
    const fn severity(self) -> libc::c_int {
        match self {
            Self::Critical => libc::LOG_CRIT,
            Self::Error => libc::LOG_ERR,
            Self::Warning => libc::LOG_WARNING,
            Self::Notice => libc::LOG_NOTICE,
            Self::Info => libc::LOG_INFO,
            Self::Debug => libc::LOG_DEBUG,
        }
    }
}

/// The connection to the system's log, facility `mail`. A process has one.
#[derive(Debug)]
pub struct SysLog(());

impl SysLog {
    /// Connects now, under the name `identity` with the process id.
    ///
    /// A system without a log daemon accepts and loses lines; the interface does not tell.
    ///
    /// # Errors
    /// Never in practice.
    pub fn open(identity: &'static CStr) -> io::Result<Self> {
        // SAFETY: reads the zone file now, which later is out of reach. Its only danger is another
        // thread that changes the environment, which this program never does.
        unsafe { tzset() };
        // SAFETY: the C library keeps the pointer: `identity` lives as long as the process.
        unsafe {
            libc::openlog(identity.as_ptr(), libc::LOG_NDELAY | libc::LOG_PID, libc::LOG_MAIL);
        }
        Ok(Self(()))
    }

    /// Writes one line.
    ///
    /// # Errors
    /// `InvalidInput` when `message` holds a NUL byte.
    pub fn write(&self, priority: Priority, message: &str) -> io::Result<()> {
        let message = CString::new(message)?;
        // SAFETY: the format takes one string, NUL-terminated.
        unsafe { libc::syslog(priority.severity(), c"%s".as_ptr(), message.as_ptr()) };
        Ok(())
    }
}
