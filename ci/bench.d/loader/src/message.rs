//! Messages that can be told apart and checked wherever they turn up.
//!
//! The header `X-Bench` names the run, the number of the message and a checksum of its body. The
//! checksum leaves line endings out, since a mailbox has other ones than the wire.

const HEADER: &str = "X-Bench: ";
/// Characters of a body line.
const LINE: usize = 76;

/// What a message at its destination turned out to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// Whole: its number.
    Whole(usize),
    /// Its body is not what was sent.
    Damaged,
    /// Not one of this run.
    Foreign,
}

/// A checksum that is fed line by line (FNV-1a).
#[derive(Clone, Copy, Debug)]
pub struct Checksum(u64);

impl Checksum {
    /// Of nothing.
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds one line, without its ending.
    pub fn line(&mut self, line: &[u8]) {
        // Eight bytes a step: the loader shares its processors with the server.
        let (words, rest) = line.as_chunks::<8>();
        for word in words {
            self.0 = (self.0 ^ u64::from_le_bytes(*word)).wrapping_mul(0x0100_0000_01b3);
            self.0 ^= self.0 >> 29;
        }
        for byte in rest.iter().chain(b"\n") {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Message `number` of `run`, as it goes over the wire after DATA: dot-stuffed, with the last dot.
pub fn compose(run: &str, number: usize, size: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(size + size / LINE * 2 + 16);
    let mut checksum = Checksum::new();
    let mut state = number as u64 + 1;
    let mut line = [0_u8; LINE];
    let mut written = 0;
    while written < size {
        for byte in &mut line {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = b'0' + (state >> 58) as u8;
        }
        // Now and then a line that has to be stuffed.
        if state >> 60 == 0 {
            line[0] = b'.';
            body.push(b'.');
        }
        checksum.line(&line);
        body.extend_from_slice(&line);
        body.extend_from_slice(b"\r\n");
        written += LINE + 2;
    }
    let mut message = format!(
        "From: <load@bench.test>\r\nTo: <u@bench.test>\r\nSubject: bench\r\n\
         Date: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{run}-{number}@bench.test>\r\n\
         {HEADER}{run} {number} {:016x}\r\n\r\n",
        checksum.0
    )
    .into_bytes();
    message.extend_from_slice(&body);
    message.extend_from_slice(b".\r\n");
    message
}

/// Judges a message as its lines come, endings and stuffing taken off.
#[derive(Debug)]
pub struct Judge<'a> {
    run: &'a str,
    claim: Option<(usize, u64)>,
    in_body: bool,
    checksum: Checksum,
}

impl<'a> Judge<'a> {
    /// For messages of `run`.
    pub fn new(run: &'a str) -> Self {
        Self { run, claim: None, in_body: false, checksum: Checksum::new() }
    }

    /// Takes the next line.
    pub fn line(&mut self, line: &[u8]) {
        if self.in_body {
            self.checksum.line(line);
        } else if line.is_empty() {
            self.in_body = true;
        } else if let Some(value) = line.strip_prefix(HEADER.as_bytes()) {
            self.claim = self.parse(value);
        }
    }

    /// The verdict after the last line.
    pub fn verdict(self) -> Found {
        match self.claim {
            None => Found::Foreign,
            Some((number, sum)) if sum == self.checksum.0 => Found::Whole(number),
            Some(_) => Found::Damaged,
        }
    }

    fn parse(&self, value: &[u8]) -> Option<(usize, u64)> {
        let text = std::str::from_utf8(value).ok()?;
        let mut words = text.split(' ');
        if words.next()? != self.run {
            return None;
        }
        let number = words.next()?.parse().ok()?;
        Some((number, u64::from_str_radix(words.next()?, 16).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(run: &str, wire: &[u8]) -> Found {
        let mut judge = Judge::new(run);
        for line in wire.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line == b"." {
                break;
            }
            judge.line(line.strip_prefix(b".").unwrap_or(line));
        }
        judge.verdict()
    }

    #[test]
    fn a_message_is_found_whole_and_any_change_is_seen() {
        for number in 0..200 {
            let wire = compose("r1", number, 1000);
            assert_eq!(judge("r1", &wire), Found::Whole(number));
            assert_eq!(judge("r2", &wire), Found::Foreign);
            let mut changed = wire.clone();
            let at = changed.len() - 100 + number % 70;
            changed[at] ^= 1;
            assert_eq!(judge("r1", &changed), Found::Damaged, "{number}");
            let shorter = [&wire[..wire.len() - 83], b".\r\n"].concat();
            assert_eq!(judge("r1", &shorter), Found::Damaged, "{number}");
        }
    }
}
