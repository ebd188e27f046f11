//! The program: reads what it is told, and tries the addresses of the server until one serves.
//!
//! Everything that is said goes to standard error. The message is kept in memory.
//!
//! Sources: the queue page of the specification, 7.6; cases 204 to 209.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;

use zeroize::Zeroizing;

use super::attempt::{Attempt, Outcome};
use super::dialogue::{Transaction, Wishes};
use super::options::{self, Options, OptionsError};
use super::server::Credentials;
use super::trust::Demands;
use crate::config::Secret;

/// Runs the program with the words after its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let done = options::parse(arguments, platform::network::tcp_service)
        .map_err(|error| match error {
            OptionsError::Usage => error.to_string(),
            _ => format!("smtp: {error}"),
        })
        .and_then(|options| send(options).map_err(|reason| format!("smtp: {reason}")));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(line) => {
            eprintln!("{line}");
            ExitCode::FAILURE
        }
    }
}

/// Whether a dialogue came to its end, or none was wanted.
fn send(mut options: Options) -> Result<bool, String> {
    if let Some(path) = &options.login {
        options.server.credentials = Some(read_login(path)?);
    }
    let wishes = wishes(&mut options)?;
    let demands = Demands::new(&options.tls, &options.server.host)?;
    let mut message = Vec::new();
    if wishes.transaction.is_some() {
        let read = io::stdin().lock().read_to_end(&mut message);
        read.map_err(|error| format!("standard input: {error}"))?;
    }
    let host = &options.server.host;
    let addresses: Vec<SocketAddr> = (host.as_str(), options.server.port)
        .to_socket_addrs()
        .map_err(|error| format!("{host}: {error}"))?
        .collect();
    for address in addresses {
        let attempt = Attempt {
            wishes: wishes.clone(),
            demands: &demands,
            message: &message,
            verbose: options.verbose,
            output: &mut io::stderr().lock(),
        };
        match attempt.run(address) {
            Outcome::Complete if !options.no_transaction => return Ok(true),
            // Another address could mean a second copy.
            Outcome::Uncertain => return Ok(false),
            Outcome::Complete | Outcome::Failed => {}
        }
    }
    if options.no_transaction { Ok(true) } else { Err("no more host".to_owned()) }
}

fn wishes(options: &mut Options) -> Result<Wishes, String> {
    let helo = match options.helo.take() {
        Some(helo) => helo,
        None => platform::network::host_name().map_err(|error| error.to_string())?,
    };
    let transaction = match options.no_transaction {
        true => None,
        false => {
            let sender = match options.sender.take() {
                Some(sender) => sender,
                None => account_name()?,
            };
            Some(Transaction { sender, recipients: std::mem::take(&mut options.recipients) })
        }
    };
    let server = &options.server;
    Ok(Wishes {
        protocol: server.protocol,
        encryption: server.encryption,
        helo,
        credentials: server.credentials.clone(),
        transaction,
    })
}

fn account_name() -> Result<String, String> {
    let uid = platform::privilege::effective_uid();
    match platform::users::user_by_uid(uid) {
        Ok(Some(account)) => Ok(account.name),
        Ok(None) => Err(format!("there is no account for uid {uid}: -F is needed")),
        Err(error) => Err(error.to_string()),
    }
}

/// User and password, on the first two lines of a file.
fn read_login(path: &Path) -> Result<Credentials, String> {
    let told = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    let text = fs::read_to_string(path).map(Zeroizing::new).map_err(|error| told(&error))?;
    let mut lines = text.lines();
    match (lines.next(), lines.next()) {
        (Some(user), Some(password)) => {
            let password = Secret::from(password.to_owned());
            Ok(Credentials { user: user.to_owned(), password })
        }
        _ => Err(told(&"the first line is the user, the second the password")),
    }
}
