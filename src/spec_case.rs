//! Which numbered cases of the specification a test run has been through.
//!
//! A test that proves a numbered case says so with [`ran`] after its assertions. With
//! `PILLARBOX_SPEC_CASES` set to a directory, each said case leaves an empty file `PAGE/NUMBER`
//! there; `ci/test` counts them and names those that no test went through. Without it nothing is
//! written. Number 0 stands for what a test adds of its own.

use std::fs;
use std::path::Path;

/// Notes that the case with this number of a page (`config`, `smtp`, `queue`) has passed.
///
/// # Panics
/// The note cannot be written: a count that lost cases would be believed.
pub fn ran(page: &str, number: u32) {
    if number == 0 {
        return;
    }
    let Some(directory) = std::env::var_os("PILLARBOX_SPEC_CASES") else { return };
    let directory = Path::new(&directory).join(page);
    let noted = fs::create_dir_all(&directory)
        .and_then(|()| fs::write(directory.join(number.to_string()), b""));
    assert!(noted.is_ok(), "{}: {noted:?}", directory.display());
}
