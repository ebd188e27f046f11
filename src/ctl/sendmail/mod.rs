//! `sendmail`: reads a message, completes it, and hands it to the server.
//!
//! The message is read whole before the server is asked for a session, so that a slow writer holds
//! none. If the server is down, the message is kept for its next start.
//!
//! Source: the queue page of the specification, 7.2; cases 179 to 195.

pub mod address;
pub mod compose;
pub mod dialogue;
pub mod draft;
pub mod header;
pub mod offline;
pub mod options;
pub mod quoted_printable;
pub mod scratch;
pub mod speak;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use self::address::{qualify, split_operand};
use self::compose::Completion;
use self::dialogue::{DialogueError, Transaction};
use self::draft::{Draft, DraftError};
use self::offline::OfflineError;
use self::options::{Options, OptionsError};

/// The address of a From that is made for a message without sender (RFC 5321, section 4.5.5).
const NULL_SENDER_FROM: &str = "MAILER-DAEMON";

/// Who sends, and from where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Facts {
    /// Name of the caller's account.
    pub caller: String,
    /// The caller's full name; may be empty.
    pub full_name: String,
    /// Where a refused message is saved.
    pub dead_letter: Option<PathBuf>,
    /// Name of the server; part of addresses without a domain.
    pub server_name: String,
    /// Directory of messages kept while the server is down.
    pub offline: PathBuf,
    /// Directory for long messages while they are read.
    pub scratch: PathBuf,
    /// Now, as a Date header has it.
    pub date: String,
    /// Now, in seconds since 1970.
    pub now: u64,
    /// The command line, for the message's later submission; without options that name a server.
    pub arguments: Vec<OsString>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    /// The server has it.
    Accepted,
    /// It waits for the server's next start.
    KeptOffline,
}

impl Taken {
    /// The exit status that says so: 75 for a message that was kept, as callers know it.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::KeptOffline => 75,
        }
    }
}

/// Why there is no session with the server.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It has no room for another one.
    #[error("server too busy")]
    Busy,
    /// It does not run.
    #[error("smtpd doesn't seem to be running")]
    Down,
    /// It takes no mail at the moment.
    #[error("server disallowed submission request")]
    Disallowed,
    /// It runs, and something else is wrong.
    #[error("{0}")]
    Other(String),
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SendmailError {
    /// The server refused it, or broke off.
    #[error(transparent)]
    Dialogue(#[from] DialogueError),
    /// It cannot be read.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// Nobody to send it to.
    #[error("no recipients")]
    NoRecipients,
    /// The server is down and the message could not be kept.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// The command line cannot be followed.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// No session with the server.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl SendmailError {
    /// The exit status, in the reference's numbers (sysexits(3) but for 1).
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Draft(DraftError::Address(_))
            | Self::Options(_)
            | Self::Session(SessionError::Disallowed | SessionError::Other(_)) => 1,
            Self::Draft(DraftError::HeaderLine) => 65,
            Self::Dialogue(DialogueError::Io(_))
            | Self::Draft(DraftError::Io(_))
            | Self::Session(SessionError::Busy) => 69,
            Self::Dialogue(DialogueError::Refused(_))
            | Self::NoRecipients
            | Self::Offline(OfflineError::IllegalCharacter(_)) => 70,
            Self::Offline(OfflineError::Io(_) | OfflineError::NotPermitted(_))
            | Self::Session(SessionError::Down) => 75,
        }
    }
}

/// Sends the message on `input`.
///
/// `open_session` asks the server for a session; it is called once, when the message is complete.
/// With `-v`, the dialogue is written to `transcript`.
///
/// # Errors
/// The message was not taken; [`SendmailError::exit_status`] says how that ends.
pub fn deliver<S: Read + Write>(
    options: &Options,
    facts: &Facts,
    input: &mut impl BufRead,
    transcript: &mut impl Write,
    open_session: impl FnOnce() -> Result<S, SessionError>,
) -> Result<Taken, SendmailError> {
    let mut draft = Draft::read(input, options.header_recipients, &facts.scratch)?;
    let transaction = transaction(options, facts, &draft);
    if transaction.recipients.is_empty() {
        return Err(SendmailError::NoRecipients);
    }
    let session = match open_session() {
        Ok(session) => session,
        // What comes from there is not kept once more.
        Err(SessionError::Down) if !options.by_uid => {
            keep_offline(options, facts, &transaction, &mut draft)?;
            return Ok(Taken::KeptOffline);
        }
        Err(error) => return Err(error.into()),
    };
    let completion = completion(options, facts, &transaction);
    let content = |mut output: &mut dyn Write| compose::write(&mut draft, &completion, &mut output);
    let transcript = options.verbose.then_some(transcript as &mut dyn Write);
    let sent = dialogue::submit(session, &transaction, content, transcript);
    if let Err(error) = sent {
        save_dead_letter(facts, &mut draft);
        return Err(error.into());
    }
    Ok(Taken::Accepted)
}

fn transaction(options: &Options, facts: &Facts, draft: &Draft) -> Transaction {
    let sender = options.sender.as_ref().or(draft.findings.sender.as_ref());
    let operands = options.operands.iter().flat_map(|operand| split_operand(operand));
    let found = draft.findings.recipients.iter().map(String::as_str);
    let mut recipients: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for name in operands.chain(found) {
        let recipient = qualify(name, &facts.server_name);
        if seen.insert(recipient.clone()) {
            recipients.push(recipient);
        }
    }
    Transaction {
        sender: qualify(sender.unwrap_or(&facts.caller), &facts.server_name),
        recipients,
        notify: options.notify.clone(),
        ret: options.ret.clone(),
        envid: options.envid.clone(),
    }
}

fn completion(options: &Options, facts: &Facts, transaction: &Transaction) -> Completion {
    // A sender given by hand need not be the caller, whose name it then must not carry.
    let account_name = if options.sender.is_none() { facts.full_name.as_str() } else { "" };
    let sender = match transaction.sender.as_str() {
        "" => qualify(NULL_SENDER_FROM, &facts.server_name),
        sender => sender.to_owned(),
    };
    Completion {
        sender,
        full_name: options.full_name.as_deref().unwrap_or(account_name).to_owned(),
        date: facts.date.clone(),
    }
}

fn keep_offline(
    options: &Options,
    facts: &Facts,
    transaction: &Transaction,
    draft: &mut Draft,
) -> Result<(), OfflineError> {
    let resolved;
    let arguments = if draft.findings.bcc {
        resolved = offline::resolved_arguments(options, &transaction.recipients);
        &resolved
    } else {
        &facts.arguments
    };
    offline::keep(&facts.offline, facts.now, arguments, draft)
}

/// A message that was refused stays with its sender, if there is a place for it.
fn save_dead_letter(facts: &Facts, draft: &mut Draft) {
    let Some(path) = &facts.dead_letter else { return };
    let saved = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| io::copy(&mut draft.content.range(0, u64::MAX)?, &mut file));
    if let Err(error) = saved {
        eprintln!("sendmail: {}: {error}", path.display());
    }
}

/// The full name of an account: its comment up to the first comma, `&` being its name.
#[must_use]
pub fn full_name(comment: &str, account: &str) -> String {
    let name = comment.split(',').next().unwrap_or_default();
    let mut letters = account.chars();
    let capitalised: String =
        letters.next().iter().flat_map(|first| first.to_uppercase()).chain(letters).collect();
    name.replace('&', &capitalised)
}

#[cfg(test)]
mod tests;
