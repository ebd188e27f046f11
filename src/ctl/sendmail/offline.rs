//! Messages accepted while the server is down: one file each in the spool's `offline` directory.
//!
//! The first line is the command line, joined with `|`; the message follows as it was read, its
//! Bcc gone. The server submits them as their owners when it starts. A file gets its name when it
//! is whole and on the disk: names that begin with a dot are not messages.
//!
//! Source: the queue page of the specification, 1.10; cases 194 to 196.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::options::Options;

/// Letters of the random part of a name.
const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefgh";
/// Length of the random part of a name.
const SUFFIX: usize = 10;

/// Why a message was not kept.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// An argument that the first line cannot hold.
    #[error("{0} contains illegal character")]
    IllegalCharacter(String),
    /// The directory takes no file from this user.
    #[error(
        "the server is not running, and {} cannot be written: \
         smtpctl must be set-group-ID to the group of that directory", .0.display()
    )]
    NotPermitted(PathBuf),
    /// The file cannot be written.
    #[error("the server is not running, and the message cannot be kept: {0}")]
    Io(#[from] io::Error),
}

/// Keeps `draft` in `directory`, durably.
///
/// `arguments` are those of the command line; `now` is in seconds since 1970.
///
/// # Errors
/// The message was not kept; nothing is left in the directory.
pub fn keep(
    directory: &Path,
    now: u64,
    arguments: &[OsString],
    draft: &mut Draft,
) -> Result<(), OfflineError> {
    let line = first_line(arguments)?;
    let name = format!("{now}.{}", suffix()?);
    let unfinished = directory.join(format!(".{name}"));
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(OfflineError::NotPermitted(directory.to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    let kept = give_group_of(directory, &file)
        .and_then(|()| write(&mut file, &line, draft))
        .and_then(|()| fs::rename(&unfinished, directory.join(&name)))
        .and_then(|()| File::open(directory)?.sync_all());
    if kept.is_err() {
        // The reason why it was not kept is the one to tell.
        let _gone = fs::remove_file(&unfinished);
    }
    Ok(kept?)
}

/// The arguments that submit a message later, when its header no longer names everybody.
///
/// Recipients found in the header take the place of `-t`, because Bcc is not kept.
#[must_use]
pub fn resolved_arguments(options: &Options, recipients: &[String]) -> Vec<OsString> {
    let mut arguments = Vec::new();
    let valued = [
        ("-f", &options.sender),
        ("-F", &options.full_name),
        ("-N", &options.notify),
        ("-R", &options.ret),
        ("-V", &options.envid),
    ];
    for (option, value) in valued {
        if let Some(value) = value {
            arguments.push(option.into());
            arguments.push(value.into());
        }
    }
    arguments.push("--".into());
    arguments.extend(recipients.iter().map(OsString::from));
    arguments
}

/// `arguments` without `--state`: the server that finds the file is the one that was meant.
#[must_use]
pub fn without_state(arguments: &[OsString]) -> Vec<OsString> {
    let mut rest = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_bytes() {
            b"--" => {
                rest.push(word.clone());
                rest.extend(words.by_ref().cloned());
            }
            b"--state" => {
                words.next();
            }
            bytes if bytes.starts_with(b"--state=") => {}
            _ => rest.push(word.clone()),
        }
    }
    rest
}

fn first_line(arguments: &[OsString]) -> Result<Vec<u8>, OfflineError> {
    let mut line = Vec::new();
    for argument in arguments {
        let bytes = argument.as_bytes();
        if bytes.iter().any(|byte| matches!(byte, b'|' | b'\n')) {
            let shown = argument.to_string_lossy().into_owned();
            return Err(OfflineError::IllegalCharacter(shown));
        }
        if !line.is_empty() {
            line.push(b'|');
        }
        line.extend_from_slice(bytes);
    }
    line.push(b'\n');
    Ok(line)
}

fn suffix() -> io::Result<String> {
    let mut random = [0_u8; SUFFIX];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let letter = |byte: &u8| LETTERS.get(usize::from(*byte) % LETTERS.len()).copied();
    Ok(random.iter().filter_map(letter).map(char::from).collect())
}

/// The server takes files with the group of the directory only. Most systems, and the program's
/// set-group-ID right, give it; root has to.
fn give_group_of(directory: &Path, file: &File) -> io::Result<()> {
    let group = fs::metadata(directory)?.gid();
    if file.metadata()?.gid() != group {
        fchown(file, None, Some(group))?;
    }
    Ok(())
}

fn write(file: &mut File, line: &[u8], draft: &mut Draft) -> io::Result<()> {
    file.write_all(line)?;
    io::copy(&mut draft.content.range(0, u64::MAX)?, file)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn draft(input: &str) -> Draft {
        Draft::read(&mut input.as_bytes(), true, Path::new("/nonexistent")).unwrap()
    }

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    // queue case 194.
    #[test]
    fn a_message_is_kept_with_its_command_line() {
        let directory = tempfile::tempdir().unwrap();
        let mut draft = draft("To: a@b\r\nBcc: c@d\r\n\r\ntext");
        keep(directory.path(), 1_795_289_588, &words(&["-t", "-f", "x@d"]), &mut draft).unwrap();
        let entries: Vec<_> = fs::read_dir(directory.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(entries.len(), 1);
        let name = entries[0].file_name().into_string().unwrap();
        assert!(name.starts_with("1795289588.") && name.len() == 21, "{name}");
        assert_eq!(entries[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let content = fs::read_to_string(entries[0].path()).unwrap();
        assert_eq!(content, "-t|-f|x@d\nTo: a@b\n\ntext\n");
    }

    // queue case 195; a line end would split the first line.
    #[test]
    fn arguments_that_the_first_line_cannot_hold_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        for word in ["a|b@d", "a\nb"] {
            let error =
                keep(directory.path(), 1, &words(&["x@y", word]), &mut draft("")).unwrap_err();
            assert_eq!(error.to_string(), format!("{word} contains illegal character"));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    // The form of 1.10 that does not lose Bcc.
    #[test]
    fn resolved_arguments_name_every_recipient() {
        let options = Options {
            sender: Some(String::new()),
            full_name: Some("A B".into()),
            header_recipients: true,
            verbose: true,
            ..Options::default()
        };
        let given = resolved_arguments(&options, &["a@b".into(), "-x@d".into()]);
        assert_eq!(given, words(&["-f", "", "-F", "A B", "--", "a@b", "-x@d"]));
    }

    #[test]
    fn the_option_that_names_the_server_is_not_kept() {
        let cases: [(&[&str], &[&str]); 3] = [
            (&["--state", "/s", "-t", "a@b"], &["-t", "a@b"]),
            (&["-t", "--state=/s"], &["-t"]),
            (&["-t", "--", "--state", "a@b"], &["-t", "--", "--state", "a@b"]),
        ];
        for (given, expected) in cases {
            assert_eq!(without_state(&words(given)), words(expected));
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("offline");
        let result = keep(&missing, 1, &words(&["a@b"]), &mut draft("x\n"));
        assert!(matches!(result, Err(OfflineError::Io(_))), "{result:?}");
    }
}
