//! Sessions that have been greeted, perhaps secured, and say nothing more.
//!
//! Prints `ready` when all are open; a line on standard input asks for one more session, whose
//! time is the result.

use std::io;
use std::time::Instant;

use crate::client::Session;
use crate::dial::Dialer;
use crate::options::{Failure, Options};

/// The command `idle`.
pub fn idle(options: &Options) -> Result<String, Failure> {
    let dialer = Dialer::new(options)?;
    let sessions = (0..options.sessions)
        .map(|_| Session::open(&dialer))
        .collect::<Result<Vec<Session>, Failure>>()?;
    println!("ready");
    io::stdin().read_line(&mut String::new())?;
    let begin = Instant::now();
    let mut another = Session::open(&dialer)?;
    another.command(b"NOOP\r\n", 250)?;
    another.quit()?;
    let served = begin.elapsed().as_secs_f64();
    let mut alive = 0;
    for mut session in sessions {
        alive += usize::from(session.command(b"NOOP\r\n", 250).is_ok());
    }
    Ok(format!("{{\"sessions\": {alive}, \"another_seconds\": {served:.6}}}"))
}
