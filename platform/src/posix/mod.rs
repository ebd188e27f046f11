//! What several systems share. A system's file picks from here; nothing here is called directly.

#[cfg(not(target_os = "macos"))]
pub(crate) mod atomic;
#[cfg(not(target_os = "linux"))]
pub(crate) mod bsd;
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub(crate) mod closefrom;
#[cfg(not(any(target_os = "macos", target_os = "netbsd")))]
pub(crate) mod saved_ids;
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub(crate) mod setproctitle;
#[cfg(any(target_os = "macos", target_os = "netbsd"))]
pub(crate) mod two_ids;
