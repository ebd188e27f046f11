//! The argument of BDAT: how long a chunk is, and whether it is the last.
//!
//! Source: RFC 3030, section 2.

/// A chunk, as BDAT announces it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chunk {
    /// Its length in bytes.
    pub size: u64,
    /// Whether the message ends with it.
    pub last: bool,
}

/// The argument is not a size, or `LAST` does not follow it. How much content follows the command
/// is then unknown.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not the size of a chunk")]
pub struct BadChunk;

impl Chunk {
    /// Reads `SIZE` or `SIZE LAST`: decimal digits, blanks, a word in any case; blanks at the end.
    ///
    /// # Errors
    /// It is something else, or the size does not fit into 64 bits.
    pub fn parse(argument: &[u8]) -> Result<Self, BadChunk> {
        let text = std::str::from_utf8(argument).map_err(|_| BadChunk)?;
        let mut words = text.split(' ').filter(|word| !word.is_empty());
        let size = words.next().ok_or(BadChunk)?;
        let last = match words.next() {
            None => false,
            Some(word) if word.eq_ignore_ascii_case("LAST") => true,
            Some(_) => return Err(BadChunk),
        };
        // A sign is no digit, though numbers may have one elsewhere.
        let is_number = size.bytes().all(|byte| byte.is_ascii_digit());
        match (is_number, words.next()) {
            (true, None) => Ok(Self { size: size.parse().map_err(|_| BadChunk)?, last }),
            _ => Err(BadChunk),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_a_size_and_perhaps_the_last() {
        let chunk = |size, last| Ok(Chunk { size, last });
        let cases: [(&[u8], _); 18] = [
            (b"1", chunk(1, false)),
            (b"0", chunk(0, false)),
            (b"86 LAST", chunk(86, true)),
            (b"86  last ", chunk(86, true)),
            (b"0 Last", chunk(0, true)),
            (b"0001", chunk(1, false)),
            (b"18446744073709551615", chunk(u64::MAX, false)),
            (b"18446744073709551616", Err(BadChunk)),
            (b"", Err(BadChunk)),
            (b" ", Err(BadChunk)),
            (b"LAST", Err(BadChunk)),
            (b"+1", Err(BadChunk)),
            (b"-1", Err(BadChunk)),
            (b"0x10", Err(BadChunk)),
            (b"1 LAST x", Err(BadChunk)),
            (b"1 2", Err(BadChunk)),
            (b"1\tLAST", Err(BadChunk)),
            (b"\xff", Err(BadChunk)),
        ];
        for (argument, expected) in cases {
            let name = String::from_utf8_lossy(argument);
            assert_eq!(Chunk::parse(argument), expected, "{name:?}");
        }
    }
}
