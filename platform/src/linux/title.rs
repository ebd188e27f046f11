//! The title of a process: the strings of its arguments, overwritten with the name of the program and
//! what it does, as setproctitle(3) of other systems shows them.
//!
//! The kernel shows what lies in memory where it put the arguments, and goes on into the
//! environment behind them if the last byte of the arguments is not NUL (proc(5), `cmdline`). So
//! the environment is copied away first, and both stretches hold the title. The name of the main
//! thread (15 bytes) is set too, to what the process does alone; it is what `top` and `pgrep` look at.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Mutex;
use std::{env, fs, ptr, slice};

use crate::support::Support;

unsafe extern "C" {
    /// environ(7).
    static mut environ: *mut *mut libc::c_char;
}

/// Where the title goes: address and length.
struct Area {
    start: usize,
    length: usize,
}

/// Where the title goes, and the name of the program, which stands before it.
static AREA: Mutex<Option<(Area, String)>> = Mutex::new(None);

const NO_AREA: &str = "/proc does not tell where the arguments are";

pub(super) fn prepare() -> Support {
    let mut area = AREA.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if area.is_some() {
        return Support::full("arguments overwritten");
    }
    let Some(found) = fs::read("/proc/self/stat").ok().and_then(|stat| find_area(&stat)) else {
        return Support::none(NO_AREA);
    };
    move_environment();
    *area = Some((found, program_name()));
    Support::full("arguments overwritten")
}

/// Reads arg_start, arg_end, env_start and env_end: fields 48 to 51 of `stat` in proc(5).
fn find_area(stat: &[u8]) -> Option<Area> {
    // The second field holds the program's name in parentheses, whatever characters it has.
    let behind_name = stat.iter().rposition(|byte| *byte == b')')? + 2;
    let text = str::from_utf8(stat.get(behind_name..)?).ok()?;
    // The first one here is field 3.
    let mut fields = text.split_ascii_whitespace().skip(48 - 3).map(str::parse);
    let mut next = || fields.next()?.ok();
    let (start, end): (usize, usize) = (next()?, next()?);
    let (environment_start, environment_end): (usize, usize) = (next()?, next()?);
    let arguments = end.checked_sub(start)?;
    // The environment lies right behind, unless somebody moved it (prctl(PR_SET_MM)).
    let last = if environment_start == end { environment_end } else { end };
    let length = last.checked_sub(start)?;
    (start != 0 && arguments > 1).then_some(Area { start, length })
}

/// The last part of the first argument.
fn program_name() -> String {
    let first = env::args_os().next().unwrap_or_default();
    Path::new(&first).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Copies the environment to memory of its own, for good.
fn move_environment() {
    let copies: Vec<CString> =
        env::vars_os().filter_map(|(name, value)| variable(name, value)).collect();
    let mut pointers: Vec<_> = copies.into_iter().map(CString::into_raw).collect();
    pointers.push(ptr::null_mut());
    // SAFETY: called first in `main`, before threads; the strings and the array are leaked, so they
    // live as long as the process.
    unsafe { environ = pointers.leak().as_mut_ptr() };
}

fn variable(name: OsString, value: OsString) -> Option<CString> {
    let mut variable = name.into_vec();
    variable.push(b'=');
    variable.extend(value.into_vec());
    CString::new(variable).ok()
}

pub(super) fn set(title: &str) -> Support {
    // The name of a thread is cut by the kernel; a title cannot hold NUL.
    let name = CString::new(title.replace('\0', "")).unwrap_or_default();
    let _ = nix::sys::prctl::set_name(&name);
    let area = AREA.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let Some((area, program)) = area.as_ref() else { return Support::none(NO_AREA) };
    // SAFETY: `prepare` found the stretch of the stack where the kernel put arguments and
    // environment: mapped and writable as long as the process lives. The environment has moved; who
    // reads the arguments from now on sees the title, and a NUL behind it.
    let bytes = unsafe {
        slice::from_raw_parts_mut(ptr::with_exposed_provenance_mut::<u8>(area.start), area.length)
    };
    write_title(bytes, &[program.as_bytes(), b": ", name.as_bytes()].concat());
    Support::full("arguments overwritten")
}

/// Fills `bytes` with `title`, cut if need be, and NUL bytes, at least one.
fn write_title(bytes: &mut [u8], title: &[u8]) {
    let fitting = title.len().min(bytes.len().saturating_sub(1));
    let (shown, rest) = bytes.split_at_mut(fitting);
    shown.copy_from_slice(title.get(..fitting).unwrap_or_default());
    rest.fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_found_whatever_the_program_is_called() {
        let numbers: Vec<String> = (3..=52).map(|field| (field * 100).to_string()).collect();
        let numbers = numbers.join(" ").replace("4900 5000 5100", "4900 4900 5100");
        for name in ["(smtpd)", "(a) b (c)", "(\u{fffd})"] {
            let stat = format!("1 {name} {numbers}");
            let area = find_area(stat.as_bytes()).unwrap();
            assert_eq!((area.start, area.length), (4800, 300), "{name}");
        }
        for stat in ["", "1 (smtpd)", "1 (smtpd) S 1 2 3", "1 (smtpd) "] {
            assert!(find_area(stat.as_bytes()).is_none(), "{stat:?}");
        }
    }

    #[test]
    fn a_title_longer_than_its_room_is_cut_and_still_ends() {
        let mut room = *b"smtpd\0-x\0";
        write_title(&mut room, b"keys");
        assert_eq!(&room, b"keys\0\0\0\0\0");
        write_title(&mut room, b"dispatcher");
        assert_eq!(&room, b"dispatch\0");
        write_title(&mut [], b"x");
    }

    // In a child of its own: the title of the test program is left alone.
    #[test]
    fn the_kernel_shows_the_title_and_the_environment_stays() {
        let child = crate::process::run_in_child(|| {
            let before = env::vars_os().count();
            let title = format!("{}: [priv]", program_name());
            let prepared = prepare().is_full() && set("[priv]").is_full();
            let shown = fs::read("/proc/self/cmdline").unwrap_or_default();
            let name = fs::read("/proc/self/comm").unwrap_or_default();
            let shown = shown.split(|byte| *byte == 0).next().unwrap_or_default();
            let right = [prepared, shown == title.as_bytes(), name == b"[priv]\n"];
            i32::from(right != [true; 3] || env::vars_os().count() != before)
        });
        let status = crate::process::wait_for(child.unwrap()).unwrap();
        assert_eq!(status, crate::process::ExitStatus::Exited(0));
    }
}
