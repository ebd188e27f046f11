//! mail.local(8).

use std::process::ExitCode;

use pillarbox::worker::program::{finish, local, words};

fn main() -> ExitCode {
    let request = match local::parse(words()) {
        Ok(request) => request,
        Err(failed) => return finish(Err(failed)),
    };
    let spool = platform::mbox::convention().spool;
    match local::run(&request, &spool, &mut std::io::stdin().lock(), local::say) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => ExitCode::from(failed.status),
    }
}
