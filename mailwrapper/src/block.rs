//! The block of lines that Pillarbox keeps in a `mailer.conf`.
//!
//! It stands at the top, because the first line with a name counts and because text after a last
//! line that ends in `\` would become part of that line. Nothing else in the file is touched:
//! taking the block out gives back the original, byte for byte.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Begins every marker; ends with the version of the block's form.
const MARK: &str = "# pillarbox mailer.conf block 1: ";
/// Follows [`MARK`] in the first line of the block.
const BEGIN: &str = "begin (kept by mailwrapper --install and --remove)";
/// Follows [`MARK`] in the first line of the block of a file that was not there before.
const BEGIN_NEW: &str = "begin of a new file (kept by mailwrapper --install and --remove)";
/// Follows [`MARK`] in the last line of the block.
const END: &str = "end";

/// The names that lead to Pillarbox.
pub const NAMES: [&str; 5] = ["sendmail", "send-mail", "mailq", "makemap", "newaliases"];

/// A block that cannot be replaced or removed. Lines are counted from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DamagedBlock {
    /// No end follows the beginning.
    #[error("the block that begins in line {begin} has no end")]
    NoEnd {
        /// Line of the beginning.
        begin: usize,
    },
    /// An end without beginning.
    #[error("a block ends in line {end} and begins nowhere")]
    NoBegin {
        /// Line of the end.
        end: usize,
    },
    /// More than one block.
    #[error("a block begins in line {first} and another in line {second}")]
    Two {
        /// Line of the first beginning.
        first: usize,
        /// Line of the second beginning.
        second: usize,
    },
}

/// Where a block stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place {
    start: usize,
    end: usize,
    new_file: bool,
}

/// `original` with the block in it that leads to `program`; `None` is a file that is not there.
///
/// # Errors
/// There is a damaged block already.
pub fn install(original: Option<&[u8]>, program: &Path) -> Result<Vec<u8>, DamagedBlock> {
    let content = original.unwrap_or_default();
    let place = find(content)?;
    let new_file = place.map_or(original.is_none(), |place| place.new_file);
    let (start, end) = place.map_or((0, 0), |place| (place.start, place.end));
    let mut edited = content.get(..start).unwrap_or_default().to_vec();
    edited.extend(block(program, new_file));
    edited.extend_from_slice(content.get(end..).unwrap_or_default());
    Ok(edited)
}

/// `edited` without the block; `None` is a file that is to be removed.
///
/// # Errors
/// The block is damaged.
pub fn remove(edited: &[u8]) -> Result<Option<Vec<u8>>, DamagedBlock> {
    let Some(place) = find(edited)? else { return Ok(Some(edited.to_vec())) };
    let mut original = edited.get(..place.start).unwrap_or_default().to_vec();
    original.extend_from_slice(edited.get(place.end..).unwrap_or_default());
    if place.new_file && original.is_empty() {
        return Ok(None);
    }
    Ok(Some(original))
}

fn block(program: &Path, new_file: bool) -> Vec<u8> {
    let mut block = format!("{MARK}{}\n", if new_file { BEGIN_NEW } else { BEGIN }).into_bytes();
    for name in NAMES {
        block.extend_from_slice(OsStr::new(name).as_bytes());
        block.push(b'\t');
        block.extend_from_slice(program.as_os_str().as_bytes());
        block.push(b'\n');
    }
    block.extend_from_slice(format!("{MARK}{END}\n").as_bytes());
    block
}

fn find(content: &[u8]) -> Result<Option<Place>, DamagedBlock> {
    let mut begun: Option<(usize, usize, bool)> = None;
    let mut found: Option<(usize, Place)> = None;
    let mut offset = 0;
    for (index, line) in content.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        let start = offset;
        offset += line.len();
        let Some(mark) = marker(line) else { continue };
        let earlier = begun.map(|(line, ..)| line).or(found.map(|(line, _)| line));
        if mark != END {
            if let Some(first) = earlier {
                return Err(DamagedBlock::Two { first, second: number });
            }
            begun = Some((number, start, mark == BEGIN_NEW));
            continue;
        }
        let Some((begin, start, new_file)) = begun.take() else {
            return Err(DamagedBlock::NoBegin { end: number });
        };
        found = Some((begin, Place { start, end: offset, new_file }));
    }
    if let Some((begin, ..)) = begun {
        return Err(DamagedBlock::NoEnd { begin });
    }
    Ok(found.map(|(_, place)| place))
}

/// What a marker says; `None` for every other line.
fn marker(line: &[u8]) -> Option<&'static str> {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let said = text.strip_prefix(MARK.as_bytes())?;
    [BEGIN, BEGIN_NEW, END].into_iter().find(|known| said == known.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mailer_conf;

    const PROGRAM: &str = "/usr/sbin/smtpctl";

    fn program() -> &'static Path {
        Path::new(PROGRAM)
    }

    #[test]
    fn a_new_file_has_all_mappings_and_goes_with_them() {
        let made = install(None, program()).unwrap();
        for name in NAMES {
            let found = mailer_conf::find(&made, &name.into()).unwrap().unwrap();
            assert_eq!(found.program, program());
        }
        assert_eq!(remove(&made), Ok(None));
        assert_eq!(remove(&install(Some(b""), program()).unwrap()), Ok(Some(Vec::new())));
        let more = [made.as_slice(), b"hoststat /x\n"].concat();
        assert_eq!(remove(&more), Ok(Some(b"hoststat /x\n".to_vec())));
    }

    #[test]
    fn a_damaged_block_is_an_error_that_names_lines() {
        let begin = format!("{MARK}{BEGIN}\n");
        let end = format!("{MARK}{END}\n");
        let cases = [
            (format!("a /b\n{begin}"), DamagedBlock::NoEnd { begin: 2 }),
            (format!("a /b\n{end}{begin}"), DamagedBlock::NoBegin { end: 2 }),
            (format!("{begin}a /b\n{begin}{end}"), DamagedBlock::Two { first: 1, second: 3 }),
            (format!("{begin}{end}{begin}{end}"), DamagedBlock::Two { first: 1, second: 3 }),
        ];
        for (content, error) in cases {
            assert_eq!(install(Some(content.as_bytes()), program()), Err(error), "{content}");
            assert_eq!(remove(content.as_bytes()), Err(error), "{content}");
        }
    }

    #[test]
    fn a_block_that_was_moved_is_replaced_where_it_is() {
        let old = install(Some(b"b /c\n"), Path::new("/old/smtpctl")).unwrap();
        let block = old.strip_suffix(b"b /c\n").unwrap();
        let moved = [b"b /c\n".as_slice(), block].concat();
        let edited = install(Some(&moved), program()).unwrap();
        assert!(edited.starts_with(b"b /c\n# pillarbox"));
        assert_eq!(remove(&edited), Ok(Some(b"b /c\n".to_vec())));
        assert!(!String::from_utf8(edited).unwrap().contains("/old/"));
    }

    fn files() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            Just("sendmail /usr/libexec/sendmail/sendmail".to_owned()),
            Just("# sendmail /x".to_owned()),
            Just("mailq /a -b \\".to_owned()),
            Just(String::new()),
            "[a-z #\\\\\t]{0,12}",
        ];
        let odd = prop::collection::vec(any::<u8>(), 0..20);
        let end = prop_oneof![Just("\n"), Just("\r\n"), Just("")];
        (prop::collection::vec(line, 0..6), end, odd).prop_map(|(lines, end, odd)| {
            let end_of_line = if end.is_empty() { "\n" } else { end };
            let mut file = lines.join(end_of_line).into_bytes();
            file.extend_from_slice(end.as_bytes());
            file.extend(odd);
            file
        })
    }

    proptest! {
        #[test]
        fn installing_twice_is_installing_once(original in files()) {
            let once = install(Some(&original), program()).unwrap();
            prop_assert_eq!(&install(Some(&once), program()).unwrap(), &once);
        }

        #[test]
        fn removing_gives_back_the_original(original in files()) {
            let edited = install(Some(&original), program()).unwrap();
            prop_assert_eq!(remove(&edited).unwrap(), Some(original));
        }

        #[test]
        fn every_name_leads_to_the_program(original in files()) {
            let edited = install(Some(&original), program()).unwrap();
            for name in NAMES {
                let found = mailer_conf::find(&edited, &name.into()).unwrap().unwrap();
                prop_assert_eq!(found.program, Path::new(PROGRAM));
            }
        }
    }
}
