//! The parent: reads the configuration, binds what is listened on, starts the roles and keeps them
//! going. It handles no message, no network input and nothing that may hang.
//!
//! [`options`] is the command line, [`prepare`] everything before the first role, with
//! [`surroundings`] what the configuration is checked against, [`supervisor`] the loop that follows,
//! [`reload`] how the configuration is read again, [`slot`] one role as the parent sees it, [`wiring`] which roles have channels
//! to each other, [`requests`] what roles may ask, [`suspects`] which envelopes may be what makes them
//! crash.

mod background;
mod directories;
mod options;
mod pki;
mod prepare;
mod reload;
mod requests;
mod slot;
mod supervisor;
mod surroundings;
mod suspects;
mod wiring;

use std::process::ExitCode;

pub use options::{Options, USAGE, UsageError};
pub use prepare::{PrepareError, daemon_user, read_configuration};
pub use surroundings::configured_file;

use self::background::Side;
use crate::log;
use crate::process::{DAEMON_USER, QUEUE_USER};

const VERSION: &str =
    concat!("version: Pillarbox ", env!("CARGO_PKG_VERSION"), " (OpenSMTPD 7.9.0 compatible)");

/// What was decided when this program was built, a line each.
fn built_in() -> String {
    let paths = platform::paths();
    let places = [
        ("configuration", &paths.config_file),
        ("mailname", &paths.mailname),
        ("aliases", &paths.aliases),
        ("spool", &paths.spool),
        ("control socket", &paths.control_socket),
        ("pid file", &paths.pid_file),
        ("helper programs", &paths.libexec),
        ("mailboxes", &paths.mbox_spool),
        ("empty directory", &paths.empty_dir),
    ];
    let mut text: String =
        places.iter().map(|(what, path)| format!("{what}: {}\n", path.display())).collect();
    text.push_str(&format!("user: {DAEMON_USER}\nqueue user: {QUEUE_USER}\n"));
    text.push_str(&format!("tls provider: {}\n", platform::tls::PROVIDER));
    text
}

/// Runs the daemon, or checks its configuration.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    if options.version {
        eprintln!("{VERSION}\n{USAGE}");
        return ExitCode::FAILURE;
    }
    if options.built_in {
        print!("{VERSION}\n{}", built_in());
        return ExitCode::SUCCESS;
    }
    for warning in &options.warnings {
        eprintln!("warn: {warning}");
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
