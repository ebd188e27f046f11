//! Names that no other delivery has.

use std::time::SystemTime;

/// 128 random bits.
///
/// Where the system has none to give, process and moment: files named by them are made exclusively
/// anyhow.
#[must_use]
pub fn unique() -> [u8; 16] {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        let moment = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        bytes = ((u128::from(std::process::id()) << 96) ^ moment).to_be_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_are_never_alike() {
        assert_ne!(unique(), unique());
    }
}
