//! mail.maildir(8): delivers standard input into a Maildir.

use std::ffi::OsString;
use std::io::BufRead;
use std::path::PathBuf;
use std::time::SystemTime;

use lexopt::Arg;

use super::{refuse_root, usage};
use crate::worker::maildir::{Delivery, Maildirs};
use crate::worker::report::{FAILURE, Failed};
use crate::worker::unique::unique;

const PROGRAM: &str = "mail.maildir";

/// What the program was asked to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    maildir: PathBuf,
    junk: bool,
    extension: String,
}

/// Reads the words of the command line. Unknown flags are ignored.
///
/// `home` and `extension` are `HOME` and `EXTENSION` of the environment.
///
/// # Errors
/// There is more than one operand, or neither an operand nor a home.
pub fn parse(
    words: impl IntoIterator<Item = OsString>,
    home: Option<OsString>,
    extension: Option<OsString>,
) -> Result<Request, Failed> {
    let mut parser = lexopt::Parser::from_args(words);
    let (mut junk, mut operand) = (false, None);
    while let Some(argument) = parser.next().map_err(|error| usage(PROGRAM, error))? {
        match argument {
            Arg::Short('j') => junk = true,
            Arg::Long(_) | Arg::Short(_) => {}
            Arg::Value(_) if operand.is_some() => {
                return Err(usage(PROGRAM, "only one maildir is allowed"));
            }
            Arg::Value(value) => operand = Some(value),
        }
    }
    let maildir = match (operand, home) {
        (Some(operand), _) => PathBuf::from(operand),
        (None, Some(home)) => PathBuf::from(home).join("Maildir"),
        (None, None) => return Err(usage(PROGRAM, "HOME is not set")),
    };
    let extension = extension.unwrap_or_default().to_string_lossy().into_owned();
    Ok(Request { maildir, junk, extension })
}

/// Delivers `message`.
///
/// # Errors
/// The process is root, or the delivery failed.
pub fn run(request: &Request, message: &mut dyn BufRead) -> Result<(), Failed> {
    refuse_root(PROGRAM, FAILURE)?;
    deliver(request, message)
}

fn deliver(request: &Request, message: &mut dyn BufRead) -> Result<(), Failed> {
    let host = platform::network::host_name().unwrap_or_else(|_| "localhost".to_owned());
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let mut deliveries = [Delivery {
        maildir: &request.maildir,
        junk: request.junk,
        extension: &request.extension,
        prefix: "",
        message,
    }];
    Maildirs::new(&host).deliver(&mut deliveries, now, unique).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str], home: Option<&str>) -> Result<(PathBuf, bool), String> {
        let words = words.iter().map(OsString::from);
        parse(words, home.map(OsString::from), None)
            .map(|request| (request.maildir, request.junk))
            .map_err(|failed| failed.to_string())
    }

    #[test]
    fn words_name_the_maildir() {
        let home = Some("/home/a");
        let cases = [
            (&[][..], home, Ok(("/home/a/Maildir", false))),
            (&["-j"], home, Ok(("/home/a/Maildir", true))),
            (&["-x", "-j", "/m"], home, Ok(("/m", true))),
            (&["--", "-j"], home, Ok(("-j", false))),
            (&["/m", "/n"], home, Err("mail.maildir: only one maildir is allowed")),
            (&[], None, Err("mail.maildir: HOME is not set")),
        ];
        for (words, home, expected) in cases {
            let expected = expected.map(|(path, junk)| (PathBuf::from(path), junk));
            assert_eq!(parsed(words, home), expected.map_err(str::to_owned), "{words:?}");
        }
    }

    #[test]
    fn a_message_is_delivered_where_the_extension_says() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("Maildir/.ext")).unwrap();
        let request = parse([], Some(home.path().into()), Some("ext".into())).unwrap();
        deliver(&request, &mut &b"x\n"[..]).unwrap();
        let files = std::fs::read_dir(home.path().join("Maildir/.ext/new")).unwrap();
        assert_eq!(files.count(), 1);
    }
}
