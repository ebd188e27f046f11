//! Controls the mail daemon; by other names, submits mail.

use std::process::ExitCode;

fn main() -> ExitCode {
    pillarbox::ctl::program::run(std::env::args_os())
}
