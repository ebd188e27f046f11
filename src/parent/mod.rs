//! The parent: reads the configuration, binds what is listened on, starts the roles and keeps them
//! going. It handles no message, no network input and nothing that may hang.
//!
//! [`options`] is the command line, [`prepare`] everything before the first role, [`supervisor`] the
//! loop that follows, [`slot`] one role as the parent sees it, [`wiring`] which roles have channels
//! to each other, [`requests`] what roles may ask.

mod options;
mod prepare;
mod requests;
mod slot;
mod supervisor;
mod wiring;

use std::process::ExitCode;

pub use options::{Options, UsageError};

use crate::log;

/// Runs the daemon, or checks its configuration.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    let sink = log::Sink::Terminal;
    log::start(sink, options.verbose);
    let prepared = match prepare::prepare(options) {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smtpd: {error}");
            return ExitCode::FAILURE;
        }
    };
    supervisor::run(prepared)
}
