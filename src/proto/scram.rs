//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's side: two messages in, two messages out.
//!
//! The exchange proves to the server that a client knows a password, and to the client that the
//! server knows its verifier; neither sends what the other could use elsewhere. What the server
//! keeps of a password is a [`Verifier`]. Random numbers and channel bindings come in as values; for
//! a user who has no verifier one is [invented](Verifier::invented), so that the exchange takes the
//! same way as with a wrong password.
//!
//! Sources: RFC 5802 (the exchange), 5803 (text form of verifiers), 7677 (SHA-256), 9266 (the
//! binding `tls-exporter`, the only one here), 4013 (names and passwords).
//!
//! Limits: messages of at most 4096 bytes, names of 255, nonces of 256, salts of 4 to 64 bytes, and
//! 1 to 1,000,000 iterations, since a PLAIN password is checked at this price too.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Bytes of a message of the client, decoded from base64.
pub const MAX_MESSAGE: usize = 4096;
/// Bytes of a user name.
const MAX_USER: usize = 255;
/// Bytes of a client's nonce.
const MAX_NONCE: usize = 256;
/// What the text form of a verifier begins with, and the name of the mechanism.
pub const SCHEME: &str = "SCRAM-SHA-256";
/// Iterations that a verifier may have.
pub const ITERATIONS: std::ops::RangeInclusive<u32> = 1..=1_000_000;
/// Iterations of a new verifier: every login of a client takes them.
pub const NEW_ITERATIONS: u32 = 100_000;
/// Bytes that a salt may have.
const SALT: std::ops::RangeInclusive<usize> = 4..=64;
/// Bytes of the salt of a new verifier.
pub const NEW_SALT: usize = 16;

/// What binds an exchange to its TLS connection: the exported keying material of RFC 9266 for
/// `tls-exporter`.
pub type ChannelBinding = [u8; 32];

/// Which of the two mechanisms the client has chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mechanism {
    /// `SCRAM-SHA-256`, without channel binding.
    Plain,
    /// `SCRAM-SHA-256-PLUS`.
    Plus,
}

/// Why an exchange ends without a proof.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ScramError {
    /// The message is not what the grammar of RFC 5802 says, or demands an extension.
    #[error("not a message of SCRAM")]
    Syntax,
    /// The binding is of a kind that is not known, or the client was told that there is none.
    #[error("channel binding does not fit")]
    Binding,
    /// The client does not know the password, or speaks over another connection than it thinks.
    #[error("the proof is wrong")]
    Proof,
}

/// What the server keeps of a password.
///
/// Its text form is `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, the last three in base64.
#[derive(Clone, Eq, PartialEq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: Zeroizing<[u8; 32]>,
}

/// Without the keys: who knows them can play the server.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// A text is not a verifier.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a SCRAM-SHA-256 verifier")]
pub struct BadVerifier;

impl FromStr for Verifier {
    type Err = BadVerifier;

    fn from_str(text: &str) -> Result<Self, BadVerifier> {
        let parts = || {
            let rest = text.strip_prefix(SCHEME)?.strip_prefix('$')?;
            let (cost, keys) = rest.split_once('$')?;
            let (iterations, salt) = cost.split_once(':')?;
            let (stored_key, server_key) = keys.split_once(':')?;
            let iterations = number(iterations).filter(|count| ITERATIONS.contains(count))?;
            let salt = STANDARD.decode(salt).ok().filter(|salt| SALT.contains(&salt.len()))?;
            let key = |text| STANDARD.decode(text).ok()?.try_into().ok();
            let server_key = Zeroizing::new(key(server_key)?);
            Some(Self { iterations, salt, stored_key: key(stored_key)?, server_key })
        };
        parts().ok_or(BadVerifier)
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let salt = STANDARD.encode(&self.salt);
        let (stored, server) =
            (STANDARD.encode(self.stored_key), STANDARD.encode(self.server_key.as_slice()));
        write!(f, "{SCHEME}${}:{salt}${stored}:{server}", self.iterations)
    }
}

impl Verifier {
    /// The verifier of a password.
    ///
    /// # Errors
    /// [`BadVerifier`]: the salt has fewer than 4 or more than 64 bytes, or `iterations` is not one
    /// of [`ITERATIONS`].
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Result<Self, BadVerifier> {
        if !ITERATIONS.contains(&iterations) || !SALT.contains(&salt.len()) {
            return Err(BadVerifier);
        }
        let password = prepared_password(password);
        let mut salted = Zeroizing::new([0; 32]);
        pbkdf2::pbkdf2_hmac::<Sha256>(&password, salt, iterations, &mut *salted);
        let client_key = Zeroizing::new(mac(&salted, &[b"Client Key"]));
        Ok(Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: Sha256::digest(client_key.as_slice()).into(),
            server_key: Zeroizing::new(mac(&salted, &[b"Server Key"])),
        })
    }

    /// A verifier that no password fits, for a user who has none: always the same one for the same
    /// `user` and `secret`, and as costly as `like`, so that nobody can tell it from a real one.
    #[must_use]
    pub fn invented(secret: &[u8; 32], user: &str, like: Cost) -> Self {
        let part = |what: &[u8]| mac(secret, &[what, b"\0", user.as_bytes()]);
        let mut salt = part(b"salt 1").to_vec();
        salt.extend(part(b"salt 2"));
        salt.truncate(like.salt.clamp(*SALT.start(), *SALT.end()));
        Self {
            iterations: like.iterations,
            salt,
            stored_key: part(b"stored key"),
            server_key: Zeroizing::new(part(b"server key")),
        }
    }

    /// What it costs to use it, as a client sees it.
    #[must_use]
    pub fn cost(&self) -> Cost {
        Cost { iterations: self.iterations, salt: self.salt.len() }
    }

    /// Whether this is the password. Takes as long as the iterations take, whatever the answer.
    #[must_use]
    pub fn fits(&self, password: &[u8]) -> bool {
        let Ok(other) = Self::derive(password, &self.salt, self.iterations) else { return false };
        other.stored_key.ct_eq(&self.stored_key).into()
    }
}

/// What a verifier shows to everybody who asks for its user.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Cost {
    /// Iterations of PBKDF2.
    pub iterations: u32,
    /// Bytes of the salt.
    pub salt: usize,
}

impl Default for Cost {
    /// That of new verifiers.
    fn default() -> Self {
        Self { iterations: NEW_ITERATIONS, salt: NEW_SALT }
    }
}

/// The first message of a client, read: it says who logs in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientFirst {
    user: String,
    /// The message without its first part.
    bare: String,
    /// Its first part, about channel binding.
    header: String,
    nonce: String,
    bound: bool,
}

impl ClientFirst {
    /// Reads the first message, decoded from base64. `plus_offered` says whether the client was
    /// told of `SCRAM-SHA-256-PLUS`: one that can bind, and says it was not told, had somebody in
    /// between who took it out.
    ///
    /// # Errors
    /// [`ScramError::Syntax`] and [`ScramError::Binding`].
    pub fn read(
        message: &[u8],
        mechanism: Mechanism,
        plus_offered: bool,
    ) -> Result<Self, ScramError> {
        let message = text(message)?;
        let (flag, rest) = message.split_once(',').ok_or(ScramError::Syntax)?;
        let bound = match (flag, mechanism) {
            ("n", Mechanism::Plain) => false,
            ("y", Mechanism::Plain) if !plus_offered => false,
            ("p=tls-exporter", Mechanism::Plus) => true,
            ("n" | "y", _) => return Err(ScramError::Binding),
            (other, _) if other.starts_with("p=") => return Err(ScramError::Binding),
            _ => return Err(ScramError::Syntax),
        };
        let (authorisation, bare) = rest.split_once(',').ok_or(ScramError::Syntax)?;
        // An identity to act as: ignored, as in PLAIN.
        if !authorisation.is_empty() {
            name(authorisation.strip_prefix("a=").ok_or(ScramError::Syntax)?)?;
        }
        let mut attributes = bare.split(',');
        // A mandatory extension (`m=`) in the place of the name is one that is not known.
        let user = name(attribute(attributes.next(), "n=")?)?;
        let nonce = attribute(attributes.next(), "r=")?;
        if nonce.is_empty() || nonce.len() > MAX_NONCE || !is_printable(nonce) {
            return Err(ScramError::Syntax);
        }
        // What follows are optional extensions.
        if !attributes.all(is_extension) {
            return Err(ScramError::Syntax);
        }
        let header = message.strip_suffix(bare).ok_or(ScramError::Syntax)?;
        Ok(Self {
            user: prepared_user(&user).ok_or(ScramError::Syntax)?,
            bare: bare.to_owned(),
            header: header.to_owned(),
            nonce: nonce.to_owned(),
            bound,
        })
    }

    /// Who logs in, prepared for comparison (RFC 4013): up to 255 bytes, never empty.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The answer to it, and what awaits the next message. `nonce` is random and never used again.
    #[must_use]
    pub fn challenge(self, verifier: Verifier, nonce: [u8; 18]) -> (Exchange, String) {
        self.challenge_with(verifier, &STANDARD.encode(nonce))
    }

    fn challenge_with(self, verifier: Verifier, ours: &str) -> (Exchange, String) {
        let nonce = format!("{}{ours}", self.nonce);
        let salt = STANDARD.encode(&verifier.salt);
        let message = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let exchange = Exchange {
            signed: format!("{},{message},", self.bare),
            header: self.header,
            bound: self.bound,
            nonce,
            verifier,
        };
        (exchange, message)
    }
}

/// An exchange that awaits the client's proof.
#[derive(Clone, Debug)]
pub struct Exchange {
    verifier: Verifier,
    header: String,
    bound: bool,
    nonce: String,
    /// What both sides sign, up to the client's last message.
    signed: String,
}

impl Exchange {
    /// Checks the last message of the client, decoded from base64. `binding` is that of the
    /// connection, if it has one. With the right proof gives the message that proves to the client
    /// that this is its server: it is the text of the last challenge.
    ///
    /// # Errors
    /// Any [`ScramError`]; all of them mean that the client has not logged in.
    pub fn finish(
        &self,
        message: &[u8],
        binding: Option<&ChannelBinding>,
    ) -> Result<String, ScramError> {
        let message = text(message)?;
        let (unproved, proof) = message.rsplit_once(",p=").ok_or(ScramError::Syntax)?;
        let proof: [u8; 32] = STANDARD
            .decode(proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or(ScramError::Syntax)?;
        let mut attributes = unproved.split(',');
        let claimed = attribute(attributes.next(), "c=")?;
        let claimed = STANDARD.decode(claimed).map_err(|_| ScramError::Syntax)?;
        let nonce = attribute(attributes.next(), "r=")?;
        if !attributes.all(is_extension) {
            return Err(ScramError::Syntax);
        }
        let mut expected = self.header.clone().into_bytes();
        if self.bound {
            expected.extend(binding.ok_or(ScramError::Binding)?);
        }
        if !bool::from(claimed.ct_eq(&expected)) {
            return Err(ScramError::Binding);
        }
        if nonce != self.nonce {
            return Err(ScramError::Proof);
        }
        let signed = [self.signed.as_bytes(), unproved.as_bytes()];
        let signature = mac(&self.verifier.stored_key, &signed);
        let mut client_key = Zeroizing::new(proof);
        for (byte, mask) in client_key.iter_mut().zip(signature) {
            *byte ^= mask;
        }
        let stored_key: [u8; 32] = Sha256::digest(client_key.as_slice()).into();
        if !bool::from(stored_key.ct_eq(&self.verifier.stored_key)) {
            return Err(ScramError::Proof);
        }
        let signature = mac(&self.verifier.server_key, &signed);
        Ok(format!("v={}", STANDARD.encode(signature)))
    }
}

/// HMAC-SHA-256 of all parts.
fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // A key shorter than the block is padded with zeros (RFC 2104, section 2).
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MAX_MESSAGE {
        return Err(ScramError::Syntax);
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Syntax)
}

fn attribute<'a>(found: Option<&'a str>, letter: &str) -> Result<&'a str, ScramError> {
    found.and_then(|found| found.strip_prefix(letter)).ok_or(ScramError::Syntax)
}

/// `letter=value`, of a letter that has no meaning here.
fn is_extension(attribute: &str) -> bool {
    let mut bytes = attribute.bytes();
    let named = bytes.next().is_some_and(|letter| letter.is_ascii_alphabetic() && letter != b'm');
    named && bytes.next() == Some(b'=') && bytes.next().is_some() && !attribute.contains('\0')
}

/// Printable ASCII; commas end an attribute anyway.
fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    plain.then(|| text.parse().ok()).flatten()
}

/// A name as it is sent: `=2C` is a comma, `=3D` an equals sign.
fn name(sent: &str) -> Result<String, ScramError> {
    let mut decoded = String::with_capacity(sent.len());
    let mut rest = sent;
    while let Some((plain, escape)) = rest.split_once('=') {
        decoded.push_str(plain);
        let (sign, after) = match (escape.strip_prefix("2C"), escape.strip_prefix("3D")) {
            (Some(after), _) => (',', after),
            (_, Some(after)) => ('=', after),
            (None, None) => return Err(ScramError::Syntax),
        };
        decoded.push(sign);
        rest = after;
    }
    decoded.push_str(rest);
    let valid = !decoded.is_empty() && decoded.len() <= MAX_USER && !decoded.contains('\0');
    valid.then_some(decoded).ok_or(ScramError::Syntax)
}

/// A name in the form in which names are compared.
fn prepared_user(user: &str) -> Option<String> {
    let prepared = stringprep::saslprep(user).ok()?;
    (!prepared.is_empty() && prepared.len() <= MAX_USER).then(|| prepared.into_owned())
}

/// A password as both sides compute with it. One that cannot be prepared is taken as it is: it has
/// to work with PLAIN, and clients do the same.
fn prepared_password(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let prepared = std::str::from_utf8(password).ok().and_then(|it| stringprep::saslprep(it).ok());
    Zeroizing::new(prepared.map_or_else(|| password.to_vec(), |it| it.into_owned().into_bytes()))
}

#[cfg(test)]
pub(crate) mod tests;
