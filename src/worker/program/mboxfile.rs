//! mail.mboxfile(8): appends standard input to a file.

use std::ffi::OsString;
use std::io::BufRead;
use std::path::PathBuf;

use lexopt::Arg;

use super::{refuse_root, text_of, usage};
use crate::worker::mbox::{Entry, append_to_path, date};
use crate::worker::report::{FAILURE, Failed};

const PROGRAM: &str = "mail.mboxfile";
/// Sender of the separator line if none is given.
const UNKNOWN: &str = "<unknown>";

/// What the program was asked to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    path: PathBuf,
    from: String,
}

/// Reads the words of the command line.
///
/// # Errors
/// There is not exactly one operand, or an unknown flag.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Request, Failed> {
    let mut parser = lexopt::Parser::from_args(words);
    let (mut from, mut path) = (UNKNOWN.to_owned(), None);
    while let Some(argument) = parser.next().map_err(|error| usage(PROGRAM, error))? {
        match argument {
            Arg::Short('f') => {
                from = text_of(PROGRAM, parser.value().map_err(|error| usage(PROGRAM, error))?)?;
            }
            Arg::Value(value) if path.is_none() => path = Some(PathBuf::from(value)),
            Arg::Value(_) => return Err(usage(PROGRAM, "only one mboxfile is allowed")),
            Arg::Long(_) | Arg::Short(_) => return Err(usage(PROGRAM, argument.unexpected())),
        }
    }
    let path = path.ok_or_else(|| usage(PROGRAM, "an mboxfile is needed"))?;
    Ok(Request { path, from })
}

/// Appends `message`.
///
/// # Errors
/// The process is root, or the message could not be appended.
pub fn run(request: &Request, message: &mut dyn BufRead) -> Result<(), Failed> {
    refuse_root(PROGRAM, FAILURE)?;
    append(request, message)
}

fn append(request: &Request, message: &mut dyn BufRead) -> Result<(), Failed> {
    let now = date(&crate::time::local_now());
    let mut entry = Entry { from: &request.from, date: &now, prefix: "", message };
    append_to_path(&request.path, &mut entry)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_message_is_appended_with_its_separators_quoted() {
        // queue case 150
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let words = ["-f".into(), "me@x".into(), path.clone().into_os_string()];
        append(&parse(words).unwrap(), &mut &b"a\nFrom b\n"[..]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let (separator, rest) = text.split_once('\n').unwrap();
        assert!(separator.starts_with("From me@x "), "{separator}");
        assert_eq!(rest, "a\n>From b\n\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn words() {
        let parsed = |words: &[&str]| {
            parse(words.iter().map(OsString::from)).map_err(|failed| failed.to_string())
        };
        assert_eq!(parsed(&["f"]).unwrap().from, UNKNOWN);
        // config case 257
        let several = "mail.mboxfile: only one mboxfile is allowed";
        assert_eq!(parsed(&["a", "b"]), Err(several.to_owned()));
        for wrong in [&[][..], &["-f"], &["-x", "f"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
