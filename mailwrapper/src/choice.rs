//! Which program runs for a name, and with which arguments.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::mailer_conf::{self, LineError, MAX_FILE};

/// The program to run; the arguments include the name that it is called by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Choice {
    /// Its path.
    pub program: PathBuf,
    /// Its arguments, from the first one, the name, on.
    pub arguments: Vec<OsString>,
}

/// Why nothing is run.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// A line of the file says nothing.
    #[error("{}: {error}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: LineError,
    },
    /// The program is this one: it would call itself for ever.
    #[error("{}: {} is mailwrapper itself", .path.display(), .program.display())]
    Loop {
        /// The file.
        path: PathBuf,
        /// The program that it names.
        program: PathBuf,
    },
    /// No line has the name.
    #[error("{}: no mapping for {}", .path.display(), .name.display())]
    NoMapping {
        /// The file.
        path: PathBuf,
        /// The name.
        name: OsString,
    },
    /// The file is there and cannot be read.
    #[error("{}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Longer than any such file.
    #[error("{}: longer than {MAX_FILE} bytes", .0.display())]
    TooLong(PathBuf),
}

/// A configuration file that was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Configuration {
    /// Its path.
    pub path: PathBuf,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// The name that decides: the last part of the path that the program was called by, without the
/// dash of a login shell.
#[must_use]
pub fn name_of(called: &OsStr) -> OsString {
    let name = Path::new(called).file_name().unwrap_or(called);
    let bytes = name.as_bytes();
    OsStr::from_bytes(bytes.strip_prefix(b"-").unwrap_or(bytes)).to_owned()
}

/// Reads the first of `candidates` that exists; `None` if none does.
///
/// # Errors
/// One exists and cannot be read: no reason to take another.
pub fn configuration(
    candidates: impl IntoIterator<Item = PathBuf>,
) -> Result<Option<Configuration>, ChoiceError> {
    for path in candidates {
        let mut content = Vec::new();
        let read =
            File::open(&path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut content));
        match read {
            Ok(_) if content.len() as u64 > MAX_FILE => return Err(ChoiceError::TooLong(path)),
            Ok(_) => return Ok(Some(Configuration { path, content })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ChoiceError::Read { path, error }),
        }
    }
    Ok(None)
}

/// What to run for `arguments`, the first of which is the name that was called.
///
/// Without a configuration it is `fallback`. `own` is the path of this program.
///
/// # Errors
/// The configuration does not say, or names this program.
pub fn choose(
    configuration: Option<&Configuration>,
    arguments: &[OsString],
    fallback: &Path,
    own: &Path,
) -> Result<Choice, ChoiceError> {
    let Some(configuration) = configuration else {
        return Ok(Choice { program: fallback.to_owned(), arguments: arguments.to_vec() });
    };
    let path = || configuration.path.clone();
    let (called, rest) = arguments
        .split_first()
        .map_or((OsString::new(), &[][..]), |(first, rest)| (first.clone(), rest));
    let name = name_of(&called);
    let mapping = mailer_conf::find(&configuration.content, &name)
        .map_err(|error| ChoiceError::Line { path: path(), error })?
        .ok_or_else(|| ChoiceError::NoMapping { path: path(), name })?;
    if same_file(&mapping.program, own) {
        return Err(ChoiceError::Loop { path: path(), program: mapping.program });
    }
    let mut arguments = vec![called];
    arguments.extend(mapping.arguments);
    arguments.extend_from_slice(rest);
    Ok(Choice { program: mapping.program, arguments })
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn configured(content: &str) -> Configuration {
        Configuration { path: "/etc/mailer.conf".into(), content: content.into() }
    }

    #[test]
    fn extra_arguments_come_before_the_callers() {
        let configuration = configured("sendmail /usr/sbin/smtpctl -x y\n");
        let given = words(&["/usr/sbin/sendmail", "-t", "a@b"]);
        let choice =
            choose(Some(&configuration), &given, Path::new("/f"), Path::new("/own")).unwrap();
        assert_eq!(choice.program, PathBuf::from("/usr/sbin/smtpctl"));
        assert_eq!(choice.arguments, words(&["/usr/sbin/sendmail", "-x", "y", "-t", "a@b"]));
        let choice = choose(None, &given, Path::new("/f"), Path::new("/own")).unwrap();
        assert_eq!(choice, Choice { program: "/f".into(), arguments: given });
    }

    #[test]
    fn names_are_the_last_part_of_the_path() {
        for (called, name) in [("/usr/bin/mailq", "mailq"), ("-mailq", "mailq"), ("x/-y", "y")] {
            assert_eq!(name_of(OsStr::new(called)), OsString::from(name));
        }
    }

    #[test]
    fn nothing_is_run_for_what_is_not_said() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("mailwrapper");
        let link = directory.path().join("link");
        fs::write(&own, "").unwrap();
        std::os::unix::fs::symlink(&own, &link).unwrap();
        let text = |content: String, name: &str| {
            let error = choose(Some(&configured(&content)), &words(&[name]), Path::new("/f"), &own);
            error.unwrap_err().to_string()
        };
        let file = "/etc/mailer.conf";
        assert_eq!(text("a /b\n".into(), "mailq"), format!("{file}: no mapping for mailq"));
        let broken = text("a\nmailq /b\n".into(), "mailq");
        assert_eq!(broken, format!("{file}: line 1: a name without a program"));
        let looping = text(format!("mailq {}\n", link.display()), "mailq");
        assert_eq!(looping, format!("{file}: {} is mailwrapper itself", link.display()));
    }

    #[test]
    fn the_first_file_that_exists_is_the_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        assert_eq!(configuration([path("none")]).unwrap(), None);
        fs::write(path("two"), "a /b\n").unwrap();
        fs::write(path("three"), "c /d\n").unwrap();
        let found = configuration([path("one"), path("two"), path("three")]).unwrap().unwrap();
        assert_eq!((found.path, found.content), (path("two"), b"a /b\n".to_vec()));
        fs::create_dir(path("one")).unwrap();
        let unreadable = configuration([path("one"), path("two")]);
        assert!(matches!(unreadable, Err(ChoiceError::Read { .. })));
        fs::write(path("long"), "x".repeat(70_000)).unwrap();
        assert!(matches!(configuration([path("long")]), Err(ChoiceError::TooLong(_))));
    }
}
