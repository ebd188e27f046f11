//! Hashes of passwords: their forms, what a check of one may cost, and the check.
//!
//! A form that libraries have is computed by them, the same on every system: yescrypt (`$y$`),
//! SHA-512-crypt (`$6$`), SHA-256-crypt (`$5$`), bcrypt (`$2a$`, `$2b$`, `$2y$`), Argon2
//! (`$argon2id$`, `$argon2i$`, `$argon2d$`), and SCRAM-SHA-256 verifiers. For a few others the
//! system's crypt(3) is asked: `$gy$`, `$7$`, `$sha1$`, `$md5`, `$3$`, `$1$`, `$2x$`, and DES with
//! and without `_`. Everything else is no hash, a plain password too: nobody logs in with it.
//!
//! A hash says what its check costs, and whoever writes a table may be mistaken. [`MEMORY`] and its
//! neighbours are the bounds; beyond them nothing is computed.
//!
//! Sources: crypt(5); RFC 9106 (Argon2); RFC 5803 (SCRAM).

use std::ffi::CString;

use argon2::password_hash::PasswordVerifier as _;
use argon2::password_hash::phc::PasswordHash;
use platform::crypt::Crypt;
use sha_crypt::ShaCrypt;
use subtle::ConstantTimeEq as _;
use yescrypt::Yescrypt;
use zeroize::Zeroizing;

use crate::proto::scram::{Cost, SCHEME, Verifier};

/// Bytes of memory that a check may take (yescrypt, scrypt, Argon2).
const MEMORY: u64 = 256 * 1024 * 1024;
/// Bytes that a check may go through in all its passes.
const WORK: u64 = 16 * MEMORY;
/// The cost of bcrypt: 2 to the power of it rounds.
const BCRYPT: std::ops::RangeInclusive<u32> = 4..=16;
/// Rounds of SHA-crypt and of `$sha1$`.
const ROUNDS: u32 = 5_000_000;
/// Rounds of DES with `_` and of `$md5`.
const OLD_ROUNDS: u32 = 1_000_000;
/// Letters of the hash at the end of `$y$` and `$gy$`.
const YESCRYPT_HASH: usize = 43;

/// Why a text cannot be compared with a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(in crate::lookup) enum HashError {
    /// The check would take too long or too much memory.
    #[error("the check would cost too much")]
    Cost,
    /// It begins like one, but is none.
    #[error("the hash is damaged")]
    Damaged,
    /// It is no hash, or none that this system knows.
    #[error("not a hash that is known here")]
    Unknown,
}

/// How a password is checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Argon2,
    Bcrypt,
    Scram,
    ShaCrypt,
    System,
    Yescrypt,
}

/// Whether `password` is the one of this hash. Takes as long for a wrong one as for the right one.
///
/// # Errors
/// The text is no hash, or one that is not computed.
pub(in crate::lookup) fn fits(
    hash: &str,
    password: &[u8],
    crypt: Option<&Crypt>,
) -> Result<bool, HashError> {
    let form = form(hash)?;
    if password.contains(&0) {
        return Ok(false);
    }
    let verdict = match form {
        Form::Argon2 => {
            let hash = PasswordHash::new(hash).map_err(|_| HashError::Damaged)?;
            argon2::Argon2::default().verify_password(password, &hash)
        }
        Form::Bcrypt => return bcrypt::verify(password, hash).map_err(|_| HashError::Damaged),
        Form::Scram => {
            let verifier: Verifier = hash.parse().map_err(|_| HashError::Damaged)?;
            return Ok(verifier.fits(password));
        }
        Form::ShaCrypt => ShaCrypt::default().verify_password(password, hash),
        Form::System => {
            return system(hash, password, crypt.ok_or(HashError::Unknown)?);
        }
        Form::Yescrypt => Yescrypt::default().verify_password(password, hash),
    };
    match verdict {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(_) => Err(HashError::Damaged),
    }
}

/// What decides how long the check of a hash takes: hashes of one kind cost the same.
///
/// # Errors
/// The text is no hash, or one that is not computed.
pub(super) fn kind(hash: &str) -> Result<String, HashError> {
    if form(hash)? == Form::Scram {
        let verifier: Verifier = hash.parse().map_err(|_| HashError::Damaged)?;
        let Cost { iterations, salt } = verifier.cost();
        return Ok(format!("{SCHEME}${iterations}:{salt}"));
    }
    let Some((name, rest)) = hash.strip_prefix('$').and_then(|rest| rest.split_once('$')) else {
        // The count of rounds stands behind the `_`.
        return Ok(hash.get(..5).filter(|begin| begin.starts_with('_')).unwrap_or("").to_owned());
    };
    let parts = rest.split('$');
    let cost: Vec<&str> = match name {
        "7" => rest.get(..11).into_iter().collect(),
        "y" | "gy" | "sha1" | "2a" | "2b" | "2x" | "2y" => parts.take(1).collect(),
        _ => parts.take_while(|part| part.contains('=')).collect(),
    };
    Ok(format!("${name}${}", cost.join("$")))
}

fn system(hash: &str, password: &[u8], crypt: &Crypt) -> Result<bool, HashError> {
    let setting = CString::new(hash).map_err(|_| HashError::Damaged)?;
    let mut text = Vec::with_capacity(password.len() + 1);
    text.extend_from_slice(password);
    let password = CString::new(text).map_err(|_| HashError::Damaged)?;
    let computed = crypt.hash(&password, &setting);
    drop(Zeroizing::new(password.into_bytes()));
    let computed = computed.ok_or(HashError::Unknown)?;
    Ok(computed.as_bytes().ct_eq(setting.as_bytes()).into())
}

/// How this hash is checked, if that is within the bounds.
fn form(hash: &str) -> Result<Form, HashError> {
    if hash.strip_prefix(SCHEME).is_some_and(|rest| rest.starts_with('$')) {
        // Its bounds are those of verifiers.
        return Ok(Form::Scram);
    }
    let Some((name, rest)) = hash.strip_prefix('$').and_then(|rest| rest.split_once('$')) else {
        return old_form(hash);
    };
    match name {
        "argon2d" | "argon2i" | "argon2id" => argon2_within_bounds(hash).map(|()| Form::Argon2),
        "2a" | "2b" | "2x" | "2y" => {
            let cost = rest.get(..2).and_then(|cost| cost.parse().ok());
            let cost = cost.ok_or(HashError::Damaged)?;
            within(BCRYPT.contains(&cost))?;
            Ok(if name == "2x" { Form::System } else { Form::Bcrypt })
        }
        "5" | "6" => {
            within(rounds(rest, "rounds=").is_none_or(|rounds| rounds <= ROUNDS))?;
            Ok(Form::ShaCrypt)
        }
        "y" | "gy" => {
            let (parameters, salted) = rest.split_once('$').ok_or(HashError::Damaged)?;
            let letters = salted.split_once('$').map(|(_, hash)| hash.len());
            // What is computed is as long as what is there: nothing at all would fit everything.
            if letters != Some(YESCRYPT_HASH) {
                return Err(HashError::Damaged);
            }
            yescrypt_within_bounds(parameters)?;
            Ok(if name == "y" { Form::Yescrypt } else { Form::System })
        }
        "7" => scrypt_within_bounds(rest).map(|()| Form::System),
        "sha1" => {
            within(rounds(rest, "").is_some_and(|rounds| rounds <= ROUNDS))?;
            Ok(Form::System)
        }
        "1" | "3" => Ok(Form::System),
        name if name
            .strip_prefix("md5")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(',')) =>
        {
            let given = name.strip_prefix("md5,").and_then(|given| rounds(given, "rounds="));
            within(given.is_none_or(|rounds| rounds <= OLD_ROUNDS))?;
            Ok(Form::System)
        }
        _ => Err(HashError::Unknown),
    }
}

/// DES: 13 letters, or `_` and 19.
fn old_form(hash: &str) -> Result<Form, HashError> {
    let letters = |text: &str| text.bytes().all(|byte| place(byte).is_some());
    if let Some(rest) = hash.strip_prefix('_') {
        if rest.len() != 19 || !letters(rest) {
            return Err(HashError::Unknown);
        }
        let rounds =
            rest.bytes().take(4).rev().filter_map(place).fold(0, |sum, next| sum * 64 + next);
        within(rounds <= OLD_ROUNDS)?;
        return Ok(Form::System);
    }
    if hash.len() == 13 && letters(hash) { Ok(Form::System) } else { Err(HashError::Unknown) }
}

/// What a letter stands for in the base64 of crypt(3).
fn place(byte: u8) -> Option<u32> {
    let place = match byte {
        b'.' | b'/' => byte - b'.',
        b'0'..=b'9' => byte - b'0' + 2,
        b'A'..=b'Z' => byte - b'A' + 12,
        b'a'..=b'z' => byte - b'a' + 38,
        _ => return None,
    };
    Some(place.into())
}

fn within(bounds: bool) -> Result<(), HashError> {
    if bounds { Ok(()) } else { Err(HashError::Cost) }
}

/// The number that a hash gives first, with this name; one that does not fit is above any bound.
fn rounds(text: &str, name: &str) -> Option<u32> {
    let digits = text.strip_prefix(name)?;
    let digits = digits.split(['$', ',']).next()?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u32::MAX))
}

fn argon2_within_bounds(hash: &str) -> Result<(), HashError> {
    let hash = PasswordHash::new(hash).map_err(|_| HashError::Damaged)?;
    let parameters = argon2::Params::try_from(&hash).map_err(|_| HashError::Damaged)?;
    let memory = u64::from(parameters.m_cost()) * 1024;
    let work = memory.saturating_mul(parameters.t_cost().into());
    within(memory <= MEMORY && work <= WORK && parameters.p_cost() <= 64)
}

fn yescrypt_within_bounds(parameters: &str) -> Result<(), HashError> {
    let parsed: yescrypt::Params = parameters.parse().map_err(|_| HashError::Damaged)?;
    let usual =
        yescrypt::Params::new(yescrypt::Mode::default(), parsed.n(), parsed.r(), parsed.p());
    // Only what crypt(3) makes: no other flavour, and no more passes over the memory.
    if usual.ok() != Some(parsed) {
        return Err(HashError::Unknown);
    }
    memory_within_bounds(parsed.n(), parsed.r().into(), parsed.p().into())
}

/// `$7$`: one letter of log2 N, five of r, five of p.
fn scrypt_within_bounds(rest: &str) -> Result<(), HashError> {
    let number = |range: std::ops::Range<usize>| {
        let letters = rest.get(range)?.bytes().rev();
        letters.map(place).try_fold(0_u64, |sum, next| Some(sum * 64 + u64::from(next?)))
    };
    let numbers = (number(0..1), number(1..6), number(6..11));
    let (Some(exponent), Some(r), Some(p)) = numbers else { return Err(HashError::Damaged) };
    let n = u32::try_from(exponent).ok().and_then(|exponent| 1_u64.checked_shl(exponent));
    memory_within_bounds(n.ok_or(HashError::Cost)?, r, p)
}

fn memory_within_bounds(n: u64, r: u64, p: u64) -> Result<(), HashError> {
    let block = r.saturating_mul(128);
    let memory = block.saturating_mul(n.saturating_add(p));
    within(memory <= MEMORY && block.saturating_mul(n).saturating_mul(p) <= WORK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::scram;

    /// Hashes of `secret` and of `pässwörd`, made with crypt(3) of libxcrypt 4.4, and Argon2's own
    /// program.
    const KNOWN: [(&str, &str, &str); 12] = [
        (
            "yescrypt",
            "$y$j75$saltsalt$0gBD67sgmJgRX3RZ6wHHO7sHimQEWGCWN85o4Twogh2",
            "$y$j75$saltsalt$oRvAdjphdNnk3wHh9iO5ap8EOmNCxoiceDzpFxTcy61",
        ),
        (
            "SHA-256",
            "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA",
            "$5$saltsalt$JUyX9J5pA1EE4ZvGcIA.vpwPCUQ8GlJbo51r7M84au8",
        ),
        (
            "SHA-256 with rounds",
            "$5$rounds=1234$saltsalt$ydMhzY0spDIF5JTHfydtpfMQUy9duW6XO2Sh4O5PfV1",
            "$5$rounds=1234$saltsalt$1nsgp5lgue/D9hzHM2cQOR2B6GW01BwBVhiKcLTQ3a1",
        ),
        (
            "SHA-512",
            "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN\
             .Pq.H91p5hVO1",
            "$6$saltsalt$TQjRhpJdqmLx0U8it3EsUajwkmOMMvw5vhUFc7mohzFFoj/QHrfYUHU1oSkwyCEoTUCDOiAOW\
             135nel3bqtKe.",
        ),
        (
            "SHA-512 with rounds",
            "$6$rounds=2000$saltsalt$GBImuhotpiUgeciq/ZS6UaMklAGJMK25wd5Tacv1I0CcSmxHOQQLpmVKYRPI\
             U6LoFrr4iPAAmsqUTjBoZ.Fwr/",
            "$6$rounds=2000$saltsalt$EYUFSf550HcWaJ5ZYLuFaoXFevrko4ySsd4YMloIejf.by4BFjEwX4/cD01w\
             J3twC6ipubJiaqiVonj6lrqAe.",
        ),
        (
            "bcrypt a",
            "$2a$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
            "$2a$04$abcdefghijklmnopqrstuuyx2n0Zzopyr9QuYTMCfOJJOj526QVoC",
        ),
        (
            "bcrypt b",
            "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
            "$2b$04$abcdefghijklmnopqrstuuyx2n0Zzopyr9QuYTMCfOJJOj526QVoC",
        ),
        (
            "bcrypt y",
            "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a",
            "$2y$05$abcdefghijklmnopqrstuuZVEMa1pjhlynBQ1qXmSvGBJpN9h1w8G",
        ),
        ("DES", "abNANd1rDfiNc", ""),
        ("MD5", "$1$saltsalt$9xy1btjgzLYfb7hivXtC//", "$1$saltsalt$VReRfkQ8Hs1aayf/oxMkG/"),
        (
            "GOST yescrypt",
            "$gy$j75$saltsalt$lKLXtt/QvsyxW9ILYZt1u1hNXyI7ZoBnbdUTsPBwSi5",
            "$gy$j75$saltsalt$o8Rt9ORW59xgcdOCBSFgKf8nC7odux.l2E3p56THej3",
        ),
        (
            "scrypt",
            "$7$C6..../....saltsalt$5XJ6DH1K2qGmZ4ZuUi32nOnZOcS7St4BEECudrmQilC",
            "$7$C6..../....saltsalt$jptdw.w1ePboXf7OsESfe8H9E5kABv1ihwNd4uzP7Z9",
        ),
    ];

    #[test]
    fn the_password_of_a_hash_fits_and_no_other() {
        let crypt = Crypt::load();
        for (name, of_secret, of_other) in KNOWN {
            if matches!(form(of_secret), Ok(Form::System))
                && fits(of_secret, b"secret", crypt.as_ref()) == Err(HashError::Unknown)
            {
                println!("skipped: this system's crypt(3) does not know {name}");
                continue;
            }
            let check = |hash, password: &str| fits(hash, password.as_bytes(), crypt.as_ref());
            assert_eq!(check(of_secret, "secret"), Ok(true), "{name}");
            for wrong in ["Secret", "secretx", "secre", "", "secret\0"] {
                assert_eq!(check(of_secret, wrong), Ok(false), "{name} {wrong:?}");
            }
            if !of_other.is_empty() {
                assert_eq!(check(of_other, "pässwörd"), Ok(true), "{name}");
                assert_eq!(check(of_other, "secret"), Ok(false), "{name}");
            }
        }
    }

    #[test]
    fn argon2_and_scram_are_hashes_too() {
        // argon2 -id, -i and -d with -t 2 -k 64 -p 1 of the reference implementation.
        let verifier = Verifier::derive(b"secret", b"saltsalt", 4096).unwrap().to_string();
        let mut hashes = vec![verifier];
        for algorithm in
            [argon2::Algorithm::Argon2id, argon2::Algorithm::Argon2i, argon2::Algorithm::Argon2d]
        {
            use argon2::password_hash::PasswordHasher as _;
            let parameters = argon2::Params::new(64, 2, 1, None).unwrap();
            let hasher = argon2::Argon2::new(algorithm, argon2::Version::V0x13, parameters);
            let hash = hasher.hash_password_with_salt(b"secret", b"saltsaltsalt").unwrap();
            hashes.push(hash.to_string());
        }
        for hash in hashes {
            assert_eq!(fits(&hash, b"secret", None), Ok(true), "{hash}");
            assert_eq!(fits(&hash, b"Secret", None), Ok(false), "{hash}");
        }
    }

    #[test]
    fn hashes_of_one_kind_cost_the_same() {
        let verifier = |salt: &[u8], iterations| {
            Verifier::derive(b"secret", salt, iterations).unwrap().to_string()
        };
        let argon2 = |costs: &str, salt: &str| {
            format!("$argon2id$v=19${costs}${salt}$AAAAAAAAAAAAAAAAAAAAAA")
        };
        let bcrypt =
            |cost| format!("$2b${cost}$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW");
        let gnu = |name: &str, salt: &str| {
            format!("${name}${salt}$0gBD67sgmJgRX3RZ6wHHO7sHimQEWGCWN85o4Twogh2")
        };
        let cases: [(String, String, bool); 17] = [
            (KNOWN[0].1.to_owned(), KNOWN[0].2.to_owned(), true),
            (gnu("y$j75", "one"), gnu("y$j75", "other"), true),
            (gnu("y$j75", "salt"), gnu("y$j9T", "salt"), false),
            (gnu("y$j75", "salt"), gnu("gy$j75", "salt"), false),
            ("$6$one$x".into(), "$6$other$y".into(), true),
            ("$6$salt$x".into(), "$5$salt$x".into(), false),
            ("$6$salt$x".into(), "$6$rounds=2000$salt$x".into(), false),
            ("$6$rounds=2000$one$x".into(), "$6$rounds=2000$other$x".into(), true),
            (bcrypt("05"), bcrypt("06"), false),
            (bcrypt("05"), bcrypt("05").replace("abc", "cba"), true),
            (argon2("m=64,t=2,p=1", "c2FsdHNhbHQ"), argon2("m=64,t=2,p=1", "c2FsdHNhbHU"), true),
            (argon2("m=64,t=2,p=1", "c2FsdHNhbHQ"), argon2("m=64,t=3,p=1", "c2FsdHNhbHQ"), false),
            (verifier(b"salt", 5), verifier(b"tlas", 5), true),
            (verifier(b"salt", 5), verifier(b"salt", 6), false),
            (verifier(b"salt", 5), verifier(b"salts", 5), false),
            ("abNANd1rDfiNc".into(), "xyNANd1rDfiNc".into(), true),
            ("_J9..saltLXKE4peqNCg".into(), "_K9..saltLXKE4peqNCg".into(), false),
        ];
        for (one, other, same) in cases {
            assert_eq!(kind(&one).unwrap() == kind(&other).unwrap(), same, "{one} {other}");
        }
        assert_eq!(kind("secret"), Err(HashError::Unknown));
        assert_eq!(kind("SCRAM-SHA-256$x"), Err(HashError::Damaged));
    }

    #[test]
    fn long_passwords_are_what_other_programs_make_of_them() {
        // bcrypt looks at 72 bytes.
        let hash = bcrypt::hash("a".repeat(72), 4).unwrap();
        assert_eq!(fits(&hash, "a".repeat(100).as_bytes(), None), Ok(true));
        assert_eq!(fits(&hash, "a".repeat(71).as_bytes(), None), Ok(false));
        let (_, hash, _) = KNOWN[3];
        assert_eq!(fits(hash, &[b'a'; 2047], None), Ok(false));
    }

    #[test]
    fn what_is_no_hash_lets_nobody_in() {
        use HashError::{Cost, Damaged, Unknown};
        let key = "A".repeat(43);
        let cases: [(&str, HashError); 33] = [
            ("", Unknown),
            ("secret", Unknown),
            ("*", Unknown),
            ("!", Unknown),
            ("!$6$saltsalt$x", Unknown),
            ("x", Unknown),
            ("$", Unknown),
            ("$$", Unknown),
            ("$8$salt$hash", Unknown),
            ("{SHA256-CRYPT}$5$salt$x", Unknown),
            ("$2b$", Damaged),
            ("$2b$xx$abcdefghijklmnopqrstuu", Damaged),
            ("$2b$04$short", Damaged),
            ("$2b$03$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW", Cost),
            ("$2b$17$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW", Cost),
            ("$5$rounds=5000001$saltsalt$x", Cost),
            ("$6$rounds=99999999999$saltsalt$x", Cost),
            ("$6$saltsalt", Damaged),
            ("$y$j9T$saltsalt$", Damaged),
            ("$y$j9T$saltsalt", Damaged),
            ("$y$j9T$saltsalt$ab", Damaged),
            ("$y$jHT$saltsalt$0gBD67sgmJgRX3RZ6wHHO7sHimQEWGCWN85o4Twogh2", Cost),
            // N of 2^63, r above all memory.
            ("$7$w6..../....saltsalt$x", Cost),
            ("$7$C6zzzz/....saltsalt$x", Cost),
            ("$7$C6..", Damaged),
            ("$sha1$5000001$salt$x", Cost),
            ("$sha1$many$salt$x", Cost),
            ("$md5,rounds=1000001$salt$$x", Cost),
            ("_zzzzsaltLXKE4peqNCg", Cost),
            ("_J9..salt", Unknown),
            ("$argon2id$v=19$m=262145,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA", Cost),
            ("$argon2id$v=19$m=262144,t=17,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA", Cost),
            ("$argon2id$nonsense", Damaged),
        ];
        let crypt = Crypt::load();
        for (hash, expected) in cases {
            assert_eq!(fits(hash, b"", crypt.as_ref()), Err(expected), "{hash}");
        }
        let verifier = format!("{}$9999999:c2FsdA==${key}=:{key}=", scram::SCHEME);
        assert_eq!(fits(&verifier, b"", None), Err(Damaged));
        assert_eq!(fits("$1$saltsalt$9xy1btjgzLYfb7hivXtC//", b"secret", None), Err(Unknown));
    }

    #[test]
    fn a_wrong_password_takes_as_long_as_the_right_one() {
        let hash = bcrypt::hash("secret", 6).unwrap();
        let time = |password: &[u8]| {
            let begun = std::time::Instant::now();
            fits(&hash, password, None).unwrap();
            begun.elapsed()
        };
        let shortest = |password: &[u8]| (0..7).map(|_| time(password)).min().unwrap();
        let (right, wrong) = (shortest(b"secret"), shortest(b"x"));
        let ratio = right.as_secs_f64() / wrong.as_secs_f64();
        assert!((0.5..2.0).contains(&ratio), "{right:?} {wrong:?}");
    }
}
