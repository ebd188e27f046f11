//! `smtpctl encrypt`: what tables hold in the place of passwords.
//!
//! Hashes are yescrypt (`$y$`), the first of the forms that the manual of this command lists, on
//! every system; with `--scram` they are verifiers for SCRAM-SHA-256. A password comes as the
//! argument, from a terminal without being shown, or in lines from elsewhere.
//!
//! Sources: the queue page of the specification, 6.4; RFC 5803.

use std::io::{self, BufRead, Write};

use yescrypt::{PasswordHasher as _, Yescrypt};
use zeroize::Zeroizing;

use crate::proto::scram::{NEW_ITERATIONS, NEW_SALT, Verifier};

/// The longest password, in bytes: a client could not send more.
const MAX_PASSWORD: usize = 2047;

/// What is made of a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// A hash as crypt(3) knows them.
    Crypt,
    /// A verifier for SCRAM-SHA-256, with which PLAIN and LOGIN work too.
    Scram,
}

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
pub enum EncryptError {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Nobody could log in with it.
    #[error("the password is empty, too long, or holds a byte that no client can send")]
    Password,
    /// The system has no random numbers, or no memory.
    #[error("the hash could not be made: {0}")]
    System(String),
}

/// Writes the hash of each password, in a line of its own.
///
/// # Errors
/// See [`EncryptError`]; the hashes before are written.
pub fn run(
    passwords: impl Iterator<Item = io::Result<Zeroizing<Vec<u8>>>>,
    scheme: Scheme,
    output: &mut impl Write,
) -> Result<(), EncryptError> {
    for password in passwords {
        let mut salt = [0; NEW_SALT];
        getrandom::fill(&mut salt).map_err(|error| EncryptError::System(error.to_string()))?;
        writeln!(output, "{}", hash(&password?, scheme, &salt)?)?;
    }
    Ok(output.flush()?)
}

/// The lines of an input, without their ends.
pub fn lines(input: impl BufRead) -> impl Iterator<Item = io::Result<Zeroizing<Vec<u8>>>> {
    input.split(b'\n').map(|line| line.map(Zeroizing::new))
}

fn hash(password: &[u8], scheme: Scheme, salt: &[u8; NEW_SALT]) -> Result<String, EncryptError> {
    let is_possible = (1..=MAX_PASSWORD).contains(&password.len());
    if !is_possible || password.iter().any(|byte| b"\0\r\n".contains(byte)) {
        return Err(EncryptError::Password);
    }
    match scheme {
        Scheme::Crypt => {
            let made = Yescrypt::default().hash_password_with_salt(password, salt);
            made.map(|hash| hash.as_str().to_owned())
                .map_err(|error| EncryptError::System(error.to_string()))
        }
        Scheme::Scram => Verifier::derive(password, salt, NEW_ITERATIONS)
            .map(|verifier| verifier.to_string())
            .map_err(|error| EncryptError::System(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use platform::crypt::Crypt;

    use super::*;

    fn made(input: &str, scheme: Scheme) -> Result<Vec<String>, EncryptError> {
        let mut output = Vec::new();
        run(lines(input.as_bytes()), scheme, &mut output)?;
        Ok(String::from_utf8(output).unwrap().lines().map(str::to_owned).collect())
    }

    #[test]
    fn each_line_becomes_a_hash_that_this_system_knows() {
        let hashes = made("secret\nsecret\n", Scheme::Crypt).unwrap();
        assert_eq!(hashes.len(), 2);
        assert_ne!(hashes[0], hashes[1]);
        for hash in hashes {
            assert!(hash.starts_with("$y$j9T$") && hash.len() == 73, "{hash}");
            let setting = CString::new(hash).unwrap();
            let same = Crypt::load().and_then(|crypt| crypt.hash(c"secret", &setting));
            assert!(same.is_none_or(|same| same == setting), "{setting:?}");
        }
    }

    #[test]
    fn verifiers_are_made_that_their_password_fits() {
        let verifiers = made("secret", Scheme::Scram).unwrap();
        assert!(verifiers[0].starts_with("SCRAM-SHA-256$100000:"), "{verifiers:?}");
        let verifier: Verifier = verifiers[0].parse().unwrap();
        assert!(verifier.fits(b"secret") && !verifier.fits(b"other"));
    }

    #[test]
    fn what_nobody_can_send_is_refused() {
        for password in ["\n", "a\0b", "a\rb", &"a".repeat(2048)] {
            let refused = made(password, Scheme::Scram);
            assert!(matches!(refused, Err(EncryptError::Password)), "{password:?}");
        }
        assert_eq!(made("", Scheme::Crypt).unwrap(), [""; 0]);
    }
}
