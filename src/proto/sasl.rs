//! What is said between AUTH and its verdict: PLAIN, LOGIN and SCRAM-SHA-256, the server's side.
//!
//! An [`Exchange`] takes lines and says what comes next; it does not know who has which password.
//! Lines are base64 as it is in the standard: its alphabet, padded, canonical. Blanks between are
//! skipped, anything else is an error, also the `*` with which a client gives up.
//!
//! Sources: RFC 4954, 4616 (PLAIN), draft-murchison-sasl-login (LOGIN), 7677 (SCRAM-SHA-256); the
//! SMTP page of the specification, 2.1 and 2.2.
//! Limits: 1,023 bytes of PLAIN, users of 255 bytes, passwords of 2,047.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::scram::{self, ChannelBinding, ClientFirst, MAX_MESSAGE, ScramError, Verifier};

/// Bytes of the name of a mechanism.
const MAX_MECHANISM: usize = 20;
/// Bytes of a response of PLAIN.
const MAX_PLAIN: usize = 1023;
/// Bytes of a user name.
const MAX_USER: usize = 255;
/// Bytes of a password of LOGIN.
const MAX_PASSWORD: usize = 2047;

/// A way to log in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mechanism {
    /// `LOGIN`
    Login,
    /// `PLAIN`
    Plain,
    /// `SCRAM-SHA-256`
    ScramSha256,
    /// `SCRAM-SHA-256-PLUS`, bound to the TLS connection.
    ScramSha256Plus,
}

impl Mechanism {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Login, Self::ScramSha256, Self::ScramSha256Plus];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "LOGIN",
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
        }
    }

    /// The mechanism of this name, in any case.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|one| name.eq_ignore_ascii_case(one.name().as_bytes()))
    }
}

/// Whether a word may be the name of a mechanism (RFC 4422, section 3.1), and may so be shown. Other
/// words behind AUTH could be credentials of a client that has left the name out: base64 is in letters
/// of both cases, most often.
#[must_use]
pub fn is_mechanism_name(word: &[u8]) -> bool {
    let all = |letter: fn(&u8) -> bool| {
        word.iter().all(|byte| letter(byte) || byte.is_ascii_digit() || b"-_".contains(byte))
    };
    let of_one_case = all(u8::is_ascii_uppercase) || all(u8::is_ascii_lowercase);
    (1..=MAX_MECHANISM).contains(&word.len()) && of_one_case
}

/// A user and what proves that it is this one. The password is erased when it is dropped.
#[derive(Clone, Eq, PartialEq)]
pub struct Credentials {
    /// The user name, up to 255 bytes without line ends; may be empty.
    pub user: String,
    /// The password.
    pub password: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What comes next in an exchange.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Send `334` and this text; the client answers with a line.
    Challenge(String),
    /// Check these credentials: that is the end of the exchange.
    Check(Credentials),
    /// Find the verifier of this user, and go on with [`Exchange::verify`].
    Find(String),
    /// Note what came of the client's proof. With the right one go on with [`Exchange::confirm`],
    /// else that is the end of the exchange.
    Proved(bool),
    /// The client has logged in: that is the end of the exchange.
    Success,
}

/// Why an exchange has ended early.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SaslError {
    /// What the client wants to be bound to is not this connection: it has not logged in.
    #[error("channel binding does not fit")]
    Binding,
    /// A line cannot be understood, or the client gives up.
    #[error("not a line of this exchange")]
    Syntax,
}

impl From<ScramError> for SaslError {
    fn from(error: ScramError) -> Self {
        match error {
            ScramError::Binding | ScramError::Proof => Self::Binding,
            ScramError::Syntax => Self::Syntax,
        }
    }
}

/// An exchange under way.
#[derive(Debug)]
pub struct Exchange {
    mechanism: Mechanism,
    binding: Option<ChannelBinding>,
    /// Who wants to log in, as far as is known.
    user: Option<String>,
    stage: Stage,
}

/// What is awaited.
#[derive(Debug)]
enum Stage {
    /// Nothing more of the client.
    End,
    /// The user name of LOGIN.
    LoginUser,
    /// The password of LOGIN.
    LoginPassword,
    /// The only response of PLAIN.
    Plain,
    /// An empty line: the client has seen the last message of SCRAM.
    ScramAcknowledgement,
    /// The note of a right proof; this message follows.
    ScramConfirmation(String),
    /// The first message of SCRAM.
    ScramFirst,
    /// The proof of SCRAM.
    ScramProof(Box<scram::Exchange>),
    /// The verifier of the user.
    ScramVerifier(Box<ClientFirst>),
}

impl Exchange {
    /// An exchange by this mechanism, over a connection with this binding, if it has one.
    #[must_use]
    pub fn new(mechanism: Mechanism, binding: Option<ChannelBinding>) -> Self {
        let stage = match mechanism {
            Mechanism::Login => Stage::LoginUser,
            Mechanism::Plain => Stage::Plain,
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => Stage::ScramFirst,
        };
        Self { mechanism, binding, user: None, stage }
    }

    /// Who wants to log in, as far as is known.
    #[must_use]
    pub fn user(&self) -> &str {
        self.user.as_deref().unwrap_or_default()
    }

    /// What stands in the log for the line that is awaited, which nobody may read there.
    #[must_use]
    pub fn log_name(&self) -> &'static str {
        match (self.mechanism, &self.stage) {
            (Mechanism::Login, Stage::LoginUser) => "AUTH LOGIN (username)",
            (Mechanism::Login, _) => "AUTH LOGIN (password)",
            (Mechanism::Plain, _) => "AUTH PLAIN (...)",
            (Mechanism::ScramSha256, _) => "AUTH SCRAM-SHA-256 (...)",
            (Mechanism::ScramSha256Plus, _) => "AUTH SCRAM-SHA-256-PLUS (...)",
        }
    }

    /// Begins, with what follows the mechanism in the command line.
    ///
    /// # Errors
    /// Those of [`Self::respond`].
    pub fn begin(&mut self, initial: Option<&[u8]>) -> Result<Step, SaslError> {
        match (initial, &self.stage) {
            (None, Stage::LoginUser) => Ok(Step::Challenge(STANDARD.encode("Username:"))),
            (Some(text), Stage::LoginUser) if text.trim_ascii().is_empty() => {
                Ok(Step::Challenge(STANDARD.encode("Username:")))
            }
            (None, _) => Ok(Step::Challenge(String::new())),
            (Some(text), _) => self.respond(text),
        }
    }

    /// Takes a line of the client, without its line end.
    ///
    /// # Errors
    /// The exchange is over without a verdict.
    pub fn respond(&mut self, line: &[u8]) -> Result<Step, SaslError> {
        match std::mem::replace(&mut self.stage, Stage::End) {
            Stage::LoginUser => {
                self.user = Some(user_name(&decode(line, MAX_USER)?)?);
                self.stage = Stage::LoginPassword;
                Ok(Step::Challenge(STANDARD.encode("Password:")))
            }
            Stage::LoginPassword => {
                let password = decode(line, MAX_PASSWORD)?;
                if !is_one_line(&password) {
                    return Err(SaslError::Syntax);
                }
                Ok(Step::Check(Credentials { user: self.user().to_owned(), password }))
            }
            Stage::Plain => {
                let credentials = plain(&decode(line, MAX_PLAIN)?)?;
                self.user = Some(credentials.user.clone());
                Ok(Step::Check(credentials))
            }
            Stage::ScramFirst => self.scram_first(&decode(line, MAX_MESSAGE)?),
            Stage::ScramProof(exchange) => {
                let message = decode(line, MAX_MESSAGE)?;
                match exchange.finish(&message, self.binding.as_ref()) {
                    Ok(last) => {
                        self.stage = Stage::ScramConfirmation(last);
                        Ok(Step::Proved(true))
                    }
                    Err(ScramError::Syntax) => Err(SaslError::Syntax),
                    Err(ScramError::Binding | ScramError::Proof) => Ok(Step::Proved(false)),
                }
            }
            Stage::ScramAcknowledgement if line.is_empty() => Ok(Step::Success),
            Stage::End
            | Stage::ScramAcknowledgement
            | Stage::ScramConfirmation(_)
            | Stage::ScramVerifier(_) => Err(SaslError::Syntax),
        }
    }

    fn scram_first(&mut self, message: &[u8]) -> Result<Step, SaslError> {
        let (mechanism, plus_offered) = match self.mechanism {
            Mechanism::ScramSha256Plus => (scram::Mechanism::Plus, true),
            _ => (scram::Mechanism::Plain, self.binding.is_some()),
        };
        let first = ClientFirst::read(message, mechanism, plus_offered)?;
        let user = first.user().to_owned();
        self.user = Some(user.clone());
        self.stage = Stage::ScramVerifier(Box::new(first));
        Ok(Step::Find(user))
    }

    /// Goes on with the verifier that was asked for. `nonce` is random and never used again.
    #[must_use]
    pub fn verify(&mut self, verifier: Verifier, nonce: [u8; 18]) -> Step {
        match std::mem::replace(&mut self.stage, Stage::End) {
            Stage::ScramVerifier(first) => {
                let (exchange, challenge) = first.challenge(verifier, nonce);
                self.stage = Stage::ScramProof(Box::new(exchange));
                Step::Challenge(STANDARD.encode(challenge))
            }
            // Not asked for.
            _ => Step::Proved(false),
        }
    }

    /// Goes on after a right proof was noted; `None` without one.
    pub fn confirm(&mut self) -> Option<Step> {
        match std::mem::replace(&mut self.stage, Stage::End) {
            Stage::ScramConfirmation(last) => {
                self.stage = Stage::ScramAcknowledgement;
                Some(Step::Challenge(STANDARD.encode(last)))
            }
            _ => None,
        }
    }
}

/// The bytes that a line stands for, at most `most`.
fn decode(line: &[u8], most: usize) -> Result<Zeroizing<Vec<u8>>, SaslError> {
    let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'\x0b';
    // Neither grows, which would leave a copy behind.
    let mut text = Zeroizing::new(Vec::with_capacity(line.len()));
    text.extend(line.iter().copied().filter(|byte| !blank(byte)));
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
    let length = STANDARD.decode_slice(&*text, &mut bytes).map_err(|_| SaslError::Syntax)?;
    if length > most {
        return Err(SaslError::Syntax);
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// `authzid NUL user NUL password`; whom to act as is ignored, and so is a NUL behind the password
/// with all that follows.
fn plain(response: &[u8]) -> Result<Credentials, SaslError> {
    let mut parts = response.split(|&byte| byte == 0).skip(1);
    let (Some(user), Some(password)) = (parts.next(), parts.next()) else {
        return Err(SaslError::Syntax);
    };
    if password.is_empty() || !is_one_line(password) {
        return Err(SaslError::Syntax);
    }
    let password = Zeroizing::new(password.to_vec());
    Ok(Credentials { user: user_name(user)?, password })
}

fn user_name(bytes: &[u8]) -> Result<String, SaslError> {
    let name = std::str::from_utf8(bytes).map_err(|_| SaslError::Syntax)?;
    if name.len() > MAX_USER || !is_one_line(bytes) {
        return Err(SaslError::Syntax);
    }
    Ok(name.to_owned())
}

/// Whether there is neither a line end nor a NUL, which some programs would take for the end.
fn is_one_line(bytes: &[u8]) -> bool {
    !bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

#[cfg(test)]
mod tests;
