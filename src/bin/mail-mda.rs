//! mail.mda(8).

use std::process::ExitCode;

use pillarbox::worker::program::{finish, mda, words};

fn main() -> ExitCode {
    match mda::run(words()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(mda::Status::Passed(status)) => ExitCode::from(status),
        Err(mda::Status::Said(failed)) => finish(Err(failed)),
    }
}
