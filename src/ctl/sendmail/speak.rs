//! `sendmail -bs`: an SMTP session between standard input, standard output and the server.
//!
//! Bytes pass as they are; line ends are the business of who speaks.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

/// Passes bytes both ways until the server ends the session.
///
/// When `input` ends, the server is told so and may still answer. The reader of `input` is not
/// waited for: it may be a terminal.
///
/// # Errors
/// The session or the output failed.
pub fn run(
    session: &UnixStream,
    mut input: impl Read + Send + 'static,
    output: &mut impl Write,
) -> io::Result<()> {
    let mut to_server = session.try_clone()?;
    thread::spawn(move || {
        // A server that has left is noticed by the other direction.
        let _ended = io::copy(&mut input, &mut to_server);
        let _ended = to_server.shutdown(Shutdown::Write);
    });
    let mut from_server = session;
    let mut buffer = [0; 4096];
    loop {
        let count = match from_server.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        output.write_all(buffer.get(..count).unwrap_or_default())?;
        output.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // queue case 180, in the form of delta-7.9.
    #[test]
    fn a_session_runs_between_input_and_output() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            theirs.write_all(b"220 mx\r\n").unwrap();
            let mut heard = String::new();
            theirs.read_to_string(&mut heard).unwrap();
            theirs.write_all(b"221 bye\r\n").unwrap();
            heard
        });
        let mut output = Vec::new();
        run(&ours, &b"QUIT\r\n"[..], &mut output).unwrap();
        assert_eq!(server.join().unwrap(), "QUIT\r\n");
        assert_eq!(output, b"220 mx\r\n221 bye\r\n");
    }
}
