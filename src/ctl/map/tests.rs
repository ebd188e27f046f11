//! What `makemap` leaves behind.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;
use crate::spec_case;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn dumped(map: &Path) -> String {
    let mut output = Vec::new();
    dump(map, &mut output).unwrap();
    String::from_utf8(output).unwrap()
}

#[test]
fn a_map_holds_what_its_source_says_and_looks_like_it() {
    let directory = directory();
    let (source, map) = (directory.path().join("m"), directory.path().join("m.db"));
    fs::write(&source, "# c\nFoo: bar baz\nabc def # x\n").unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(build(Kind::Plain, &Input::File(source.clone()), &map).unwrap(), 2);
    assert_eq!(dumped(&map), "abc\tdef # x\nfoo\tbar baz\n");
    let (from, made) = (fs::metadata(&source).unwrap(), fs::metadata(&map).unwrap());
    assert_eq!((made.mode(), made.uid()), (from.mode(), from.uid()));
    // Nothing else is left.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    spec_case::ran("queue", 197);
}

#[test]
fn a_wrong_source_leaves_the_old_map() {
    let directory = directory();
    let (source, map) = (directory.path().join("m"), directory.path().join("m.db"));
    let input = Input::File(source.clone());
    fs::write(&source, "foo: a\nFOO: b\n").unwrap();
    let error = build(Kind::Plain, &input, &map).unwrap_err().to_string();
    assert_eq!(error, format!("{}:2: duplicate entry for foo", source.display()));
    assert!(!map.exists());
    fs::write(&source, "foo: a\n").unwrap();
    build(Kind::Plain, &input, &map).unwrap();
    fs::write(&source, "foo\n").unwrap();
    build(Kind::Plain, &input, &map).unwrap_err();
    assert_eq!(dumped(&map), "foo\ta\n");
    spec_case::ran("queue", 198);
}

#[test]
fn sets_are_marked_as_such() {
    let directory = directory();
    let (source, map) = (directory.path().join("m"), directory.path().join("m.db"));
    fs::write(&source, "one\nTwo\n").unwrap();
    build(Kind::Set, &Input::File(source), &map).unwrap();
    assert_eq!(dumped(&map), "one\t<set>\ntwo\t<set>\n");
    spec_case::ran("queue", 199);
}

#[test]
fn a_source_that_somebody_writes_is_left_alone() {
    let directory = directory();
    let (source, map) = (directory.path().join("m"), directory.path().join("m.db"));
    fs::write(&source, "a: b\n").unwrap();
    let writer = File::open(&source).unwrap();
    writer.lock().unwrap();
    let error = build(Kind::Plain, &Input::File(source.clone()), &map).unwrap_err();
    assert_eq!(error.to_string(), format!("{} is locked", source.display()));
}

#[test]
fn a_file_of_berkeley_db_is_not_dumped() {
    let directory = directory();
    let map = directory.path().join("old.db");
    let mut bytes = vec![0; 4096];
    bytes[12..16].copy_from_slice(&0x0006_1561_u32.to_le_bytes());
    fs::write(&map, bytes).unwrap();
    let error = dump(&map, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("a Berkeley DB file"), "{error}");
}
