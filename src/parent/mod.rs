//! The parent: reads the configuration, binds what is listened on, starts the roles and keeps them
//! going. It handles no message, no network input and nothing that may hang.
//!
//! [`options`] is the command line, [`prepare`] everything before the first role, [`supervisor`] the
//! loop that follows, [`slot`] one role as the parent sees it, [`wiring`] which roles have channels
//! to each other, [`requests`] what roles may ask, [`suspects`] which envelopes may be what makes them
//! crash.

mod background;
mod options;
mod prepare;
mod requests;
mod slot;
mod supervisor;
mod suspects;
mod wiring;

use std::process::ExitCode;

pub use options::{Options, USAGE, UsageError};
pub use prepare::{PrepareError, configured_file, daemon_user, read_configuration};

use self::background::Side;
use crate::log;

/// Runs the daemon, or checks its configuration.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    if options.version {
        eprintln!(
            "version: Pillarbox {} (OpenSMTPD 7.9.0 compatible)\n{USAGE}",
            env!("CARGO_PKG_VERSION")
        );
        return ExitCode::FAILURE;
    }
    let _title = platform::process::set_title("[priv]");
    let prepared = match prepare::prepare(options) {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return ExitCode::SUCCESS,
        Err(PrepareError::Configuration) => return ExitCode::FAILURE,
        Err(error) => {
            eprintln!("smtpd: {error}");
            return ExitCode::FAILURE;
        }
    };
    if options.foreground {
        log::start(options.sink(), options.verbose);
        return supervisor::run(prepared, None);
    }
    // In the background: whoever started the daemon waits until it serves.
    match background::split() {
        Ok(Side::Starter(code)) => code,
        Ok(Side::Daemon(ready)) => {
            log::start(options.sink(), options.verbose);
            supervisor::run(prepared, Some(ready))
        }
        Err(error) => {
            eprintln!("smtpd: cannot go to the background: {error}");
            ExitCode::FAILURE
        }
    }
}
