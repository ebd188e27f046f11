//! Content in chunks: no cut may change what
//! [`exercise_chunks`](pillarbox::dispatcher::smtp::rehearsal::exercise_chunks) looks at.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::dispatcher::smtp::rehearsal::exercise_chunks;

fuzz_target!(|bytes: &[u8]| {
    if let Err(broken) = exercise_chunks(bytes) {
        panic!("{broken}");
    }
});
