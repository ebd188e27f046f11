//! The system's log.
//!
//! Source: syslog(3). The connection is made at once, so that it outlives a change of the root
//! directory.

use std::ffi::CStr;
use std::io;

use nix::syslog::{Facility, LogFlags, Severity, openlog, syslog};

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
    const fn severity(self) -> Severity {
        match self {
            Self::Critical => Severity::LOG_CRIT,
            Self::Error => Severity::LOG_ERR,
            Self::Warning => Severity::LOG_WARNING,
            Self::Notice => Severity::LOG_NOTICE,
            Self::Info => Severity::LOG_INFO,
            Self::Debug => Severity::LOG_DEBUG,
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
        openlog(Some(identity), LogFlags::LOG_NDELAY | LogFlags::LOG_PID, Facility::LOG_MAIL)?;
        Ok(Self(()))
    }

    /// Writes one line.
    ///
    /// # Errors
    /// `InvalidInput` when `message` holds a NUL byte.
    pub fn write(&self, priority: Priority, message: &str) -> io::Result<()> {
        syslog(priority.severity(), message)?;
        Ok(())
    }
}
