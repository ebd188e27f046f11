//! The words of `smtpctl`: which commands there are, and what a command line means.
//!
//! Every word may be shortened to a prefix that no other word in its place shares. A word of the
//! reference wins over one of ours, so that what scripts abbreviate stays valid. Words that exist
//! and cannot be carried out yet are [`Command::Unsupported`]; nothing is carried out here.
//!
//! Sources: the queue page of the specification, 6.1 and 6.4; cases 157 to 161, 167, 168.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::ipc::message::client::{Change, Selection, Service, Verbosity};
use crate::model::{EnvelopeId, MessageId};

/// What a command line asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// `pause envelope`, `remove`, `resume envelope`, `schedule`
    Change(Change, Selection),
    /// `encrypt`; the password, if it is there
    Encrypt(Option<String>),
    /// `log`
    Log(Verbosity),
    /// `pause mda`, `pause mta`, `pause smtp`
    Pause(Service),
    /// `reload`
    Reload,
    /// `resume mda`, `resume mta`, `resume smtp`
    Resume(Service),
    /// `show envelope`
    ShowEnvelope(EnvelopeId),
    /// `show message`
    ShowMessage(MessageId),
    /// `show queue`
    ShowQueue(Option<MessageId>),
    /// `show stats`
    ShowStatistics,
    /// `show status`
    ShowStatus,
    /// `stop`
    Stop,
    /// A command that this version knows and cannot carry out; its form.
    Unsupported(&'static str),
    /// `update table`
    UpdateTable(String),
}

/// Why a command line means nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WordsError {
    /// Nothing may follow what was understood.
    #[error("invalid command")]
    Invalid,
    /// What was understood can go on in these ways only.
    #[error("possibilities are:{}", .0.iter().fold(String::new(), |all, one| all + "\n" + one))]
    Possibilities(Vec<String>),
    /// The word after `trace`, `untrace`, `profile` or `unprofile` is none that they know.
    #[error("invalid {subject} keyword: {word}")]
    Keyword {
        /// `trace` or `profile`.
        subject: &'static str,
        /// The word.
        word: String,
    },
}

/// A parameter of a command, as read.
enum Value {
    Envelope(EnvelopeId),
    Message(MessageId),
    Text(String),
    /// Checked; no supported command takes it yet.
    Other,
}

/// Makes a command of its parameters, in order.
type Build = fn(&[Value]) -> Result<Command, WordsError>;

/// One form of a command: its words and parameters, separated by a blank.
struct Form {
    words: &'static str,
    origin: Origin,
    build: Build,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Origin {
    Ours,
    Reference,
}

/// A word of a form that may come next, and the forms that go on with it.
struct Continuation {
    word: &'static str,
    reference: bool,
    forms: Vec<&'static Form>,
}

const fn form(words: &'static str, build: Build) -> Form {
    Form { words, origin: Origin::Reference, build }
}

const fn our_form(words: &'static str, build: Build) -> Form {
    Form { words, origin: Origin::Ours, build }
}

/// A form of the reference whose command is still to come.
macro_rules! later {
    ($words:literal) => {
        form($words, |_| Ok(Command::Unsupported($words)))
    };
}

/// One of our forms whose command is still to come.
macro_rules! our_later {
    ($words:literal) => {
        our_form($words, |_| Ok(Command::Unsupported($words)))
    };
}

/// Every form. The order is an interface: possibilities are listed in it.
static FORMS: &[Form] = &[
    later!("discover <evpid>"),
    later!("discover <msgid>"),
    later!("pause mta from <addr> for <str>"),
    later!("resume mta from <addr> for <str>"),
    later!("show mta paused"),
    form("log brief", |_| Ok(Command::Log(Verbosity::Brief))),
    form("log verbose", |_| Ok(Command::Log(Verbosity::Verbose))),
    later!("monitor"),
    form("pause envelope <evpid>", |values| change(Change::Pause, values)),
    form("pause envelope <msgid>", |values| change(Change::Pause, values)),
    form("pause envelope all", |values| change(Change::Pause, values)),
    form("pause mda", |_| Ok(Command::Pause(Service::Mda))),
    form("pause mta", |_| Ok(Command::Pause(Service::Mta))),
    form("pause smtp", |_| Ok(Command::Pause(Service::Smtp))),
    form("profile <str>", |values| keyword("profile", values, "profile <str>")),
    form("remove <evpid>", |values| change(Change::Remove, values)),
    form("remove <msgid>", |values| change(Change::Remove, values)),
    form("remove all", |values| change(Change::Remove, values)),
    form("resume envelope <evpid>", |values| change(Change::Resume, values)),
    form("resume envelope <msgid>", |values| change(Change::Resume, values)),
    form("resume envelope all", |values| change(Change::Resume, values)),
    form("resume mda", |_| Ok(Command::Resume(Service::Mda))),
    form("resume mta", |_| Ok(Command::Resume(Service::Mta))),
    later!("resume route <routeid>"),
    form("resume smtp", |_| Ok(Command::Resume(Service::Smtp))),
    form("schedule <msgid>", |values| change(Change::Schedule, values)),
    form("schedule <evpid>", |values| change(Change::Schedule, values)),
    form("schedule all", |values| change(Change::Schedule, values)),
    form("show envelope <evpid>", show_envelope),
    later!("show hoststats"),
    form("show message <msgid>", show_message),
    form("show message <evpid>", show_message),
    form("show queue", show_queue),
    form("show queue <msgid>", show_queue),
    later!("show hosts"),
    later!("show relays"),
    later!("show routes"),
    form("show stats", |_| Ok(Command::ShowStatistics)),
    form("show status", |_| Ok(Command::ShowStatus)),
    form("trace <str>", |values| keyword("trace", values, "trace <str>")),
    form("unprofile <str>", |values| keyword("profile", values, "unprofile <str>")),
    form("untrace <str>", |values| keyword("trace", values, "untrace <str>")),
    form("update table <str>", update_table),
    form("encrypt", encrypt),
    form("encrypt <str>", encrypt),
    later!("spf walk"),
    our_form("stop", |_| Ok(Command::Stop)),
    our_form("reload", |_| Ok(Command::Reload)),
    our_later!("import <str>"),
    our_later!("export <str>"),
    our_later!("uncorrupt <msgid>"),
];

/// What `arguments`, the words after the program's name and options, ask for.
///
/// # Errors
/// Says how the command line could go on, or that it cannot.
pub fn parse(arguments: &[String]) -> Result<Command, WordsError> {
    let mut forms: Vec<&'static Form> = FORMS.iter().collect();
    let mut understood = Vec::new();
    let mut values = Vec::new();
    for (depth, argument) in arguments.iter().enumerate() {
        let continuations = continuations(&forms, depth);
        let Some((chosen, value)) = choose(&continuations, argument) else {
            return Err(possibilities(&understood, &continuations));
        };
        let typed = value.is_some();
        understood.push(if typed { argument.clone() } else { chosen.word.to_owned() });
        values.extend(value);
        forms.clone_from(&chosen.forms);
    }
    let complete = forms.iter().find(|form| word_at(form, arguments.len()).is_none());
    match complete {
        Some(form) => (form.build)(&values),
        None => Err(possibilities(&understood, &continuations(&forms, arguments.len()))),
    }
}

fn word_at(form: &Form, depth: usize) -> Option<&'static str> {
    form.words.split(' ').nth(depth)
}

/// The words at `depth` of `forms`, each once, in order of first appearance.
fn continuations(forms: &[&'static Form], depth: usize) -> Vec<Continuation> {
    let mut found: Vec<Continuation> = Vec::new();
    for form in forms {
        let Some(word) = word_at(form, depth) else { continue };
        let reference = form.origin == Origin::Reference;
        match found.iter_mut().find(|known| known.word == word) {
            Some(known) => {
                known.reference |= reference;
                known.forms.push(form);
            }
            None => found.push(Continuation { word, reference, forms: vec![form] }),
        }
    }
    found
}

/// The continuation that `argument` means: the same word, else a parameter that it fits, else the
/// one word that it begins.
fn choose<'a>(
    from: &'a [Continuation],
    argument: &str,
) -> Option<(&'a Continuation, Option<Value>)> {
    if let Some(exact) = from.iter().find(|one| one.word == argument && !is_parameter(one.word)) {
        return Some((exact, None));
    }
    for one in from.iter().filter(|one| is_parameter(one.word)) {
        if let Some(value) = read_parameter(one.word, argument) {
            return Some((one, Some(value)));
        }
    }
    let begun = |reference: bool| {
        let mut matching = from.iter().filter(move |one| {
            one.reference == reference
                && !is_parameter(one.word)
                && !argument.is_empty()
                && one.word.starts_with(argument)
        });
        (matching.next(), matching.next())
    };
    match begun(true) {
        (Some(only), None) => Some((only, None)),
        (Some(_), Some(_)) => None,
        (None, _) => match begun(false) {
            (Some(only), None) => Some((only, None)),
            _ => None,
        },
    }
}

fn is_parameter(word: &str) -> bool {
    word.starts_with('<')
}

fn read_parameter(parameter: &str, argument: &str) -> Option<Value> {
    match parameter {
        "<evpid>" => argument.parse().ok().map(Value::Envelope),
        "<msgid>" => argument.parse().ok().map(Value::Message),
        "<str>" => Some(Value::Text(argument.to_owned())),
        "<routeid>" => {
            let digits = argument.bytes().all(|byte| byte.is_ascii_digit());
            let number: u64 = argument.parse().ok()?;
            (digits && number > 0).then_some(Value::Other)
        }
        "<addr>" => is_address(argument).then_some(Value::Other),
        _ => None,
    }
}

/// Whether `text` is an IPv4 address or an IPv6 address with or without `%scope`, no brackets.
fn is_address(text: &str) -> bool {
    match text.split_once('%') {
        Some((address, scope)) => !scope.is_empty() && address.parse::<Ipv6Addr>().is_ok(),
        None => text.parse::<IpAddr>().is_ok(),
    }
}

fn possibilities(understood: &[String], continuations: &[Continuation]) -> WordsError {
    if continuations.is_empty() {
        return WordsError::Invalid;
    }
    let mut prefix = understood.join(" ");
    if !prefix.is_empty() {
        prefix.push(' ');
    }
    WordsError::Possibilities(
        continuations.iter().map(|one| format!("{prefix}{}", one.word)).collect(),
    )
}

fn change(change: Change, values: &[Value]) -> Result<Command, WordsError> {
    let selection = match values {
        [Value::Envelope(id)] => Selection::Envelope(*id),
        [Value::Message(id)] => Selection::Message(*id),
        _ => Selection::All,
    };
    Ok(Command::Change(change, selection))
}

fn show_envelope(values: &[Value]) -> Result<Command, WordsError> {
    match values {
        [Value::Envelope(id)] => Ok(Command::ShowEnvelope(*id)),
        _ => Err(WordsError::Invalid),
    }
}

fn show_message(values: &[Value]) -> Result<Command, WordsError> {
    match values {
        [Value::Envelope(id)] => Ok(Command::ShowMessage(id.message())),
        [Value::Message(id)] => Ok(Command::ShowMessage(*id)),
        _ => Err(WordsError::Invalid),
    }
}

fn show_queue(values: &[Value]) -> Result<Command, WordsError> {
    match values {
        [Value::Message(id)] => Ok(Command::ShowQueue(Some(*id))),
        _ => Ok(Command::ShowQueue(None)),
    }
}

fn encrypt(values: &[Value]) -> Result<Command, WordsError> {
    match values {
        [Value::Text(password)] => Ok(Command::Encrypt(Some(password.clone()))),
        _ => Ok(Command::Encrypt(None)),
    }
}

fn update_table(values: &[Value]) -> Result<Command, WordsError> {
    match values {
        [Value::Text(name)] => Ok(Command::UpdateTable(name.clone())),
        _ => Err(WordsError::Invalid),
    }
}

/// The words that `trace` and `untrace` know.
const TRACES: &[&str] = &[
    "imsg",
    "io",
    "smtp",
    "filters",
    "mta",
    "bounce",
    "scheduler",
    "lookup",
    "stat",
    "rules",
    "mproc",
    "expand",
    "all",
];
/// The words that `profile` and `unprofile` know.
const PROFILES: &[&str] = &["imsg", "queue"];

fn keyword(
    subject: &'static str,
    values: &[Value],
    words: &'static str,
) -> Result<Command, WordsError> {
    let known = if subject == "trace" { TRACES } else { PROFILES };
    match values {
        [Value::Text(word)] if !known.contains(&word.as_str()) => {
            Err(WordsError::Keyword { subject, word: word.clone() })
        }
        _ => Ok(Command::Unsupported(words)),
    }
}

impl WordsError {
    /// The exit status that goes with it.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Invalid | Self::Possibilities(_) => 255,
            Self::Keyword { .. } => 1,
        }
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words)
    }
}

#[cfg(test)]
mod tests;
