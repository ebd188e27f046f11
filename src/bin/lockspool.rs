//! lockspool(8).

use std::process::ExitCode;

use pillarbox::worker::program::{finish, lockspool, words};

fn main() -> ExitCode {
    let user = match lockspool::parse(words()) {
        Ok(user) => user,
        Err(failed) => return finish(Err(failed)),
    };
    let spool = platform::mbox::convention().spool;
    let (input, output) = (std::io::stdin(), std::io::stdout());
    match lockspool::hold(&spool, &user, lockspool::PATIENCE, input, output) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}
