//! The delivery programs `mail.local`, `mail.maildir`, `mail.mboxfile`, `mail.lmtp`, `mail.mda` and
//! `lockspool`: what a worker does, for command lines, wrappers and people.
//!
//! Each module is one program, given its words and environment as values and told the exit status.
//! Messages come on standard input and are read once.

use std::ffi::OsString;
use std::fmt::Display;
use std::process::ExitCode;

use super::report::{FAILURE, Failed};

pub mod lmtp;
pub mod local;
pub mod lockspool;
pub mod maildir;
pub mod mboxfile;
pub mod mda;

/// Ends a program: what went wrong is said on standard error.
#[must_use]
pub fn finish(result: Result<(), Failed>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("{failed}");
            ExitCode::from(failed.status)
        }
    }
}

/// The words after the program's name.
pub fn words() -> impl Iterator<Item = OsString> {
    std::env::args_os().skip(1)
}

/// Refuses to run with root's rights.
///
/// # Errors
/// The process has them.
fn refuse_root(program: &'static str, status: u8) -> Result<(), Failed> {
    if !platform::privilege::is_root() {
        return Ok(());
    }
    let text = format_args!("{program}: may not be executed as root");
    Err(Failed::new(status, program, text))
}

fn usage(program: &'static str, what: impl Display) -> Failed {
    Failed::new(FAILURE, program, what)
}

fn text_of(program: &'static str, word: OsString) -> Result<String, Failed> {
    word.into_string().map_err(|_| usage(program, "an argument is not valid UTF-8"))
}
