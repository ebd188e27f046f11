//! What would become of a message: `smtpd -n --explain from=… rcpt=…`.
//!
//! No server is needed and nothing is changed, sent or run. Configuration, tables and accounts are
//! read with the rights of whoever asks; what is beyond them, and what only a server can ask (table
//! programs, the DNS), is said to be not known. The decisions are the server's own code:
//! [`search`] watches its search among the rules, [`tree`] its expansion, and [`delivery`] plans as a
//! worker does. [`request`] reads the question, [`sources`] has the answers, [`report`] holds the
//! result and [`text`] prints it.
//!
//! Source: smtpd(8) on `--explain`.

mod delivery;
mod report;
mod request;
mod search;
mod sources;
mod text;
mod tree;

#[cfg(test)]
mod tests;

use std::io;
use std::process::ExitCode;

use platform::privilege::is_root;
use platform::users::user_by_name;

use self::delivery::Describer;
use self::report::{Explanation, Facts, Recipient};
use self::request::{Request, RequestError};
use self::sources::Sources;
use crate::lookup::rules::{Client, Session};
use crate::parent::{Options, PrepareError, configured_file, daemon_user, read_configuration};
use crate::paths::Places;
use crate::table::Account;

/// Why nothing is explained.
#[derive(Debug, thiserror::Error)]
enum ExplainError {
    #[error(transparent)]
    Configuration(#[from] PrepareError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Explains what `options` ask about, on standard output.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    match answer(options, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // What is wrong with it was printed.
        Err(ExplainError::Configuration(PrepareError::Configuration)) => ExitCode::FAILURE,
        // A pager that was left early is not worth a word.
        Err(ExplainError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("smtpd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(options: &Options, output: &mut impl io::Write) -> Result<(), ExplainError> {
    let places = Places::new(options.state.as_deref());
    let config = read_configuration(options, &places)?;
    let words = options.explain.as_deref().unwrap_or_default();
    let request = Request::parse(words, &config)?;
    let sources = Sources::new(&config, |path| configured_file(path.as_ref()), &system_account);
    let daemon = daemon_user(options.state.is_some() && !is_root())?;
    let libexec = places.libexec.to_string_lossy();
    let describer = Describer {
        config: &config,
        sources: &sources,
        request: &request,
        libexec: &libexec,
        mailboxes: &places.mailboxes,
    };
    let explanation = explain(&describer, &daemon);
    if options.json {
        writeln!(output, "{}", serde_json::to_string(&explanation)?)?;
    } else {
        output.write_all(text::render(&explanation).as_bytes())?;
    }
    Ok(output.flush()?)
}

/// Explains what the describer's request asks about; commands of aliases belong to `daemon_user`.
fn explain(describer: &Describer<'_>, daemon_user: &str) -> Explanation {
    let Describer { config, sources, request, .. } = describer;
    let recipients = request.recipients.iter().map(|recipient| {
        let expanded = tree::explain(config, &request.session, sources, recipient, daemon_user);
        let deliveries = (1..).zip(&expanded.deliveries);
        Recipient {
            recipient: recipient.to_string(),
            deliveries: deliveries
                .filter_map(|(number, one)| describer.describe(number, recipient, one))
                .collect(),
            tree: expanded.tree,
            outcome: expanded.outcome,
        }
    });
    Explanation {
        session: facts(&request.session, request.sender.as_str()),
        notes: sources.complaints().collect(),
        recipients: recipients.collect(),
    }
}

fn facts(session: &Session, sender: &str) -> Facts {
    Facts {
        from: sender.to_owned(),
        src: match &session.client {
            Client::Address(address) => address.to_string(),
            Client::Socket => "local".to_owned(),
        },
        rdns: session.client_name.clone(),
        helo: session.helo.clone(),
        auth: session.login.clone(),
        tls: session.tls,
        tag: session.tag.clone(),
    }
}

fn system_account(name: &str) -> io::Result<Option<Account>> {
    let found = user_by_name(name)?;
    Ok(found.map(|account| Account {
        uid: account.uid,
        gid: account.gid,
        home: account.home.to_string_lossy().into_owned(),
    }))
}
