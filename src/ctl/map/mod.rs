//! `makemap` and `newaliases`: make map files for `db:` tables out of their text.
//!
//! [`options`] reads the command lines, [`source`] the text, [`output`] puts a whole map in the place
//! of the old one, and [`newaliases()`] finds out which file the aliases are.
//!
//! Sources: the queue page of the specification, 7.5; cases 197 to 203; makemap(8), newaliases(8).

mod newaliases;
mod options;
mod output;
mod source;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::Path;

pub use newaliases::run as newaliases;

use self::options::{Input, Kind, Makemap, OptionsError};
use self::output::OutputError;
use self::source::SourceError;
use crate::table::map::{Map, MapError, ReadOnly, conversion};

/// Why there is no map.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    /// The map could not be read for a dump.
    #[error("{path}: {error}")]
    Dump { path: String, error: MapError },
    /// Somebody writes the source.
    #[error("{0} is locked")]
    Locked(String),
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The source cannot be read.
    #[error("{path}: {error}")]
    Read { path: String, error: io::Error },
    /// The source says something that cannot be.
    #[error("{path}:{error}")]
    Source { path: String, error: SourceError },
    /// What is dumped has nowhere to go.
    #[error("cannot write: {0}")]
    Write(io::Error),
}

/// Runs `makemap` with the words after its name; answers with the exit status.
pub fn makemap(name: &str, arguments: &[OsString]) -> u8 {
    let command = match options::makemap(arguments) {
        Ok(command) => command,
        Err(error @ OptionsError::Usage(_)) => {
            eprintln!("{error}");
            return 1;
        }
        Err(error) => return fail(name, &error),
    };
    let done = match &command {
        Makemap::Build { kind, input, output } => build(*kind, input, output).map(|entries| {
            if entries == 0 {
                eprintln!("{name}: warning: empty map created: {}", output.display());
            }
        }),
        Makemap::Dump { map } => dump(map, &mut io::stdout().lock()),
    };
    match done {
        Ok(()) => 0,
        Err(BuildError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => 1,
        Err(error) => fail(name, &error),
    }
}

fn fail(name: &str, error: &dyn std::fmt::Display) -> u8 {
    eprintln!("{name}: {error}");
    1
}

/// Makes the map `output` of what `input` says. Answers with the number of entries.
fn build(kind: Kind, input: &Input, output: &Path) -> Result<usize, BuildError> {
    let path = input.to_string();
    let unreadable = |error| BuildError::Read { path: path.clone(), error };
    let mut text = Vec::new();
    let mut like = None;
    match input {
        Input::File(file) => {
            let mut file = File::open(file).map_err(unreadable)?;
            if let Err(fs::TryLockError::WouldBlock) = file.try_lock_shared() {
                return Err(BuildError::Locked(path));
            }
            like = Some(file.metadata().map_err(unreadable)?);
            file.read_to_end(&mut text).map_err(unreadable)?;
        }
        Input::Standard => {
            io::stdin().lock().read_to_end(&mut text).map_err(unreadable)?;
        }
    }
    let entries =
        source::entries(&text, kind).map_err(|error| BuildError::Source { path, error })?;
    output::replace(output, &entries, like.as_ref())?;
    Ok(entries.len())
}

/// Prints a map, a line for each entry.
fn dump(path: &Path, output: &mut impl Write) -> Result<(), BuildError> {
    let failed = |error| BuildError::Dump { path: path.display().to_string(), error };
    let open = || {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Map::open(ReadOnly::new(file, length))
    };
    let map = match open() {
        Err(error @ MapError::Berkeley) => {
            let path = path.display().to_string();
            eprintln!("to convert it: {}", conversion(&path));
            return Err(BuildError::Dump { path, error });
        }
        other => other.map_err(failed)?,
    };
    let mut output = io::BufWriter::new(output);
    let mut written = Ok(());
    map.each(|key, value| {
        written = writeln!(output, "{key}\t{value}");
        written.is_ok()
    })
    .map_err(failed)?;
    written.and_then(|()| output.flush()).map_err(BuildError::Write)
}

#[cfg(test)]
mod tests;
