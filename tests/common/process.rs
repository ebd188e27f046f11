//! Processes as `/proc` shows them: who is whose child, and what a process may do.

use std::collections::HashMap;
use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::{SOON, wait_until};

/// A running process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its name, which is the role for processes of the server.
    pub name: String,
}

/// The children of a process, those that have ended and were not waited for left out.
pub fn children(of: i32) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| {
            let (name, state, parent) = stat(pid)?;
            (parent == of && state != 'Z').then_some(Process { pid, name })
        })
        .collect()
}

/// All processes below a process.
pub fn descendants(of: i32) -> Vec<Process> {
    let mut found = children(of);
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let below = children(process.pid);
        found.extend(below);
        next += 1;
    }
    found
}

/// Name, state and parent (proc(5), `stat`).
fn stat(pid: i32) -> Option<(String, char, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, parentheses too.
    let (head, rest) = text.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((name.to_owned(), state, fields.next()?.parse().ok()?))
}

/// Whether a process is there; one that has ended and was not waited for is not.
pub fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|(_, state, _)| state != 'Z')
}

/// The fields of `/proc/PID/status`; `None` if the process is gone.
pub fn status(pid: i32) -> Option<HashMap<String, String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    Some(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}

/// Sends a signal; a process that is gone is left alone.
pub fn send(pid: i32, signal: Signal) {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("cannot signal {pid}: {error}"),
    }
}

/// Waits until none of these processes is there.
pub fn wait_until_gone(processes: &[Process]) {
    wait_until("processes leave", SOON, || !processes.iter().any(|process| is_alive(process.pid)));
}
