//! The program `smtpctl`, which is `sendmail`, `mailq` and others by the name it is called by.
//!
//! Sources: the queue page of the specification, 6.1 and 7; case 170.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use platform::users::{Account, user_by_name, user_by_uid};
use zeroize::Zeroizing;

use super::command::{self, CommandError, Form};
use super::connection::Connection;
use super::encrypt::{self, Scheme};
use super::exchange::ServerError;
use super::map;
use super::sendmail::options::{self, Invocation, Options};
use super::sendmail::{self, Facts, SendmailError, speak};
use super::state::{self, Caller, Directory};
use super::words::{self, Command};
use crate::paths::Places;
use crate::time::time_to_text;

/// Directory of the spool that holds messages for a server that is down.
const OFFLINE: &str = "offline";
/// Exit statuses of sysexits(3).
const EX_NOHOST: u8 = 68;
const EX_SOFTWARE: u8 = 70;
const EX_TEMPFAIL: u8 = 75;

/// Runs the program named by the first of `arguments`.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let name = name(&arguments.next().unwrap_or_default());
    let arguments: Vec<OsString> = arguments.collect();
    let status = match name.as_str() {
        "mailq" => list_queue(&name, None),
        "makemap" => without_group(&name, || map::makemap(&name, &arguments)),
        "newaliases" => newaliases(&arguments),
        "send-mail" | "sendmail" => send(&name, &arguments),
        "smtpctl" => control(&name, &arguments),
        _ => fail(&name, "unsupported mode", 1),
    };
    ExitCode::from(status)
}

/// The program's name without its directory; a login shell's dash is not part of it.
fn name(path: &OsStr) -> String {
    let name = Path::new(path).file_name().unwrap_or(OsStr::new("smtpctl"));
    name.to_string_lossy().trim_start_matches('-').to_owned()
}

fn fail(name: &str, message: impl std::fmt::Display, status: u8) -> u8 {
    eprintln!("{name}: {message}");
    status
}

/// `smtpctl [--json] [--scram] [--state DIR] WORD ...`
fn control(name: &str, arguments: &[OsString]) -> u8 {
    let given = match Given::read(arguments) {
        Ok(given) => given,
        Err(error) => return fail(name, error, 1),
    };
    match words::parse(&given.words) {
        Ok(Command::Encrypt(password)) => {
            without_group(name, || encrypt(name, password, given.scheme))
        }
        Ok(_) if given.scheme == Scheme::Scram => fail(name, "--scram goes with encrypt alone", 1),
        Ok(command) => carry_out(name, &command, given.form, given.state),
        Err(error @ words::WordsError::Keyword { .. }) => fail(name, &error, error.exit_status()),
        Err(error) => {
            eprintln!("{error}");
            error.exit_status()
        }
    }
}

/// Nobody's rights are needed for it, and no server.
fn encrypt(name: &str, password: Option<String>, scheme: Scheme) -> u8 {
    // The right of the program's file is for the offline directory alone.
    if let Err(error) = platform::caller::drop_set_group_id() {
        return fail(name, error, 1);
    }
    let output = &mut io::stdout().lock();
    let made = match password {
        Some(password) => {
            let password = Zeroizing::new(password.into_bytes());
            encrypt::run(std::iter::once(Ok(password)), scheme, output)
        }
        None if platform::terminal::is_input() => {
            let password = platform::terminal::read_hidden("Password: ").map(Zeroizing::new);
            encrypt::run(std::iter::once(password), scheme, output)
        }
        None => encrypt::run(encrypt::lines(io::stdin().lock()), scheme, output),
    };
    match made {
        Ok(()) => 0,
        Err(error) => fail(name, error, 1),
    }
}

/// `mailq`, whose arguments are of no interest, and `sendmail -bp`.
fn list_queue(name: &str, state: Option<PathBuf>) -> u8 {
    carry_out(name, &Command::ShowQueue(None), Form::Text, state)
}

fn carry_out(name: &str, command: &Command, form: Form, state: Option<PathBuf>) -> u8 {
    // The right of the program's file is for the offline directory alone.
    if let Err(error) = platform::caller::drop_set_group_id() {
        return fail(name, error, 1);
    }
    let state = match find_state(state) {
        Ok(state) => state,
        Err(error) => return fail(name, error, 1),
    };
    let socket = Places::new(state.as_deref()).control_socket;
    let administers = platform::privilege::is_root() || state.is_some();
    let connect = || match Connection::open(&socket) {
        // Whether the system's server runs is nothing that anybody else could change.
        Err(ServerError::Down) if !administers => Err(ServerError::Denied),
        other => other,
    };
    let now = Timestamp::now().as_second();
    match command::run(command, form, now, &mut io::stdout().lock(), connect) {
        Ok(true) => 0,
        Ok(false) => 1,
        // A pager that was left early is not worth a word.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 1,
        Err(error) => fail(name, error, 1),
    }
}

/// The command line of `smtpctl`.
struct Given {
    form: Form,
    scheme: Scheme,
    state: Option<PathBuf>,
    words: Vec<String>,
}

impl Given {
    fn read(arguments: &[OsString]) -> Result<Self, lexopt::Error> {
        let mut given =
            Self { form: Form::Text, scheme: Scheme::Crypt, state: None, words: Vec::new() };
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            match argument {
                lexopt::Arg::Long("json") => given.form = Form::Json,
                lexopt::Arg::Long("scram") => given.scheme = Scheme::Scram,
                lexopt::Arg::Long("state") => given.state = Some(parser.value()?.into()),
                lexopt::Arg::Value(word) => given.words.push(word.to_string_lossy().into_owned()),
                other => return Err(other.unexpected()),
            }
        }
        Ok(given)
    }
}

fn find_state(option: Option<PathBuf>) -> Result<Option<PathBuf>, state::StateError> {
    let caller = Caller {
        uid: platform::privilege::effective_uid(),
        ids_agree: platform::privilege::ids_agree(),
    };
    state::directory(option, env::var_os(state::VARIABLE), caller, |path| {
        let found = fs::metadata(path)?;
        Ok(Directory { owner: found.uid(), mode: found.mode() })
    })
}

fn send(name: &str, arguments: &[OsString]) -> u8 {
    let line = match options::parse(arguments) {
        Ok(line) => line,
        Err(options::OptionsError::Usage) => {
            eprintln!("{}", options::OptionsError::Usage);
            return 1;
        }
        Err(error) => return fail(name, error, 1),
    };
    match line.invocation {
        Invocation::Deliver(options) => deliver(name, &options, line.state, arguments),
        Invocation::ListQueue => list_queue(name, line.state),
        Invocation::Newaliases => newaliases(arguments),
        Invocation::RunQueue => EX_SOFTWARE,
        Invocation::SpeakSmtp => speak_smtp(name, line.state),
    }
}

fn newaliases(arguments: &[OsString]) -> u8 {
    without_group("newaliases", || {
        map::newaliases(arguments, |given| find_state(given).map_err(|error| error.to_string()))
    })
}

/// Runs what has no use for the right of the program's file.
fn without_group(name: &str, run: impl FnOnce() -> u8) -> u8 {
    match platform::caller::drop_set_group_id() {
        Ok(()) => run(),
        Err(error) => fail(name, error, 1),
    }
}

fn speak_smtp(name: &str, state: Option<PathBuf>) -> u8 {
    let opened = platform::caller::drop_set_group_id()
        .map_err(|error| (error.to_string(), 1))
        .and_then(|()| find_state(state).map_err(|error| (error.to_string(), 1)))
        .and_then(|state| {
            Connection::open(&Places::new(state.as_deref()).control_socket)
                .map_err(Into::into)
                .and_then(Connection::open_session)
                .map_err(SendmailError::Session)
                .map_err(|error| (error.to_string(), error.exit_status()))
        });
    let session = match opened {
        Ok(session) => session,
        Err((message, status)) => return fail(name, message, status),
    };
    match speak::run(&session, io::stdin(), &mut io::stdout().lock()) {
        Ok(()) => 0,
        Err(error) => fail(name, error, EX_TEMPFAIL),
    }
}

fn deliver(name: &str, options: &Options, state: Option<PathBuf>, arguments: &[OsString]) -> u8 {
    let named_by_option = state.is_some();
    // A caller that names the directory must not write there with the program's right.
    let dropped = if named_by_option { platform::caller::drop_set_group_id() } else { Ok(()) };
    let state = match (dropped, find_state(state)) {
        (Ok(()), Ok(state)) => state,
        (Err(error), _) => return fail(name, error, 1),
        (_, Err(error)) => return fail(name, error, 1),
    };
    let places = Places::new(state.as_deref());
    let Some(server_name) = server_name(&places.mailname) else {
        return fail(name, "the server has no host name", EX_NOHOST);
    };
    let arguments = if named_by_option {
        sendmail::offline::without_state(arguments)
    } else {
        arguments.to_vec()
    };
    let facts = facts(options, &places, server_name, arguments);
    let open_session = || {
        let connection = Connection::open(&places.control_socket)?;
        platform::caller::drop_set_group_id()
            .map_err(|error| sendmail::SessionError::Other(error.to_string()))?;
        connection.open_session()
    };
    let mut input = BufReader::new(io::stdin().lock());
    let mut output = io::stdout().lock();
    let result = sendmail::deliver(options, &facts, &mut input, &mut output, open_session);
    let flushed = output.flush();
    match (result, flushed) {
        (Ok(taken), _) => taken.exit_status(),
        (Err(error), _) => fail(name, &error, error.exit_status()),
    }
}

fn facts(
    options: &Options,
    places: &Places,
    server_name: String,
    arguments: Vec<OsString>,
) -> Facts {
    let account = caller_account(options.by_uid);
    let now = Timestamp::now();
    let scratch =
        if platform::privilege::ids_agree() { env::temp_dir() } else { PathBuf::from("/tmp") };
    Facts {
        caller: account.as_ref().map_or("anonymous", |account| &account.name).to_owned(),
        full_name: account
            .as_ref()
            .map_or(String::new(), |account| sendmail::full_name(&account.gecos, &account.name)),
        dead_letter: account.map(|account| account.home.join("dead.letter")),
        server_name,
        offline: places.spool.join(OFFLINE),
        scratch,
        date: time_to_text(now, &TimeZone::system()),
        now: u64::try_from(now.as_second()).unwrap_or_default(),
        arguments,
    }
}

/// The account of the caller: the login name's if it is theirs, else the user id's.
///
/// An account database that fails gives none: the message then comes from `anonymous`.
fn caller_account(by_uid: bool) -> Option<Account> {
    let uid = platform::privilege::effective_uid();
    let login = env::var("LOGNAME").ok().filter(|_| !by_uid);
    let named = login.and_then(|login| user_by_name(&login).ok().flatten());
    named
        .filter(|account| account.uid == uid || uid == 0)
        .or_else(|| user_by_uid(uid).ok().flatten())
}

/// The server's name: the first line of its file, else this machine's.
fn server_name(mailname: &Path) -> Option<String> {
    let named = fs::read_to_string(mailname)
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .or_else(|| {
            let name = platform::network::host_name().ok()?;
            if name.contains('.') {
                return Some(name);
            }
            Some(platform::network::canonical_name(&name).unwrap_or(name))
        });
    named.filter(|name| !name.is_empty())
}
