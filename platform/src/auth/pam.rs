//! Pluggable authentication modules: Linux-PAM and OpenPAM.
//!
//! The library is loaded at run time. A build then needs no headers of it, programs that never check
//! a password do not have it in their memory, and the same program runs where there is none. The
//! conversation answers exactly one question, with the password; whoever asks a second one (for a
//! code, say) gets none, and the attempt fails. Failures are not delayed here: who holds a
//! connection open is not to hold a process too.
//!
//! Sources: pam(3), pam_start(3), pam_conv(3), pam_fail_delay(3); `_pam_types.h` of Linux-PAM 1.5,
//! `pam_constants.h` of OpenPAM (FreeBSD 14).

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io;
use std::mem;
use std::ptr::{self, NonNull};

use super::{Attempt, Verdict};
use crate::dynamic::Library;

/// Name of the service, as in `/etc/pam.d`.
const SERVICE: &CStr = c"smtpd";
/// Names of the library: Linux, FreeBSD, NetBSD, macOS, and whichever a link says.
const LIBRARIES: [&CStr; 5] =
    [c"libpam.so.0", c"libpam.so.6", c"libpam.so.4", c"libpam.2.dylib", c"libpam.so"];
/// Messages that a module may send at once, on any system.
const MAX_MESSAGES: c_int = 32;

/// Numbers that are the same everywhere.
const SUCCESS: c_int = 0;
const SYSTEM_ERROR: c_int = 4;
const ABORT: c_int = 26;
const ITEM_REMOTE_HOST: c_int = 4;
const PROMPT_ECHO_OFF: c_int = 1;
const PROMPT_ECHO_ON: c_int = 2;
/// `PAM_DISALLOW_NULL_AUTHTOK`: an account without a password is not open to the network.
const DISALLOW_NULL: c_int = 1;

/// Numbers that are not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    silent: c_int,
    conversation_error: c_int,
    information_unavailable: c_int,
    /// `PAM_FAIL_DELAY`, where there is one.
    item_fail_delay: Option<c_int>,
}

/// Linux-PAM.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))] // each system has one of the two
pub(crate) const LINUX_PAM: Dialect = Dialect {
    silent: 0x8000,
    conversation_error: 19,
    information_unavailable: 9,
    item_fail_delay: Some(10),
};

/// OpenPAM.
#[cfg_attr(target_os = "linux", allow(dead_code))] // each system has one of the two
pub(crate) const OPEN_PAM: Dialect = Dialect {
    silent: c_int::MIN,
    conversation_error: 6,
    information_unavailable: 12,
    item_fail_delay: None,
};

/// `struct pam_message`.
#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

/// `struct pam_response`.
#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

type Converse =
    unsafe extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int;

/// `struct pam_conv`.
#[repr(C)]
struct Conversation {
    converse: Converse,
    data: *mut c_void,
}

type Handle = *mut c_void;
type Start =
    unsafe extern "C" fn(*const c_char, *const c_char, *const Conversation, *mut Handle) -> c_int;
type WithNumber = unsafe extern "C" fn(Handle, c_int) -> c_int;
type SetItem = unsafe extern "C" fn(Handle, c_int, *const c_void) -> c_int;
type ErrorText = unsafe extern "C" fn(Handle, c_int) -> *const c_char;

/// The functions of the library.
struct Functions {
    start: Start,
    end: WithNumber,
    set_item: SetItem,
    authenticate: WithNumber,
    manage_account: WithNumber,
    error_text: ErrorText,
}

impl Functions {
    fn of(library: Library) -> Option<Self> {
        let start = library.function(c"pam_start")?;
        let end = library.function(c"pam_end")?;
        let set_item = library.function(c"pam_set_item")?;
        let authenticate = library.function(c"pam_authenticate")?;
        let manage_account = library.function(c"pam_acct_mgmt")?;
        let error_text = library.function(c"pam_strerror")?;
        // SAFETY: these are the signatures of XSSO, which both libraries implement.
        unsafe {
            Some(Self {
                start: mem::transmute::<NonNull<c_void>, Start>(start),
                end: mem::transmute::<NonNull<c_void>, WithNumber>(end),
                set_item: mem::transmute::<NonNull<c_void>, SetItem>(set_item),
                authenticate: mem::transmute::<NonNull<c_void>, WithNumber>(authenticate),
                manage_account: mem::transmute::<NonNull<c_void>, WithNumber>(manage_account),
                error_text: mem::transmute::<NonNull<c_void>, ErrorText>(error_text),
            })
        }
    }
}

/// Checks a password; `None` where there is no PAM.
///
/// # Errors
/// PAM, or what it asks, does not work now; also if it is there and cannot be loaded: what it would
/// have said is not for others to guess.
pub(crate) fn authenticate(dialect: Dialect, attempt: &Attempt<'_>) -> io::Result<Option<Verdict>> {
    let Some(library) = Library::find(&LIBRARIES).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let functions = Functions::of(library)
        .ok_or_else(|| io::Error::other("the library of PAM lacks a function"))?;
    let mut answering = Answering { dialect, password: attempt.password, answered: false };
    let conversation = Conversation { converse, data: (&raw mut answering).cast() };
    let mut handle: Handle = ptr::null_mut();
    // SAFETY: the strings end with NUL; the conversation and what it points to outlive the handle,
    // which ends in this function.
    let started = unsafe {
        (functions.start)(
            SERVICE.as_ptr(),
            attempt.user.as_ptr(),
            &raw const conversation,
            &raw mut handle,
        )
    };
    if started != SUCCESS {
        return Err(io::Error::other(format!("pam_start failed with {started}")));
    }
    let status = attempt_with(&functions, handle, dialect, attempt);
    let result = match status {
        SUCCESS => Ok(Some(Verdict::Accepted)),
        SYSTEM_ERROR | ABORT => Err(explained(&functions, handle, status)),
        unavailable if unavailable == dialect.information_unavailable => {
            Err(explained(&functions, handle, status))
        }
        _ => Ok(Some(Verdict::Rejected)),
    };
    // SAFETY: the handle came from pam_start and is not used again.
    let _ended = unsafe { (functions.end)(handle, status) };
    result
}

fn attempt_with(
    functions: &Functions,
    handle: Handle,
    dialect: Dialect,
    attempt: &Attempt<'_>,
) -> c_int {
    if let Some(remote) = attempt.remote {
        // SAFETY: the handle is live; the library copies the string, which ends with NUL.
        let set = unsafe { (functions.set_item)(handle, ITEM_REMOTE_HOST, remote.as_ptr().cast()) };
        if set != SUCCESS {
            return set;
        }
    }
    if let Some(item) = dialect.item_fail_delay {
        // SAFETY: the item is a function of this signature, which lives as long as the program.
        let set = unsafe { (functions.set_item)(handle, item, no_delay as *const c_void) };
        if set != SUCCESS {
            return set;
        }
    }
    // SAFETY: the handle is live, and the conversation it was started with too.
    let status = unsafe { (functions.authenticate)(handle, dialect.silent | DISALLOW_NULL) };
    if status != SUCCESS {
        return status;
    }
    // SAFETY: as above.
    unsafe { (functions.manage_account)(handle, dialect.silent | DISALLOW_NULL) }
}

fn explained(functions: &Functions, handle: Handle, status: c_int) -> io::Error {
    // SAFETY: the handle is live; the answer is a text of the library's own, or null.
    let text = unsafe {
        let text = (functions.error_text)(handle, status);
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    io::Error::other(text.unwrap_or_else(|| format!("PAM failed with {status}")))
}

/// Takes the place of the library's delay.
unsafe extern "C" fn no_delay(_status: c_int, _microseconds: c_uint, _data: *mut c_void) {}

/// What the conversation knows.
struct Answering<'a> {
    dialect: Dialect,
    password: &'a CStr,
    answered: bool,
}

/// Answers what modules ask; the library frees the answers.
///
/// # Safety
/// `data` points to an [`Answering`]; the rest is as pam_conv(3) says.
unsafe extern "C" fn converse(
    count: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    // SAFETY: it was put there by `authenticate`, which is still running and does not touch it.
    let answering = unsafe { &mut *data.cast::<Answering<'_>>() };
    let failed = answering.dialect.conversation_error;
    let Ok(number) = usize::try_from(count) else { return failed };
    if !(1..=MAX_MESSAGES).contains(&count) || messages.is_null() || responses.is_null() {
        return failed;
    }
    // SAFETY: plain allocation, zeroed: every text is null.
    let answers = unsafe { libc::calloc(number, size_of::<Response>()) }.cast::<Response>();
    if answers.is_null() {
        return failed;
    }
    let mut own = None;
    for index in 0..number {
        // SAFETY: the library passes `count` pointers to messages.
        let style = unsafe { (**messages.add(index)).style };
        if !matches!(style, PROMPT_ECHO_OFF | PROMPT_ECHO_ON) {
            continue;
        }
        let text = match answering.answered {
            true => ptr::null_mut(),
            // SAFETY: the password ends with NUL.
            false => unsafe { libc::strdup(answering.password.as_ptr()) },
        };
        if text.is_null() {
            forget(own, answering.password.count_bytes());
            // SAFETY: it came from calloc, and nobody else knows it.
            unsafe { libc::free(answers.cast()) };
            return failed;
        }
        answering.answered = true;
        own = Some(text);
        // SAFETY: `index` is within what was allocated.
        unsafe { (*answers.add(index)).text = text };
    }
    // SAFETY: the library wants the answers there.
    unsafe { *responses = answers };
    SUCCESS
}

/// Overwrites and frees an answer that is not given after all.
fn forget(text: Option<*mut c_char>, length: usize) {
    let Some(text) = text else { return };
    for index in 0..length {
        // SAFETY: strdup has allocated one byte more than `length`.
        unsafe { ptr::write_volatile(text.add(index), 0) };
    }
    // SAFETY: it came from strdup, and nobody else knows it.
    unsafe { libc::free(text.cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the conversation answers to messages of these styles.
    fn asked(
        answering: &mut Answering<'_>,
        styles: &[c_int],
    ) -> Result<Vec<Option<String>>, c_int> {
        let messages: Vec<Message> =
            styles.iter().map(|style| Message { style: *style, text: c"?".as_ptr() }).collect();
        let mut pointers: Vec<*const Message> = messages.iter().map(ptr::from_ref).collect();
        let mut responses = ptr::null_mut();
        let count = c_int::try_from(styles.len()).unwrap();
        // SAFETY: as the library calls it.
        let status = unsafe {
            converse(
                count,
                pointers.as_mut_ptr(),
                &raw mut responses,
                ptr::from_mut(answering).cast(),
            )
        };
        if status != SUCCESS {
            assert!(responses.is_null());
            return Err(status);
        }
        let texts = (0..styles.len()).map(|index| {
            // SAFETY: the conversation has allocated as many.
            let text = unsafe { (*responses.add(index)).text };
            // SAFETY: a text ends with NUL.
            let copy = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) });
            let copy = copy.map(|text| text.to_str().unwrap().to_owned());
            forget((!text.is_null()).then_some(text), copy.as_ref().map_or(0, String::len));
            copy
        });
        let texts = texts.collect();
        // SAFETY: it came from calloc.
        unsafe { libc::free(responses.cast()) };
        Ok(texts)
    }

    #[test]
    fn one_question_is_answered_and_remarks_are_not() {
        const ERROR: c_int = 3;
        const INFORMATION: c_int = 4;
        for prompt in [PROMPT_ECHO_OFF, PROMPT_ECHO_ON] {
            let mut answering =
                Answering { dialect: LINUX_PAM, password: c"secret", answered: false };
            assert_eq!(asked(&mut answering, &[INFORMATION]), Ok(vec![None]));
            let both = asked(&mut answering, &[ERROR, prompt]);
            assert_eq!(both, Ok(vec![None, Some("secret".to_owned())]));
            assert_eq!(asked(&mut answering, &[ERROR]), Ok(vec![None]));
            assert_eq!(asked(&mut answering, &[prompt]), Err(19));
        }
        for (dialect, error) in [(LINUX_PAM, 19), (OPEN_PAM, 6)] {
            let mut answering = Answering { dialect, password: c"secret", answered: false };
            let two = asked(&mut answering, &[PROMPT_ECHO_OFF, PROMPT_ECHO_OFF]);
            assert_eq!(two, Err(error));
            let mut answering = Answering { dialect, password: c"secret", answered: false };
            assert_eq!(asked(&mut answering, &[]), Err(error));
            assert_eq!(asked(&mut answering, &[4; 33]), Err(error));
        }
    }
}
