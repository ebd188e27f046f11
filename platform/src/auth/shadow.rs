//! The shadow file of Linux: checks where there is no PAM, and as much work for accounts without a
//! password as for others.
//!
//! Sources: shadow(5), getspnam(3), crypt(3).

use std::ffi::{CStr, CString, c_char, c_long};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::mem::MaybeUninit;
use std::ptr;
use std::time::SystemTime;

use super::{Attempt, Verdict};
use crate::crypt::Crypt;

/// The file, which only root reads.
const FILE: &str = "/etc/shadow";
/// What is computed where no account has a password.
const INVENTED: &CStr = c"$y$j9T$inventedinvented$";
/// Bytes for the strings of an entry: a line of the file.
const ENTRY: usize = 8192;
/// Lines of the file that are looked through for a hash.
const LINES: usize = 10_000;

/// What the file says about an account; days count from 1970, below 0 there is no such day.
#[derive(Clone, Debug)]
struct Entry {
    hash: CString,
    changed: c_long,
    longest: c_long,
    expires: c_long,
}

impl Entry {
    /// Whether the account may be used on that day: it has not expired, and its password neither.
    fn is_open(&self, today: c_long) -> bool {
        if self.expires >= 0 && today >= self.expires {
            return false;
        }
        // A password that was never set is to be changed first.
        let too_old = self.changed > 0
            && self.longest >= 0
            && today > self.changed.saturating_add(self.longest);
        self.changed != 0 && !too_old
    }

    /// Whether a password can fit: a locked one has a hash that nothing gives.
    fn has_password(&self) -> bool {
        is_hash(self.hash.to_bytes())
    }
}

fn is_hash(text: &[u8]) -> bool {
    !text.is_empty() && !text.starts_with(b"!") && !text.starts_with(b"*") && text != b"x"
}

/// Checks a password.
///
/// # Errors
/// The file cannot be read, or this system's crypt(3) is not there.
pub(crate) fn authenticate(attempt: &Attempt<'_>) -> io::Result<Verdict> {
    let crypt = Crypt::load().ok_or_else(|| io::Error::other("there is no crypt(3)"))?;
    let entry = entry(attempt.user)?.filter(Entry::has_password);
    let Some(entry) = entry else {
        spend(&crypt, attempt.password);
        return Ok(Verdict::Rejected);
    };
    let hash = crypt.hash(attempt.password, &entry.hash);
    let fits = hash.is_some_and(|hash| same(hash.to_bytes(), entry.hash.to_bytes()));
    let accepted = fits && entry.is_open(today());
    Ok(if accepted { Verdict::Accepted } else { Verdict::Rejected })
}

/// Takes as long as the check of a wrong password, if PAM has found nothing to compute for this
/// account: it is locked, or not there.
pub(crate) fn even_out(attempt: &Attempt<'_>) {
    // Who may not read the file has no account to check but its own.
    let Ok(entry) = entry(attempt.user) else { return };
    let computed = entry.is_some_and(|entry| entry.has_password());
    if !computed && let Some(crypt) = Crypt::load() {
        spend(&crypt, attempt.password);
    }
}

/// Computes a hash in the form of the first account that has one.
fn spend(crypt: &Crypt, password: &CStr) {
    let known = File::open(FILE).ok().and_then(|file| first_hash(BufReader::new(file)));
    // What comes of it does not matter.
    let _hash = crypt.hash(password, known.as_deref().unwrap_or(INVENTED));
}

fn first_hash(file: impl BufRead) -> Option<CString> {
    let lines = file.split(b'\n').take(LINES).map_while(Result::ok);
    let hash = |line: Vec<u8>| line.split(|byte| *byte == b':').nth(1).map(<[u8]>::to_vec);
    lines.filter_map(hash).find(|text| is_hash(text)).and_then(|text| CString::new(text).ok())
}

/// Whether both are the same, in a time that does not tell where they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    let difference = one.iter().zip(other).fold(0, |found, (one, other)| found | (one ^ other));
    one.len() == other.len() && std::hint::black_box(difference) == 0
}

fn today() -> c_long {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    c_long::try_from(since.as_secs() / 86_400).unwrap_or(c_long::MAX)
}

fn entry(user: &CStr) -> io::Result<Option<Entry>> {
    let mut entry = MaybeUninit::<libc::spwd>::uninit();
    let mut strings: Vec<c_char> = vec![0; ENTRY];
    let mut found: *mut libc::spwd = ptr::null_mut();
    // SAFETY: the name ends with NUL, the rest are buffers of the length given.
    let error = unsafe {
        libc::getspnam_r(
            user.as_ptr(),
            entry.as_mut_ptr(),
            strings.as_mut_ptr(),
            strings.len(),
            &raw mut found,
        )
    };
    // SAFETY: a found entry is `entry`, filled in.
    match (error, unsafe { found.as_ref() }) {
        (_, Some(found)) if !found.sp_pwdp.is_null() => Ok(Some(Entry {
            // SAFETY: a string of the entry, which ends with NUL in `strings`.
            hash: unsafe { CStr::from_ptr(found.sp_pwdp) }.to_owned(),
            changed: found.sp_lstchg,
            longest: found.sp_max,
            expires: found.sp_expire,
        })),
        // musl says so of an account that is not there.
        (0 | libc::ENOENT, _) => Ok(None),
        (error, _) => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_and_passwords_have_an_end() {
        let entry = |changed, longest, expires| Entry {
            hash: c"$6$x".to_owned(),
            changed,
            longest,
            expires,
        };
        let cases = [
            ("nothing said", entry(-1, -1, -1), true),
            ("set lately", entry(990, 99_999, -1), true),
            ("last day", entry(900, 100, -1), true),
            ("too old", entry(900, 99, -1), false),
            ("to be changed first", entry(0, 99_999, -1), false),
            ("expires tomorrow", entry(990, -1, 1001), true),
            ("has expired", entry(990, -1, 1000), false),
        ];
        for (name, entry, open) in cases {
            assert_eq!(entry.is_open(1000), open, "{name}");
        }
    }

    #[test]
    fn only_what_can_be_computed_is_a_hash() {
        let file =
            "root:*:1:0\nlocked:!$6$a$b:1\nnone:!!:1\nempty::1\nbroken\nalice:$6$salt$hash:1\n";
        assert_eq!(first_hash(file.as_bytes()).as_deref(), Some(c"$6$salt$hash"));
        assert_eq!(first_hash("root:*:1".as_bytes()), None);
    }

    #[test]
    fn texts_are_the_same_or_not() {
        for (one, other, expected) in
            [("a", "a", true), ("a", "b", false), ("a", "ab", false), ("", "", true)]
        {
            assert_eq!(same(one.as_bytes(), other.as_bytes()), expected, "{one} {other}");
        }
    }
}
