//! The memory of this process, as the system tells it.

use std::fs;

/// Forgets the most that this process has had so far. `false` where the system cannot (proc(5)).
pub fn forget_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Bytes of this process in memory now, and at most since [`forget_peak`]; nothing where the system
/// does not tell.
pub fn now_and_peak() -> Option<(usize, usize)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? * 1024)
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}
