//! Waiting for something to become true, with a limit.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Time after which what should happen at once is held not to happen. Generous: tests run beside
/// each other on few processors.
pub const SOON: Duration = Duration::from_secs(20);

/// Polls until `look` finds something.
///
/// # Panics
/// With `what` in the text, if nothing was found within `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// Polls until `holds` is true.
///
/// # Panics
/// As [`wait_for`].
pub fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, limit, || holds().then_some(()));
}
