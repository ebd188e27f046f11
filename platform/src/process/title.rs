//! What the process list shows.

use crate::support::Support;
use crate::{Host, Os};

/// Makes room for [`set_title`]. To be called first in `main`, before threads start and before the
/// root directory changes.
pub fn prepare_title() -> Support {
    Host.prepare_title()
}

/// Shows `title` in the process list instead of the command line, as far as it fits. The command
/// line must have been read before: on some systems the title takes its place.
pub fn set_title(title: &str) -> Support {
    Host.set_title(title)
}
