//! The command line of `smtp`.
//!
//! Source: smtp(1). What goes into commands may hold no control characters, so that no argument is
//! more than one command.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser};

use super::server::{Server, ServerError};
use crate::config::{Ciphers, Protocols};

/// Shown for `-h` and where a command line makes no sense.
pub const USAGE: &str = "usage: smtp [-Chnv] [-a authfile] [-F from] [-H helo] [-s server] \
                         [-T params] [recipient ...]";

/// A command line, read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// `-a`: file with user and password.
    pub login: Option<PathBuf>,
    /// `-F`: the sender; by default the name of the account.
    pub sender: Option<String>,
    /// `-H`: argument of EHLO; by default the name of the machine.
    pub helo: Option<String>,
    /// `-n`: no transaction.
    pub no_transaction: bool,
    /// `-s`: the server.
    pub server: Server,
    /// `-T`, `-C`, `-S`: about TLS.
    pub tls: TlsOptions,
    /// `-v`, as often as it is given.
    pub verbose: u8,
    /// Who gets the message.
    pub recipients: Vec<String>,
}

/// What is demanded of TLS.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsOptions {
    /// `cafile`: authorities, instead of the system's.
    pub authorities: Option<PathBuf>,
    /// `ciphers`: suites of TLS 1.2.
    pub ciphers: Option<Ciphers>,
    /// `nosni`: the server is not told which name is meant.
    pub no_name_indication: bool,
    /// `noverify`, `-C`: any certificate is good.
    pub any_certificate: bool,
    /// `protocols`: versions.
    pub protocols: Option<Protocols>,
    /// `servername`, `-S`: the name in the certificate, instead of the host's.
    pub server_name: Option<String>,
}

/// Why a command line cannot be followed. The exit status is 1.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OptionsError {
    /// A control character, or bytes that are not UTF-8.
    #[error("illegal character in {0}")]
    IllegalCharacter(&'static str),
    /// A message is to be sent, to nobody.
    #[error("no recipient")]
    NoRecipient,
    /// A word of `-T` that is unknown, or has or lacks a value.
    #[error("invalid parameter {0}")]
    Parameter(String),
    /// `-s`
    #[error(transparent)]
    Server(#[from] ServerError),
    /// `-h`, an unknown option, or one without its argument.
    #[error("{USAGE}")]
    Usage,
}

/// Reads the words after the program's name. `service` knows ports by name.
///
/// # Errors
/// See [`OptionsError`].
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    service: impl Fn(&str) -> Option<u16>,
) -> Result<Options, OptionsError> {
    let mut options = Options::default();
    let mut parser = Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|_| OptionsError::Usage)? {
        match argument {
            Arg::Short('a') => options.login = Some(PathBuf::from(value(&mut parser)?)),
            Arg::Short('C') => options.tls.any_certificate = true,
            Arg::Short('F') => options.sender = Some(text(value(&mut parser)?, "sender")?),
            Arg::Short('H') => options.helo = Some(text(value(&mut parser)?, "helo")?),
            Arg::Short('n') => options.no_transaction = true,
            Arg::Short('S') => {
                options.tls.server_name = Some(text(value(&mut parser)?, "server name")?);
            }
            Arg::Short('s') => {
                let server = text(value(&mut parser)?, "server")?;
                options.server = Server::parse(&server, &service)?;
            }
            Arg::Short('T') => options.tls.read(&text(value(&mut parser)?, "parameters")?)?,
            Arg::Short('v') => options.verbose = options.verbose.saturating_add(1),
            Arg::Value(operand) => options.recipients.push(text(operand, "recipient")?),
            Arg::Short(_) | Arg::Long(_) => return Err(OptionsError::Usage),
        }
    }
    if options.recipients.is_empty() && !options.no_transaction {
        return Err(OptionsError::NoRecipient);
    }
    Ok(options)
}

fn value(parser: &mut Parser) -> Result<OsString, OptionsError> {
    parser.value().map_err(|_| OptionsError::Usage)
}

fn text(word: OsString, what: &'static str) -> Result<String, OptionsError> {
    let text = word.into_string().ok().filter(|text| !text.chars().any(char::is_control));
    text.ok_or(OptionsError::IllegalCharacter(what))
}

impl TlsOptions {
    /// Reads a list of parameters, between commas or blanks.
    fn read(&mut self, list: &str) -> Result<(), OptionsError> {
        for word in list.split([',', ' ']).filter(|word| !word.is_empty()) {
            let bad = || OptionsError::Parameter(word.to_owned());
            match word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value))) {
                ("cafile", Some(path)) => self.authorities = Some(PathBuf::from(path)),
                ("ciphers", Some(list)) => {
                    // Words for what is gone select nothing, as in smtpd.conf(5).
                    let (ciphers, _unknown) = Ciphers::parse(list).map_err(|_| bad())?;
                    self.ciphers = Some(ciphers);
                }
                ("nosni", None) => self.no_name_indication = true,
                ("noverify", None) => self.any_certificate = true,
                ("protocols", Some(list)) => {
                    self.protocols = Some(Protocols::parse(list).map_err(|_| bad())?);
                }
                ("servername", Some(name)) => self.server_name = Some(name.to_owned()),
                _ => return Err(bad()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::server::{Encryption, Protocol};
    use crate::spec_case;

    fn read(words: &[&str]) -> Result<Options, OptionsError> {
        parse(words.iter().map(OsString::from), |_| None)
    }

    #[test]
    fn everything_can_be_said() {
        let options = read(&[
            "-Cnvv",
            "-a",
            "/login",
            "-F",
            "me@x",
            "-H",
            "host",
            "-s",
            "lmtp+tls://mx:24",
            "-T",
            "cafile=/ca nosni,noverify, protocols=tlsv1.3",
            "-S",
            "named",
            "a@b",
            "-v",
            "c@d",
        ])
        .unwrap();
        assert_eq!(options.login, Some(PathBuf::from("/login")));
        assert_eq!(options.sender.as_deref(), Some("me@x"));
        assert_eq!(options.helo.as_deref(), Some("host"));
        assert!(options.no_transaction);
        assert_eq!(options.server.protocol, Protocol::Lmtp);
        assert_eq!(options.server.encryption, Encryption::Required);
        let expected = TlsOptions {
            authorities: Some(PathBuf::from("/ca")),
            ciphers: None,
            no_name_indication: true,
            any_certificate: true,
            protocols: Some(Protocols { tls_1_2: false, tls_1_3: true }),
            server_name: Some("named".into()),
        };
        assert_eq!(options.tls, expected);
        assert_eq!(options.verbose, 3);
        assert_eq!(options.recipients, ["a@b", "c@d"]);
    }

    #[test]
    fn ciphers_and_the_name_of_the_server_are_parameters() {
        let options = read(&["-n", "-T", "ciphers=AES256,servername=mx.example"]).unwrap();
        assert_eq!(options.tls.ciphers.unwrap().iter().count(), 2);
        assert_eq!(options.tls.server_name.as_deref(), Some("mx.example"));
    }

    // queue case 207
    #[test]
    fn command_lines_that_make_no_sense() {
        let usage = OptionsError::Usage;
        let parameter = |word: &str| OptionsError::Parameter(word.to_owned());
        let scheme = ServerError::Scheme("foo".to_owned());
        let cases: [(&[&str], OptionsError); 14] = [
            (&["-h"], usage.clone()),
            (&["-x", "a@b"], usage.clone()),
            (&["--help"], usage.clone()),
            (&["-s"], usage),
            (&["-s", "foo://h", "a@b"], scheme.into()),
            (&[], OptionsError::NoRecipient),
            (&["a@b\r\nDATA"], OptionsError::IllegalCharacter("recipient")),
            (&["-F", "a\n", "a@b"], OptionsError::IllegalCharacter("sender")),
            (&["-H", "a\0b", "a@b"], OptionsError::IllegalCharacter("helo")),
            (&["-T", "nosuch", "a@b"], parameter("nosuch")),
            (&["-T", "noverify=1", "a@b"], parameter("noverify=1")),
            (&["-T", "cafile", "a@b"], parameter("cafile")),
            (&["-T", "protocols=sslv3", "a@b"], parameter("protocols=sslv3")),
            (&["-T", "ciphers=RC4", "a@b"], parameter("ciphers=RC4")),
        ];
        for (words, expected) in cases {
            assert_eq!(read(words), Err(expected), "{words:?}");
        }
        spec_case::ran("queue", 207);
    }
}
