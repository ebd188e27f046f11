//! smtp(1).

use std::process::ExitCode;

fn main() -> ExitCode {
    pillarbox::client::program::run(std::env::args_os().skip(1))
}
