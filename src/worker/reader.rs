//! A reader's life: it answers lookup under the ids of one identity, and executes and writes
//! nothing.
//!
//! A file system that hangs holds up this process alone: lookup stops waiting, and the system ends
//! a reader whose reading takes too long. It leaves when lookup has closed the channel or the spawner
//! is gone.

use std::path::Path;
use std::time::Duration;

use platform::privilege::effective_uid;
use platform::process::{Interest, PollEntry, end_in, poll};

use super::serve::Control;
use super::{forward, include};
use crate::ipc::blocking::{Channel, ChannelError};
use crate::ipc::message::reader::{IncludePiece, LookupToReader, ReaderToLookup};

/// How long one answer may take before the system ends the process. Lookup waits less.
const LIMIT: Duration = Duration::from_secs(8);

/// The channel to lookup.
pub(super) type Questions = Channel<ReaderToLookup, LookupToReader>;

/// Answers until lookup has closed the channel, or the spawner is gone; about lists only with `lists`.
///
/// # Errors
/// A channel is at its end, or its other end broke the protocol.
pub(super) fn serve(
    control: &mut Control,
    questions: &mut Questions,
    lists: bool,
) -> Result<(), ChannelError> {
    let uid = effective_uid();
    loop {
        while let Some(received) = questions.next_message()? {
            let Some(question) = received.message else { continue };
            end_in(Some(LIMIT));
            let answer = answer(&question, uid, lists);
            end_in(None);
            questions.reply(received.number, &answer, None)?;
        }
        control.flush()?;
        questions.flush()?;
        let interest = |wants_write| if wants_write { Interest::ReadWrite } else { Interest::Read };
        let mut entries = [
            PollEntry::new(control.descriptor(), interest(control.wants_write())),
            PollEntry::new(questions.descriptor(), interest(questions.wants_write())),
        ];
        poll(&mut entries, None)?;
        let [ordered, asked] = entries.map(|entry| entry.readable());
        if asked {
            questions.fill()?;
        }
        if ordered {
            control.fill()?;
            // There are no orders but to leave, which is the end of the channel.
            while control.next_message()?.is_some() {}
        }
    }
}

fn answer(question: &LookupToReader, uid: u32, lists: bool) -> ReaderToLookup {
    match question {
        LookupToReader::Forward { home } => {
            ReaderToLookup::Forward(forward::read(Path::new(home), uid))
        }
        // What else a user can read is nobody's business.
        LookupToReader::Include { .. } if !lists => {
            ReaderToLookup::Include(IncludePiece::Failed("no reader of lists".to_owned()))
        }
        LookupToReader::Include { path, offset } => {
            ReaderToLookup::Include(include::read(Path::new(path), *offset))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_readers_of_lists_read_lists() {
        let question = LookupToReader::Include { path: "/etc/passwd".to_owned(), offset: 0 };
        let piece = |lists| match answer(&question, effective_uid(), lists) {
            ReaderToLookup::Include(piece) => piece,
            other => panic!("{other:?}"),
        };
        assert!(matches!(piece(true), IncludePiece::Piece { .. }));
        assert!(matches!(piece(false), IncludePiece::Failed(_)));
    }
}
