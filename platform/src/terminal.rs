//! Reading from a terminal what is not to be shown.
//!
//! Source: termios(3).

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};

use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};

/// The longest line that is read, in bytes.
const MAX_LINE: usize = 4096;
/// What Control-C sends.
const INTERRUPT: u8 = 3;

/// Whether standard input is a terminal.
pub fn is_input() -> bool {
    io::stdin().is_terminal()
}

/// Asks for a line on the controlling terminal, which does not show it; without its end.
///
/// # Errors
/// There is no terminal, or it does not do as it is told; `Interrupted` when the user gave up.
pub fn read_hidden(prompt: &str) -> io::Result<Vec<u8>> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let hidden = Hidden::new(terminal.try_clone()?)?;
    terminal.write_all(prompt.as_bytes())?;
    let line = read_line(&mut terminal);
    drop(hidden);
    terminal.write_all(b"\n")?;
    line
}

/// Byte by byte, so that nothing of it stays in a buffer.
fn read_line(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(MAX_LINE);
    let mut byte = [0];
    while line.len() < MAX_LINE {
        match input.read(&mut byte)? {
            0 => break,
            _ if byte[0] == b'\n' => break,
            _ if byte[0] == INTERRUPT => return Err(io::ErrorKind::Interrupted.into()),
            _ => line.push(byte[0]),
        }
    }
    Ok(line)
}

/// A terminal that shows nothing, until this is dropped. Signals wait too: one that ended the
/// program would leave the terminal so.
struct Hidden {
    terminal: File,
    before: Termios,
}

impl Hidden {
    fn new(terminal: File) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        // A line ends there too: who gives up need not end the line first.
        hidden.control_chars[SpecialCharacterIndices::VEOL as usize] = INTERRUPT;
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing anyway.
        let _ = tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use nix::pty::openpty;

    use super::*;

    #[test]
    fn a_hidden_line_is_not_shown_and_who_gives_up_need_not_end_it() {
        let pair = openpty(None, None).unwrap();
        let (mut user, terminal) = (File::from(pair.master), File::from(pair.slave));
        let mut input = terminal.try_clone().unwrap();
        let hidden = Hidden::new(terminal.try_clone().unwrap()).unwrap();
        for (typed, expected) in [(&b"secret\n"[..], Some(&b"secret"[..])), (b"sec\x03", None)] {
            user.write_all(typed).unwrap();
            let (told, line) = mpsc::channel();
            let mut typed_into = input.try_clone().unwrap();
            std::thread::spawn(move || told.send(read_line(&mut typed_into)));
            let line = line.recv_timeout(Duration::from_secs(5)).expect("the line has not ended");
            assert_eq!(line.ok().as_deref(), expected);
        }
        drop(hidden);
        // What is shown comes back to the user: of all that, nothing was.
        input.write_all(b"done\n").unwrap();
        let mut shown = [0; 64];
        let count = user.read(&mut shown).unwrap();
        assert_eq!(&shown[..count], b"done\r\n");
    }

    #[test]
    fn a_line_ends_with_its_end_or_the_users_patience() {
        let cases = [
            (&b"secret\nmore"[..], Some(&b"secret"[..])),
            (b"secret", Some(b"secret")),
            (b"", Some(b"")),
            (b"sec\x03ret\n", None),
        ];
        for (mut input, expected) in cases {
            assert_eq!(read_line(&mut input).ok().as_deref(), expected);
        }
        assert_eq!(read_line(&mut io::repeat(b'a')).unwrap().len(), MAX_LINE);
    }
}
