//! mail.mboxfile(8).

use std::process::ExitCode;

use pillarbox::worker::program::{finish, mboxfile, words};

fn main() -> ExitCode {
    finish(
        mboxfile::parse(words())
            .and_then(|request| mboxfile::run(&request, &mut std::io::stdin().lock())),
    )
}
