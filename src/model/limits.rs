//! Every limit that more than one part relies on. Parts name their own beside their code.

use std::time::Duration;

/// Largest frame between two roles, header excluded, in bytes.
pub const FRAME: usize = 64 * 1024;
/// Longest text of a status, in bytes; longer texts end in `...`.
pub const STATUS_TEXT: usize = 2047;
/// A message body up to this many bytes stays in the dispatcher's memory until it is committed.
pub const BODY_IN_MEMORY: usize = 32 * 1024;
/// Bodies of all sessions in memory together, in bytes.
pub const BODIES_IN_MEMORY: usize = 64 * 1024 * 1024;
/// Bodies of committed messages kept for their first delivery, in bytes.
pub const FIRST_ATTEMPT_CACHE: usize = 32 * 1024 * 1024;
/// Bodies up to this many bytes are records of the log, larger ones are files.
pub const BODY_IN_LOG: usize = 128 * 1024;
/// Message ids that the queue leases at once.
pub const LEASED_IDS: u32 = 1024;
/// Longest answer of a worker about one job, in bytes.
pub const WORKER_ANSWER: usize = 4 * 1024;
/// A commit older than this is refused and cancelled.
pub const COMMIT_DEADLINE: Duration = Duration::from_secs(30);
/// A `.forward` of this many bytes or more is not used.
pub const FORWARD_FILE: usize = 4096;
/// Largest file that an alias may include, in bytes.
pub const INCLUDED_LIST: usize = 1024 * 1024;
/// Bytes of an included file that are passed on at once.
pub const INCLUDED_PIECE: usize = 48 * 1024;
/// Longest line of a command, in bytes, without line end.
pub const COMMAND_LINE: usize = 2047;
/// Longest line of a message, in bytes, without line end.
pub const MESSAGE_LINE: usize = 65_534;
/// Most bytes of lines that go to filters, or come from them, at once: the longest line is cut.
pub const FILTER_LINES: usize = 32 * 1024;
/// Received headers from which on a message is held to be looping.
pub const RECEIVED_HEADERS: usize = 100;
/// Default of `smtp max-message-size`, in bytes.
pub const MESSAGE_SIZE: u64 = 36_700_160;
