//! Bytes received and not yet handled.

use zeroize::Zeroize as _;

/// A queue of bytes: the shell appends, the session consumes.
///
/// Whatever a session leaves in it, it wants to see again together with what comes next. An
/// empty buffer may be taken away between two polls and given to another session.
#[derive(Debug, Default)]
pub struct InputBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl InputBuffer {
    /// The vector to append received bytes to. Nothing else may be done with it.
    pub fn room(&mut self) -> &mut Vec<u8> {
        if self.start > 0 {
            // What is left is small: it may be waited for long, and needs no more than its own room.
            self.bytes = self.as_slice().to_vec();
            self.start = 0;
        }
        &mut self.bytes
    }

    /// The bytes not yet handled.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Whether everything was handled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start >= self.bytes.len()
    }

    /// The same as [`Self::consume`], for bytes that hold a secret: they are overwritten.
    pub fn erase(&mut self, count: usize) {
        let end = self.start.saturating_add(count).min(self.bytes.len());
        if let Some(secret) = self.bytes.get_mut(self.start..end) {
            secret.zeroize();
        }
        self.consume(count);
    }

    /// Marks the first `count` bytes as handled.
    pub fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.bytes.len());
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_erased_is_overwritten_and_the_rest_stays() {
        let mut input = InputBuffer::default();
        input.room().extend_from_slice(b"NOOP\nsecret\nRSET\n");
        input.consume(5);
        input.erase(7);
        assert_eq!(input.as_slice(), b"RSET\n");
        assert_eq!(input.bytes, b"NOOP\n\0\0\0\0\0\0\0RSET\n");
        input.erase(100);
        assert!(input.is_empty());
    }
}
