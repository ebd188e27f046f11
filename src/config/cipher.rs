//! The arguments of `protocols` and `ciphers`: which versions and cipher suites of TLS may be used.
//!
//! Administrators write what OpenSSL understands. Of that, only what is still safe is there: TLS 1.2
//! with six suites, and TLS 1.3, whose suites cannot be chosen. Words for what is gone select
//! nothing.
//!
//! Sources: tls_config_set_protocols(3) for `protocols`; openssl-ciphers(1) for `ciphers`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Versions of TLS.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Protocols {
    /// TLS 1.2.
    pub tls_1_2: bool,
    /// TLS 1.3.
    pub tls_1_3: bool,
}

/// Cipher suites of TLS 1.2, the preferred one first; never empty.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Ciphers(Vec<Cipher>);

/// A cipher suite of TLS 1.2.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Cipher {
    /// For certificates with keys on elliptic curves.
    Ecdsa(Bulk),
    /// For RSA certificates.
    Rsa(Bulk),
}

/// What a suite encrypts with.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Bulk {
    /// AES with 128 bits in Galois/Counter mode.
    Aes128,
    /// AES with 256 bits in Galois/Counter mode.
    Aes256,
    /// ChaCha20 with Poly1305.
    ChaCha20,
}

/// A text leaves nothing that could be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("nothing that can be used is left")]
pub struct NothingLeft;

const TLS_1_0: u8 = 1;
const TLS_1_1: u8 = 2;
const TLS_1_2: u8 = 4;
const TLS_1_3: u8 = 8;

impl Protocols {
    /// Reads a list of versions separated by `,` or `:`; one after `!` is taken away.
    ///
    /// # Errors
    /// [`NothingLeft`]: a word is unknown, or neither TLS 1.2 nor TLS 1.3 remains.
    pub fn parse(text: &str) -> Result<Self, NothingLeft> {
        let all = TLS_1_0 | TLS_1_1 | TLS_1_2 | TLS_1_3;
        let mut chosen = 0;
        for word in text.split([',', ':']) {
            let word = word.trim_start_matches([' ', '\t']);
            let (negated, word) = word.strip_prefix('!').map_or((false, word), |rest| (true, rest));
            let versions = match word.to_ascii_lowercase().as_str() {
                "all" | "legacy" | "tlsv1" => all,
                "default" | "secure" => TLS_1_2 | TLS_1_3,
                "tlsv1.0" => TLS_1_0,
                "tlsv1.1" => TLS_1_1,
                "tlsv1.2" => TLS_1_2,
                "tlsv1.3" => TLS_1_3,
                _ => return Err(NothingLeft),
            };
            if negated && chosen == 0 {
                chosen = all;
            }
            chosen = if negated { chosen & !versions } else { chosen | versions };
        }
        let found = Self { tls_1_2: chosen & TLS_1_2 != 0, tls_1_3: chosen & TLS_1_3 != 0 };
        if found.tls_1_2 || found.tls_1_3 { Ok(found) } else { Err(NothingLeft) }
    }
}

/// The form that [`Protocols::parse`] reads.
impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.tls_1_2, self.tls_1_3) {
            (true, true) => "default",
            (true, false) => "tlsv1.2",
            _ => "tlsv1.3",
        })
    }
}

impl Cipher {
    /// All suites, the preferred one first.
    pub const ALL: [Self; 6] = [
        Self::Ecdsa(Bulk::Aes256),
        Self::Rsa(Bulk::Aes256),
        Self::Ecdsa(Bulk::ChaCha20),
        Self::Rsa(Bulk::ChaCha20),
        Self::Ecdsa(Bulk::Aes128),
        Self::Rsa(Bulk::Aes128),
    ];

    /// Its OpenSSL name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ecdsa(Bulk::Aes128) => "ECDHE-ECDSA-AES128-GCM-SHA256",
            Self::Ecdsa(Bulk::Aes256) => "ECDHE-ECDSA-AES256-GCM-SHA384",
            Self::Ecdsa(Bulk::ChaCha20) => "ECDHE-ECDSA-CHACHA20-POLY1305",
            Self::Rsa(Bulk::Aes128) => "ECDHE-RSA-AES128-GCM-SHA256",
            Self::Rsa(Bulk::Aes256) => "ECDHE-RSA-AES256-GCM-SHA384",
            Self::Rsa(Bulk::ChaCha20) => "ECDHE-RSA-CHACHA20-POLY1305",
        }
    }

    fn bulk(self) -> Bulk {
        match self {
            Self::Ecdsa(bulk) | Self::Rsa(bulk) => bulk,
        }
    }

    /// Whether a word of a cipher string stands for this suite; `None` if it is no known word.
    fn is(self, word: &str) -> Option<bool> {
        let bulk = self.bulk();
        Some(match word {
            "ALL" | "AEAD" | "ECDHE" | "EECDH" | "HIGH" | "TLSv1.2" | "kECDHE" | "kEECDH" => true,
            "AES" | "AESGCM" => bulk != Bulk::ChaCha20,
            "AES128" => bulk == Bulk::Aes128,
            "AES256" => bulk == Bulk::Aes256,
            "CHACHA20" => bulk == Bulk::ChaCha20,
            "ECDSA" | "aECDSA" => matches!(self, Self::Ecdsa(_)),
            "RSA" | "aRSA" => matches!(self, Self::Rsa(_)),
            "SHA256" => bulk == Bulk::Aes128,
            "SHA384" => bulk == Bulk::Aes256,
            _ if GONE.contains(&word) => false,
            _ if Self::ALL.iter().any(|suite| suite.name() == word) => self.name() == word,
            _ => return None,
        })
    }
}

/// Words for what is not there any more. They are often taken away, which needs no warning.
#[rustfmt::skip] // one word a line would hide the rest of the file
const GONE: &[&str] = &[
    "3DES", "ADH", "AECDH", "AESCCM", "AESCCM8", "ARIA", "CAMELLIA", "COMPLEMENTOFALL",
    "COMPLEMENTOFDEFAULT", "DES", "DH", "DHE", "DSS", "EDH", "EXP", "EXPORT", "IDEA", "LOW", "MD5",
    "MEDIUM", "NULL", "PSK", "RC2", "RC4", "SEED", "SHA", "SHA1", "SRP", "SSLv2", "SSLv3", "TLSv1",
    "TLSv1.0", "aDSS", "aNULL", "aPSK", "eNULL", "kDHE", "kRSA",
];

impl Ciphers {
    /// Reads a cipher string: words separated by `:`, `,` or blanks. A word adds its suites at the
    /// end, `-` takes them away, `!` for good, `+` moves them to the end; words joined by `+` mean
    /// what they have in common. Also gives the words that it did not know.
    ///
    /// # Errors
    /// [`NothingLeft`]: no suite remains.
    pub fn parse(text: &str) -> Result<(Self, Vec<&str>), NothingLeft> {
        let usual = ["default", "secure", "compat", "legacy", "all", "insecure"];
        if usual.iter().any(|name| text.eq_ignore_ascii_case(name)) {
            return Ok((Self(Cipher::ALL.to_vec()), Vec::new()));
        }
        let mut chosen: Vec<Cipher> = Vec::new();
        let mut banned: Vec<Cipher> = Vec::new();
        let mut unknown = Vec::new();
        for word in text.split([':', ',', ' ', ';']).filter(|word| !word.is_empty()) {
            if word.starts_with('@') {
                // Orders by strength, or asks for a level of security that all suites have.
                continue;
            }
            let operator = word.chars().next().filter(|first| matches!(first, '!' | '-' | '+'));
            let names = if operator.is_some() { &word[1..] } else { word };
            let Some(meant) = meant_by(names) else {
                unknown.push(word);
                continue;
            };
            let others = |suite: &Cipher| !meant.contains(suite);
            match operator {
                Some('+') => {
                    let moved: Vec<_> =
                        chosen.iter().copied().filter(|suite| !others(suite)).collect();
                    chosen.retain(others);
                    chosen.extend(moved);
                }
                Some(sign) => {
                    chosen.retain(others);
                    if sign == '!' {
                        banned.extend(meant);
                    }
                }
                None => {
                    let new: Vec<_> = meant
                        .into_iter()
                        .filter(|suite| !chosen.contains(suite) && !banned.contains(suite))
                        .collect();
                    chosen.extend(new);
                }
            }
        }
        if chosen.is_empty() { Err(NothingLeft) } else { Ok((Self(chosen), unknown)) }
    }

    /// The suites, the preferred one first.
    pub fn iter(&self) -> impl Iterator<Item = Cipher> {
        self.0.iter().copied()
    }
}

/// The suites that all words joined by `+` stand for; `None` if one is unknown.
fn meant_by(names: &str) -> Option<Vec<Cipher>> {
    let mut meant = Cipher::ALL.to_vec();
    for name in names.split('+') {
        let name = if name == "DEFAULT" { "ALL" } else { name };
        for suite in Cipher::ALL {
            if !suite.is(name)? {
                meant.retain(|other| *other != suite);
            }
        }
    }
    Some(meant)
}

/// The form that [`Ciphers::parse`] reads.
impl fmt::Display for Ciphers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, suite) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(f, "{separator}{}", suite.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let both = Ok((true, true));
        let cases = [
            ("all", both),
            ("legacy", both),
            ("Default", both),
            ("secure", both),
            ("tlsv1", both),
            ("tlsv1.2", Ok((true, false))),
            ("TLSv1.3", Ok((false, true))),
            ("tlsv1.2,tlsv1.3", both),
            ("tlsv1.1: tlsv1.2", Ok((true, false))),
            ("!tlsv1.2", Ok((false, true))),
            ("all,!tlsv1.3", Ok((true, false))),
            ("tlsv1.0", Err(NothingLeft)),
            ("default:!secure", Err(NothingLeft)),
            ("bogus", Err(NothingLeft)),
            ("tlsv1.2,", Err(NothingLeft)),
            ("", Err(NothingLeft)),
        ];
        for (text, expected) in cases {
            let found = Protocols::parse(text);
            let pair = found.map(|found| (found.tls_1_2, found.tls_1_3));
            assert_eq!(pair, expected, "{text:?}");
            if let Ok(found) = found {
                assert_eq!(Protocols::parse(&found.to_string()), Ok(found), "{text:?}");
            }
        }
    }

    #[test]
    fn suites() {
        use Bulk::{Aes128, Aes256, ChaCha20};
        use Cipher::{Ecdsa, Rsa};
        let all = || Cipher::ALL.to_vec();
        let cases: [(&str, Vec<Cipher>, &[&str]); 14] = [
            ("default", all(), &[]),
            ("Compat", all(), &[]),
            ("HIGH:!aNULL", all(), &[]),
            ("HIGH:MEDIUM:!aNULL", all(), &[]),
            ("ALL:!aNULL:!eNULL", all(), &[]),
            ("DEFAULT:@SECLEVEL=2", all(), &[]),
            ("ECDHE-RSA-AES128-GCM-SHA256", vec![Rsa(Aes128)], &[]),
            (
                "CHACHA20:AES128",
                vec![Ecdsa(ChaCha20), Rsa(ChaCha20), Ecdsa(Aes128), Rsa(Aes128)],
                &[],
            ),
            ("AES256+aRSA", vec![Rsa(Aes256)], &[]),
            ("HIGH:!AES:!RSA", vec![Ecdsa(ChaCha20)], &[]),
            ("!RSA:CHACHA20", vec![Ecdsa(ChaCha20)], &[]),
            ("CHACHA20:-RSA:CHACHA20", vec![Ecdsa(ChaCha20), Rsa(ChaCha20)], &[]),
            ("CHACHA20:AES128+RSA:+ECDSA", vec![Rsa(ChaCha20), Rsa(Aes128), Ecdsa(ChaCha20)], &[]),
            ("DHE-RSA-AES256-SHA AES256+ECDSA", vec![Ecdsa(Aes256)], &["DHE-RSA-AES256-SHA"]),
        ];
        for (text, expected, unknown) in cases {
            let (found, not_known) = Ciphers::parse(text).unwrap();
            assert_eq!((found.iter().collect(), &not_known[..]), (expected, unknown), "{text:?}");
            assert_eq!(Ciphers::parse(&found.to_string()), Ok((found, Vec::new())), "{text:?}");
        }
        for text in ["RC4", "bogus", "!HIGH:HIGH", "ECDSA+RSA", ""] {
            assert_eq!(Ciphers::parse(text), Err(NothingLeft), "{text:?}");
        }
    }
}
