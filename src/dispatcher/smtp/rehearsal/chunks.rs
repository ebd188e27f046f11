//! What must hold for content in chunks, however it is cut: driven by a fuzz target and tests.

use super::{Rehearsal, Script};
use crate::dispatcher::smtp::{Peer, Settings};

/// What came of a message.
#[derive(Debug, Eq, PartialEq)]
struct Came {
    /// The reply to its last chunk, or the one that ended the session.
    reply: String,
    /// What is stored of it.
    body: Option<Vec<u8>>,
    closed: bool,
}

/// Sends one message, once in one chunk, and once in chunks and segments of other sizes.
///
/// `bytes` are three of settings, then the content.
///
/// # Errors
/// Names what did not hold: where chunks and segments are cut makes no difference; each chunk has
/// one reply; nothing in a chunk is a command.
pub fn exercise_chunks(bytes: &[u8]) -> Result<(), String> {
    let Some((&[flags, chunk, segment], content)) = bytes.split_first_chunk::<3>() else {
        return Ok(());
    };
    let small = flags & 1 != 0;
    let whole = send(small, content, content.len().max(1), usize::MAX)?;
    let cut = send(small, content, usize::from(chunk) + 1, usize::from(segment) + 1)?;
    if whole != cut {
        return Err(format!("as a whole {whole:?}, in chunks {cut:?}"));
    }
    if whole.body.as_ref().is_some_and(|body| body.contains(&b'\r') || !body.ends_with(b"\n")) {
        return Err("a stored message has a CR, or no last LF".to_owned());
    }
    Ok(())
}

fn send(small: bool, content: &[u8], chunk: usize, segment: usize) -> Result<Came, String> {
    let mut settings = Settings::new("mx.example.org");
    if small {
        settings.max_message_size = 500;
    }
    let peer = Peer::remote([10, 9, 8, 7].into());
    let mut session = Rehearsal::new(settings, peer, Script::default());
    session.send(b"EHLO a.b\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    let mut dialogue = Vec::with_capacity(2 * content.len() + 32);
    let mut commands = 0;
    for piece in content.chunks(chunk) {
        dialogue.extend_from_slice(format!("BDAT {}\r\n", piece.len()).as_bytes());
        dialogue.extend_from_slice(piece);
        commands += 1;
    }
    dialogue.extend_from_slice(b"BDAT 0 LAST\r\n");
    commands += 1;
    let mut received = Vec::new();
    for piece in dialogue.chunks(segment) {
        received.extend(session.send(piece));
    }
    let received = String::from_utf8_lossy(&received).into_owned();
    let replies: Vec<&str> = received.lines().collect();
    let closed = session.closed;
    if !closed {
        if replies.len() != commands {
            return Err(format!("{} replies to {commands} chunks", replies.len()));
        }
        if session.send(b"NOOP\r\n") != b"250 2.0.0 Ok\r\n" {
            return Err("what follows the last chunk is no command".to_owned());
        }
    }
    if session.stored.len() > 1 {
        return Err("more than one message is stored".to_owned());
    }
    let body = session.stored.pop().map(|stored| stored.body);
    Ok(Came { reply: replies.last().copied().unwrap_or_default().to_owned(), body, closed })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn cuts_make_no_difference(
            flags: u8,
            chunk: u8,
            segment: u8,
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "\r\n", "\n", "\r", ".", "\r\n.\r\n", "\0", "x", "To: a", "S: ", "QUIT\r\n",
                    "BDAT 9 LAST\r\n", "Received: x\r\n", "\u{e9}",
                ]),
                0..60,
            ),
        ) {
            let bytes = [&[flags, chunk, segment], pieces.concat().as_bytes()].concat();
            prop_assert_eq!(exercise_chunks(&bytes), Ok(()));
        }
    }

    #[test]
    fn a_line_that_is_too_long_ends_the_session_wherever_it_is_cut() {
        for chunk in [0, 9, 255] {
            let bytes = [&[0, chunk, 255][..], &[b'x'; 70_000]].concat();
            assert_eq!(exercise_chunks(&bytes), Ok(()));
        }
    }
}
