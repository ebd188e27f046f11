//! What administrators write: no bytes may break what
//! [`exercise`](pillarbox::config::rehearsal::exercise) demands of a configuration and of table files.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::config::rehearsal::exercise;

fuzz_target!(|bytes: &[u8]| {
    if let Err(broken) = exercise(bytes) {
        panic!("{broken}");
    }
});
