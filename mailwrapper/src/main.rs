//! Runs the mail program that `mailer.conf` names for the name that it was called by.
//!
//! Called as `mailwrapper` it looks at the file and keeps Pillarbox's lines in it:
//!
//! - `mailwrapper --check [FILE]` lists mappings and errors;
//! - `mailwrapper --which NAME` prints the command line that would run;
//! - `mailwrapper --install [--program PATH] [--root DIR] [--dry-run] FILE` puts the lines in;
//! - `mailwrapper --remove [--root DIR] [--dry-run] FILE` takes them out.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))] // a failed assumption fails the test

mod block;
mod choice;
mod edit;
mod mailer_conf;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use lexopt::{Arg, Parser};

use nix::unistd::{getegid, geteuid, getgid, getuid};
use platform::syslog::{Priority, SysLog};

use crate::choice::{ChoiceError, Configuration, choose, configuration, name_of};
use crate::edit::Edit;

/// The name under which it is a program of its own.
const OWN_NAME: &str = "mailwrapper";
/// What is run if there is no configuration; packagers set another path when they build.
const FALLBACK: &str = match option_env!("PILLARBOX_SMTPCTL") {
    Some(path) => path,
    None => "/usr/sbin/smtpctl",
};
/// Where packages of this system are installed; packagers set another path when they build.
const LOCAL_BASE: &str = match option_env!("LOCALBASE") {
    Some(path) => path,
    None => "/usr/local",
};
const USAGE: &str = "usage: mailwrapper --check [file]\n       mailwrapper --which name\n       \
    mailwrapper --install | --remove [--program path] [--root directory] [--dry-run] file";

/// Exit statuses of sysexits(3).
const EX_USAGE: u8 = 64;
const EX_OSERR: u8 = 71;
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    let called = arguments.first().cloned().unwrap_or_default();
    let status = if name_of(&called) == OWN_NAME { manage(&arguments) } else { run(&arguments) };
    ExitCode::from(status)
}

/// Becomes the program; comes back only if that fails.
fn run(arguments: &[OsString]) -> u8 {
    let choice = read().and_then(|found| chosen(found.as_ref(), arguments));
    let choice = match choice {
        Ok(choice) => choice,
        Err(error) => return fail(&error.to_string(), EX_CONFIG),
    };
    let mut words = choice.arguments.into_iter();
    let error =
        Command::new(&choice.program).arg0(words.next().unwrap_or_default()).args(words).exec();
    fail(&format!("cannot run {}: {error}", choice.program.display()), EX_OSERR)
}

fn read() -> Result<Option<Configuration>, ChoiceError> {
    configuration(candidates())
}

fn chosen(
    found: Option<&Configuration>,
    arguments: &[OsString],
) -> Result<choice::Choice, ChoiceError> {
    let own = env::current_exe().unwrap_or_default();
    choose(found, arguments, Path::new(FALLBACK), &own)
}

/// The files that are looked for, in order. A program with rights that its caller lacks does not
/// let the caller name one.
fn candidates() -> Vec<PathBuf> {
    let mut candidates = Vec::new();
    let trusted = getuid() == geteuid() && getgid() == getegid();
    candidates.extend(env::var_os("MAILER_CONF").filter(|_| trusted).map(PathBuf::from));
    let base = Path::new(LOCAL_BASE);
    candidates.push(base.join("etc/mail/mailer.conf"));
    candidates.push(base.join("etc/mailer.conf"));
    candidates.push(PathBuf::from("/etc/mail/mailer.conf"));
    candidates.push(PathBuf::from("/etc/mailer.conf"));
    candidates
}

/// Says what went wrong to whoever called, and to the system's log.
fn fail(message: &str, status: u8) -> u8 {
    eprintln!("{OWN_NAME}: {message}");
    let log = SysLog::open(c"mailwrapper");
    if log.and_then(|log| log.write(Priority::Error, message)).is_err() {
        eprintln!("{OWN_NAME}: the system's log cannot be reached");
    }
    status
}

/// What `mailwrapper` itself was asked to do.
#[derive(Debug, Default)]
struct Given {
    task: Option<Task>,
    program: Option<PathBuf>,
    root: Option<PathBuf>,
    dry_run: bool,
    operands: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Task {
    Check,
    Install,
    Remove,
    Which,
}

impl Given {
    fn read(arguments: &[OsString]) -> Result<Self, lexopt::Error> {
        let mut given = Self::default();
        let mut parser = Parser::from_args(arguments.iter().skip(1));
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("check") => given.task = Some(Task::Check),
                Arg::Long("dry-run") => given.dry_run = true,
                Arg::Long("install") => given.task = Some(Task::Install),
                Arg::Long("program") => given.program = Some(parser.value()?.into()),
                Arg::Long("remove") => given.task = Some(Task::Remove),
                Arg::Long("root") => given.root = Some(parser.value()?.into()),
                Arg::Long("which") => given.task = Some(Task::Which),
                Arg::Value(operand) => given.operands.push(operand),
                other => return Err(other.unexpected()),
            }
        }
        Ok(given)
    }
}

fn manage(arguments: &[OsString]) -> u8 {
    let given = match Given::read(arguments) {
        Ok(given) => given,
        Err(error) => {
            eprintln!("{OWN_NAME}: {error}\n{USAGE}");
            return EX_USAGE;
        }
    };
    match (given.task, given.operands.as_slice()) {
        (Some(Task::Check), []) => check(read()),
        (Some(Task::Check), [file]) => check(configuration([PathBuf::from(file)])),
        (Some(Task::Which), [name]) => which(name),
        (Some(Task::Install), [file]) => {
            let program = given.program.clone().unwrap_or_else(|| PathBuf::from(FALLBACK));
            edit_file(&given, file.as_ref(), &Edit::Install(program))
        }
        (Some(Task::Remove), [file]) => edit_file(&given, file.as_ref(), &Edit::Remove),
        _ => {
            eprintln!("{USAGE}");
            EX_USAGE
        }
    }
}

fn check(found: Result<Option<Configuration>, ChoiceError>) -> u8 {
    let found = match found {
        Ok(Some(found)) => found,
        Ok(None) => {
            println!("no mailer.conf: every name runs {FALLBACK}");
            return 0;
        }
        Err(error) => {
            eprintln!("{OWN_NAME}: {error}");
            return EX_CONFIG;
        }
    };
    let mut status = 0;
    for mapping in mailer_conf::mappings(&found.content) {
        match mapping {
            Ok(mapping) => {
                let words = [mapping.name, mapping.program.into_os_string()];
                println!("{}", typed(words.iter().chain(&mapping.arguments)));
            }
            Err(error) => {
                eprintln!("{OWN_NAME}: {}: {error}", found.path.display());
                status = EX_CONFIG;
            }
        }
    }
    status
}

fn which(name: &OsString) -> u8 {
    let choice = read().and_then(|found| chosen(found.as_ref(), std::slice::from_ref(name)));
    match choice {
        Ok(choice) => {
            let program = choice.program.into_os_string();
            println!("{}", typed([&program].into_iter().chain(choice.arguments.iter().skip(1))));
            0
        }
        Err(error) => {
            eprintln!("{OWN_NAME}: {error}");
            EX_CONFIG
        }
    }
}

fn typed<'a>(words: impl Iterator<Item = &'a OsString>) -> String {
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

fn edit_file(given: &Given, file: &Path, edit: &Edit) -> u8 {
    let path = match &given.root {
        // An absolute path would replace the root instead of following it.
        Some(root) => root.join(file.strip_prefix("/").unwrap_or(file)),
        None => file.to_owned(),
    };
    match edit::apply(&path, edit, given.dry_run) {
        Ok(change) if given.dry_run => {
            // Who does not read the rest has seen enough.
            let _closed = io::stdout().write_all(change.as_bytes());
            0
        }
        Ok(_) => 0,
        Err(error) => {
            eprintln!("{OWN_NAME}: {error}");
            EX_CONFIG
        }
    }
}
