//! mail.maildir(8).

use std::process::ExitCode;

use pillarbox::worker::program::{finish, maildir, words};

fn main() -> ExitCode {
    let (home, extension) = (std::env::var_os("HOME"), std::env::var_os("EXTENSION"));
    finish(
        maildir::parse(words(), home, extension)
            .and_then(|request| maildir::run(&request, &mut std::io::stdin().lock())),
    )
}
