//! Tests of the whole store, with its threads, on the real file system.

use std::num::NonZeroU32;
use std::sync::mpsc;
use std::time::Duration;

use super::super::store::MAX_INLINE;
use super::*;

/// Sends a completion's value back to the test.
fn wait<T: Send + 'static>(call: impl FnOnce(Completion<T>)) -> Result<T, StoreError> {
    let (sender, receiver) = mpsc::channel();
    call(Box::new(move |result| sender.send(result).unwrap()));
    receiver.recv_timeout(Duration::from_secs(20)).unwrap()
}

fn open(path: &std::path::Path) -> Box<LogStore> {
    let options = Options { free_percent: 0, ..Options::default() };
    let dir = Dir::open(path).unwrap();
    Box::new(LogStore::open(&dir, options, |_| {}).unwrap())
}

fn lease(store: &mut LogStore, count: usize) -> Vec<MessageId> {
    wait(|done| store.lease_ids(count, done)).unwrap()
}

fn commit(
    store: &mut LogStore,
    message: MessageId,
    body: Body,
    payloads: &[&[u8]],
) -> Result<Vec<EnvelopeId>, StoreError> {
    let envelopes: Vec<_> = payloads
        .iter()
        .zip(1..)
        .map(|(payload, low)| NewEnvelope {
            id: message.envelope(NonZeroU32::new(low).unwrap()),
            payload: payload.to_vec(),
        })
        .collect();
    let ids = envelopes.iter().map(|new| new.id).collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    wait(|done| store.commit(Commit { message, body, envelopes, deadline }, done))?;
    Ok(ids)
}

fn all(store: &mut LogStore) -> Vec<StoredEnvelope> {
    let mut cursor = Some(Cursor::start());
    let mut found = Vec::new();
    while let Some(from) = cursor.take() {
        let page = wait(|done| store.iterate(from, 3, done)).unwrap();
        found.extend(page.envelopes);
        cursor = page.next;
    }
    found.sort_by_key(|envelope| envelope.id);
    found
}

#[test]
fn a_message_is_stored_read_updated_and_ended_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let message = lease(&mut store, 1)[0];
    let body = Body::Inline(b"Subject: a\n\nb\n".to_vec());
    let ids = commit(&mut store, message, body, &[b"one", b"two", b"three"]).unwrap();
    wait(|done| store.update(ids[1], b"two again".to_vec(), done)).unwrap();
    wait(|done| store.hold(ids[2], true, done)).unwrap();
    store.done(ids[0]);
    store.shutdown();

    let mut store = open(dir.path());
    let found = all(&mut store);
    let seen: Vec<_> = found.iter().map(|e| (e.id, &e.payload[..], e.held)).collect();
    assert_eq!(seen, [(ids[1], &b"two again"[..], false), (ids[2], b"three", true)]);
    assert!(store.known(ids[1]) && !store.known(ids[0]));
    match wait(|done| store.load_body(message, done)).unwrap() {
        StoredBody::Inline(body) => assert_eq!(body, b"Subject: a\n\nb\n"),
        StoredBody::Large { .. } => panic!("small body became large"),
    }
    let bounce = NewEnvelope {
        id: message.envelope(NonZeroU32::new(9).unwrap()),
        payload: b"bounce".to_vec(),
    };
    wait(|done| store.replace(ids[1], vec![bounce.clone()], done)).unwrap();
    wait(|done| store.remove(ids[2], done)).unwrap();
    assert_eq!(all(&mut store).len(), 1);
    wait(|done| store.remove(bounce.id, done)).unwrap();
    let gone = wait(|done| store.load_body(message, done));
    assert!(matches!(gone, Err(StoreError::NotFound)));
    store.shutdown();
    assert!(all(&mut open(dir.path())).is_empty());
}

#[test]
fn an_envelope_is_extended_whole_or_not_at_all_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let message = lease(&mut store, 1)[0];
    let ids = commit(&mut store, message, Body::Inline(Vec::new()), &[b"one"]).unwrap();
    let new = |low: u32, payload: &[u8]| NewEnvelope {
        id: message.envelope(NonZeroU32::new(low).unwrap()),
        payload: payload.to_vec(),
    };
    wait(|done| store.hold(ids[0], true, done)).unwrap();
    wait(|done| store.extend(new(1, b"later"), vec![new(2, b"report")], done)).unwrap();
    let known = wait(|done| store.extend(new(1, b"x"), vec![new(2, b"x")], done));
    assert!(matches!(known, Err(StoreError::Duplicate)), "{known:?}");
    let same = wait(|done| store.extend(new(1, b"x"), vec![new(1, b"x")], done));
    assert!(matches!(same, Err(StoreError::Duplicate)), "{same:?}");
    let gone = wait(|done| store.extend(new(8, b"x"), vec![new(9, b"x")], done));
    assert!(matches!(gone, Err(StoreError::NotFound)), "{gone:?}");
    // Requests on one envelope are carried out in their order, whatever batch they fall into.
    store.update(ids[0], b"again".to_vec(), Box::new(|_| {}));
    wait(|done| store.extend(new(1, b"last"), vec![new(3, b"second")], done)).unwrap();
    store.shutdown();

    let mut store = open(dir.path());
    let found = all(&mut store);
    let seen: Vec<_> = found.iter().map(|e| (e.id, &e.payload[..], e.held)).collect();
    let [second, third] = [new(2, b"").id, new(3, b"").id];
    let expected =
        [(ids[0], &b"last"[..], true), (second, b"report", false), (third, b"second", false)];
    assert_eq!(seen, expected);
}

#[test]
fn a_large_body_is_a_file_and_goes_with_its_message() {
    use std::io::{Read as _, Write as _};
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let ids = lease(&mut store, 2);
    let text = b"0123456789abcde\n".repeat(20_000);
    let mut writer = wait(|done| store.open_large(ids[0], done)).unwrap();
    writer.file.write_all(&text).unwrap();
    let body = Body::Large { ticket: writer.ticket, size: text.len() as u64 };
    let envelopes = commit(&mut store, ids[0], body, &[b"x"]).unwrap();

    let short = wait(|done| store.open_large(ids[1], done)).unwrap();
    let body = Body::Large { ticket: short.ticket, size: 5 };
    assert!(matches!(commit(&mut store, ids[1], body, &[b"y"]), Err(StoreError::Io(_))));
    store.shutdown();

    let mut store = open(dir.path());
    match wait(|done| store.load_body(ids[0], done)).unwrap() {
        StoredBody::Large { mut file, size } => {
            let mut read = Vec::new();
            file.read_to_end(&mut read).unwrap();
            assert_eq!((read.len() as u64, read == text), (size, true));
            assert!(file.write_all(b"x").is_err(), "read-only");
        }
        StoredBody::Inline(_) => panic!("large body became small"),
    }
    wait(|done| store.remove(envelopes[0], done)).unwrap();
    store.shutdown();
    assert_eq!(std::fs::read_dir(dir.path().join("large")).unwrap().count(), 0);
}

#[test]
fn limits_are_checked_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let message = lease(&mut store, 1)[0];
    let inline = |length| Body::Inline(vec![b'x'; length]);
    let long = vec![0; super::super::store::MAX_PAYLOAD + 1];
    let refused = commit(&mut store, message, inline(MAX_INLINE + 1), &[b"x"]);
    assert!(matches!(refused, Err(StoreError::TooLarge)));
    let refused = commit(&mut store, message, inline(1), &[&long]);
    assert!(matches!(refused, Err(StoreError::TooLarge)));
    assert!(matches!(commit(&mut store, message, inline(1), &[]), Err(StoreError::NotFound)));
    commit(&mut store, message, inline(MAX_INLINE), &[b"x"]).unwrap();
    let again = commit(&mut store, message, inline(1), &[b"x"]);
    assert!(matches!(again, Err(StoreError::Duplicate)));
}

#[test]
fn a_commit_past_its_deadline_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let message = lease(&mut store, 1)[0];
    let envelope = NewEnvelope { id: message.envelope(NonZeroU32::MIN), payload: Vec::new() };
    let commit = Commit {
        message,
        body: Body::Inline(Vec::new()),
        envelopes: vec![envelope],
        deadline: Instant::now(),
    };
    let late = wait(|done| store.commit(commit, done));
    assert!(matches!(late, Err(StoreError::Expired)));
    assert!(all(&mut store).is_empty());
}

#[test]
fn a_spool_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let root = Dir::open(dir.path()).unwrap();
    let second = LogStore::open(&root, Options::default(), |_| {});
    assert!(matches!(second, Err(StoreError::Locked)));
    drop(store);
    assert!(LogStore::open(&root, Options::default(), |_| {}).is_ok());
}

#[test]
fn leased_ids_are_unlike_stored_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let first = lease(&mut store, 300);
    for id in first.iter().take(20) {
        commit(&mut store, *id, Body::Inline(Vec::new()), &[b"x"]).unwrap();
    }
    let second = lease(&mut store, 300);
    let all: BTreeSet<_> = first.iter().chain(&second).collect();
    assert_eq!(all.len(), 600);
}

#[test]
fn a_newer_spool_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let log = dir.path().join("log");
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(&log).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let segment = names().into_iter().find(|n| n.to_string_lossy().ends_with("seg")).unwrap();
    let mut bytes = std::fs::read(log.join(&segment)).unwrap();
    bytes[8] = 9;
    let sum = record::crc(0, &bytes[..80]);
    bytes[80..84].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(log.join(&segment), &bytes).unwrap();
    let before = names();
    let (sender, receiver) = mpsc::channel();
    let root = Dir::open(dir.path()).unwrap();
    let mut store =
        LogStore::open(&root, Options::default(), move |event| sender.send(event).unwrap())
            .unwrap();
    let event = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(matches!(&event, Event::Unusable(text) if text.contains("version 9")), "{event:?}");
    assert!(matches!(wait(|done| store.lease_ids(1, done)), Err(StoreError::Closed)));
    drop(store);
    assert_eq!(names(), before);
}

#[test]
fn commits_that_come_together_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let ids = lease(&mut store, 500);
    let (sender, receiver) = mpsc::channel();
    for message in &ids {
        let id = message.envelope(NonZeroU32::MIN);
        let commit = Commit {
            message: *message,
            body: Body::Inline(vec![b'x'; 500]),
            envelopes: vec![NewEnvelope { id, payload: vec![1; 100] }],
            deadline: Instant::now() + Duration::from_secs(30),
        };
        let sender = sender.clone();
        store.commit(commit, Box::new(move |result| sender.send(result).unwrap()));
    }
    for _ in &ids {
        receiver.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    }
    let figures = store.statistics();
    assert_eq!((figures.messages, figures.envelopes), (500, 500));
    assert!(figures.batches < 500, "{figures:?}");
}

#[test]
fn a_body_damaged_after_its_segment_was_sealed_is_put_aside_when_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let message = lease(&mut store, 1)[0];
    let text = b"find me in the segment".to_vec();
    commit(&mut store, message, Body::Inline(text.clone()), &[b"x"]).unwrap();
    store.shutdown();
    let damaged = std::fs::read_dir(dir.path().join("log")).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(text.len()).position(|window| window == text);
        found.is_some_and(|at| {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).is_ok()
        })
    });
    assert!(damaged);

    let (sender, receiver) = mpsc::channel();
    let options = Options { free_percent: 0, ..Options::default() };
    let root = Dir::open(dir.path()).unwrap();
    let mut store = LogStore::open(&root, options, move |event| {
        if let Event::Quarantined { id, .. } = event {
            sender.send(id).unwrap();
        }
    })
    .unwrap();
    for _ in 0..2 {
        let read = wait(|done| store.load_body(message, done));
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    }
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [message.to_string()], "said once");
    assert!(dir.path().join("corrupt").join(message.to_string()).exists());
}
