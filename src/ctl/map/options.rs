//! The command lines of `makemap` and `newaliases`.
//!
//! `makemap` takes its options before and after its operand, and the two operands of another mailer:
//! `makemap hash MAP` reads standard input.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use lexopt::{Arg, Parser};

/// How `makemap` is called.
pub const MAKEMAP_USAGE: &str = "usage: makemap [-U] [-d dbtype] [-o dbfile] [-t type] file";
/// How `newaliases` is called.
pub const NEWALIASES_USAGE: &str = "usage: newaliases [-f file]";
/// What is put after the name of a source.
const SUFFIX: &str = ".db";

/// What `makemap` is to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Makemap {
    /// Make a map.
    Build {
        /// What the source holds.
        kind: Kind,
        /// The source.
        input: Input,
        /// The map.
        output: PathBuf,
    },
    /// `-U`: print what is in a map.
    Dump {
        /// The map.
        map: PathBuf,
    },
}

/// Where the text comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Input {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Standard,
}

/// As messages name it.
impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Standard => f.write_str("-"),
        }
    }
}

/// What a source holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Keys with what they stand for.
    Aliases,
    /// Keys with any values; keys alone after a comment `# @list`.
    Plain,
    /// Keys alone.
    Set,
}

/// What `newaliases` is to do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Newaliases {
    /// `-f`: the configuration to read.
    pub configuration: Option<PathBuf>,
    /// `-O AliasFile=`: the source, whatever the configuration says.
    pub source: Option<PathBuf>,
    /// `--state`: directory of the server.
    pub state: Option<PathBuf>,
}

/// Why a command line cannot be followed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OptionsError {
    /// `-d`
    #[error("unsupported DB type '{0}'")]
    Database(String),
    /// `-t`
    #[error("unsupported type '{0}'")]
    Kind(String),
    /// An unknown option, one without its value, or a wrong number of operands.
    #[error("{0}")]
    Usage(&'static str),
}

/// Reads the words after `makemap`.
///
/// # Errors
/// The command line cannot be followed; the exit status is 1.
pub fn makemap(arguments: &[OsString]) -> Result<Makemap, OptionsError> {
    let usage = || OptionsError::Usage(MAKEMAP_USAGE);
    let mut parser = Parser::from_args(arguments);
    let (mut dump, mut output, mut kind) = (false, None, Kind::Plain);
    let mut operands = Vec::new();
    while let Some(argument) = parser.next().map_err(|_| usage())? {
        match argument {
            Arg::Short('U') => dump = true,
            Arg::Short('d') => database(&parser.value().map_err(|_| usage())?)?,
            Arg::Short('o') => output = Some(PathBuf::from(parser.value().map_err(|_| usage())?)),
            Arg::Short('t') => kind = kind_of(&parser.value().map_err(|_| usage())?)?,
            // Of other mailers, without a meaning here.
            Arg::Short('b' | 'C' | 'O') => {
                parser.value().map_err(|_| usage())?;
            }
            Arg::Value(operand) => operands.push(operand),
            Arg::Short(_) | Arg::Long(_) => return Err(usage()),
        }
    }
    match operands.as_slice() {
        [map] if dump => Ok(Makemap::Dump { map: map.into() }),
        [source] => {
            let output = output.unwrap_or_else(|| with_suffix(source));
            let input = if source == "-" { Input::Standard } else { Input::File(source.into()) };
            Ok(Makemap::Build { kind, input, output })
        }
        [kind_of_database, map] if output.is_none() && !dump => {
            database(kind_of_database)?;
            Ok(Makemap::Build { kind, input: Input::Standard, output: with_suffix(map) })
        }
        _ => Err(usage()),
    }
}

/// Reads the words after `newaliases`, or those after `sendmail` if one of them is `-bi`.
///
/// # Errors
/// The command line cannot be followed; the exit status is 1.
pub fn newaliases(arguments: &[OsString]) -> Result<Newaliases, OptionsError> {
    let usage = |_| OptionsError::Usage(NEWALIASES_USAGE);
    let mut parser = Parser::from_args(arguments);
    let mut given = Newaliases::default();
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Short('f') => given.configuration = Some(parser.value().map_err(usage)?.into()),
            Arg::Short('O') => {
                let option = parser.value().map_err(usage)?;
                let option = option.to_string_lossy();
                given.source = option.strip_prefix("AliasFile=").map(PathBuf::from);
            }
            Arg::Long("state") => given.state = Some(parser.value().map_err(usage)?.into()),
            Arg::Short('b') => {
                parser.value().map_err(usage)?;
            }
            // What sendmail takes beside -bi.
            Arg::Short('a' | 'i' | 'v' | 'x') | Arg::Value(_) => {}
            Arg::Short(_) | Arg::Long(_) => return Err(OptionsError::Usage(NEWALIASES_USAGE)),
        }
    }
    Ok(given)
}

/// The map of a source.
pub fn with_suffix(source: &OsStr) -> PathBuf {
    let mut map = source.to_owned();
    map.push(SUFFIX);
    map.into()
}

/// All kinds of databases are our one.
fn database(name: &OsStr) -> Result<(), OptionsError> {
    match name.to_str() {
        Some("btree" | "hash") => Ok(()),
        _ => Err(OptionsError::Database(name.to_string_lossy().into_owned())),
    }
}

fn kind_of(name: &OsStr) -> Result<Kind, OptionsError> {
    match name.to_str() {
        Some("aliases") => Ok(Kind::Aliases),
        Some("set") => Ok(Kind::Set),
        _ => Err(OptionsError::Kind(name.to_string_lossy().into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn command_lines_of_makemap() {
        let build = |kind, input: &str, output: &str| {
            let input = if input == "-" { Input::Standard } else { Input::File(input.into()) };
            Ok(Makemap::Build { kind, input, output: output.into() })
        };
        let usage = || Err(OptionsError::Usage(MAKEMAP_USAGE));
        let cases = [
            ("m", build(Kind::Plain, "m", "m.db")),
            ("-t aliases -o x m", build(Kind::Aliases, "m", "x")),
            ("m -tset", build(Kind::Set, "m", "m.db")),
            ("-d btree -d hash m", build(Kind::Plain, "m", "m.db")),
            ("-b x -C x -O x m", build(Kind::Plain, "m", "m.db")),
            ("-o m.db -", build(Kind::Plain, "-", "m.db")),
            ("hash /path/x", build(Kind::Plain, "-", "/path/x.db")),
            ("-U m.db", Ok(Makemap::Dump { map: "m.db".into() })),
            ("-o y hash x", usage()),
            ("dbm x", Err(OptionsError::Database("dbm".to_owned()))),
            ("", usage()),
            ("a b c", usage()),
            ("-h", usage()),
            ("-z m", usage()),
            ("-t", usage()),
            ("--state x m", usage()),
            ("-d dbm m", Err(OptionsError::Database("dbm".to_owned()))),
            ("-t foo m", Err(OptionsError::Kind("foo".to_owned()))),
        ];
        for (line, expected) in cases {
            assert_eq!(makemap(&words(line)), expected, "{line}");
        }
    }

    #[test]
    fn command_lines_of_newaliases() {
        let given = Newaliases {
            configuration: Some("c".into()),
            source: Some("/a".into()),
            state: Some("s".into()),
        };
        let both = words("-bi -f c -O AliasFile=/a --state s -v");
        assert_eq!(newaliases(&both), Ok(given));
        assert_eq!(newaliases(&[]), Ok(Newaliases::default()));
        assert_eq!(newaliases(&words("-O Other=x")), Ok(Newaliases::default()));
        for wrong in ["-h", "-f", "--other"] {
            let usage = Err(OptionsError::Usage(NEWALIASES_USAGE));
            assert_eq!(newaliases(&words(wrong)), usage, "{wrong}");
        }
    }
}
