//! Starting, watching and signalling processes.
//!
//! [`spawn()`] serves any caller, threaded or not; [`spawn_as`], [`spawn_in`] and [`run_in_child`] only one without
//! threads.

mod child;
mod descriptors;
mod poll;
mod signal;
mod spawn;
mod title;

pub use child::{
    ExitStatus, Pid, current_executable, daemonise, exec, reap, run_in_child, set_standard_streams,
    wait_for,
};
pub use descriptors::close_all_except;
pub use poll::{Interest, PollEntry, poll};
pub use signal::{Signal, SignalPipe, end_in, ignore_signals, ignore_sigpipe, kill_group, signal};
pub use spawn::{spawn, spawn_as, spawn_in};
pub use title::{prepare_title, set_title};
