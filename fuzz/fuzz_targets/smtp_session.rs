//! What clients send: no bytes may break what
//! [`exercise`](pillarbox::dispatcher::smtp::rehearsal::exercise) demands of a session.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::dispatcher::smtp::rehearsal::exercise;

fuzz_target!(|bytes: &[u8]| {
    if let Err(broken) = exercise(bytes) {
        panic!("{broken}");
    }
});
