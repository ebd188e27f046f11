//! Headers of the PROXY protocol: no bytes may break what
//! [`exercise`](pillarbox::proto::proxy::exercise) demands of their reader.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::proto::proxy::exercise;

fuzz_target!(|bytes: &[u8]| {
    if let Err(broken) = exercise(bytes) {
        panic!("{broken}");
    }
});
