//! mail.lmtp(8).

use std::process::ExitCode;

use pillarbox::worker::program::{finish, lmtp, words};

fn main() -> ExitCode {
    finish(
        lmtp::parse(words(), lmtp::Environment::own())
            .and_then(|request| lmtp::run(&request, &mut std::io::stdin().lock())),
    )
}
