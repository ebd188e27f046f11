//! Bytes received and not yet handled.

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

    /// Marks the first `count` bytes as handled.
    pub fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.bytes.len());
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }
}
