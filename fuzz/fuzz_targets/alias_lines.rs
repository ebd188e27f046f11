//! What users and administrators write into aliases, `.forward` files and included lists: no bytes
//! may break the reader, and an item that was read must be read again from how it is written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::lookup::{aliases, lines};

fuzz_target!(|bytes: &[u8]| {
    let (items, wrong) = lines::included(bytes);
    // Both kinds of files have the same lines; one counts as a whole, the other line by line.
    match lines::forward(bytes) {
        Ok(forward) => assert_eq!((&forward, wrong.len()), (&items, 0)),
        Err(bad) => assert_eq!(Some(&bad), wrong.first()),
    }
    for item in items {
        let text = item.to_string();
        if text.len() <= aliases::MAX_VALUE {
            assert_eq!(aliases::parse(&text), Ok(vec![item.clone()]), "{text:?}");
            assert_eq!(lines::forward(text.as_bytes()), Ok(vec![item]), "{text:?}");
        }
    }
});
