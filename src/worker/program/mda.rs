//! mail.mda(8): runs a command with the shell, for the command line that the daemon documents.

use std::ffi::OsString;
use std::process::{Command, ExitStatus};

use super::{refuse_root, usage};
use crate::worker::command::SHELL;
use crate::worker::report::{FAILURE, Failed, TEMPORARY};

const PROGRAM: &str = "mail.mda";

/// Runs the one operand. Standard input, output and error are the caller's.
///
/// # Errors
/// The process is root, there is not exactly one operand, or the command ended with a status
/// other than 0 (which is passed on; an end by a signal is temporary).
pub fn run(words: impl IntoIterator<Item = OsString>) -> Result<(), Status> {
    refuse_root(PROGRAM, FAILURE).map_err(Status::Said)?;
    execute(words)
}

/// Why the program does not end with success.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Status {
    /// The command has said what there is to say.
    Passed(u8),
    /// Something to be said.
    Said(Failed),
}

fn execute(words: impl IntoIterator<Item = OsString>) -> Result<(), Status> {
    let mut words = words.into_iter().peekable();
    words.next_if(|word| word == "--");
    let (command, more) = (words.next(), words.next());
    let wrong = |what: &str| Status::Said(usage(PROGRAM, what));
    let command = command.ok_or_else(|| wrong("a command is needed"))?;
    if more.is_some() {
        return Err(wrong("only one command is supported"));
    }
    let status = Command::new(SHELL).arg("-c").arg(command).status();
    match status.as_ref().map(ExitStatus::code) {
        Ok(Some(0)) => Ok(()),
        Ok(Some(code)) => Err(Status::Passed(u8::try_from(code).unwrap_or(FAILURE))),
        Ok(None) => Err(Status::Passed(TEMPORARY)),
        Err(error) => Err(Status::Said(Failed::system(TEMPORARY, PROGRAM, SHELL, error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_s_status_is_passed_on() {
        // queue case 152, config case 254
        let said = |text: &str| Err(Status::Said(usage(PROGRAM, text)));
        let cases: [(&[&str], _); 5] = [
            (&["exit 0"], Ok(())),
            (&["exit 3"], Err(Status::Passed(3))),
            (&["kill -9 $$"], Err(Status::Passed(75))),
            (&[], said("a command is needed")),
            (&["a", "b"], said("only one command is supported")),
        ];
        for (words, expected) in cases {
            assert_eq!(execute(words.iter().map(OsString::from)), expected, "{words:?}");
        }
    }
}
