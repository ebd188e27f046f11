//! Texts of tables and relay URLs: no bytes may break what
//! [`exercise`](pillarbox::table::rehearsal::exercise) demands of them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::table::rehearsal::exercise;

fuzz_target!(|bytes: &[u8]| {
    if let Err(broken) = exercise(bytes) {
        panic!("{broken}");
    }
});
