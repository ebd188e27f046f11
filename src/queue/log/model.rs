//! A log on a simulated disk, and a model of what it promised.
//!
//! Promised is: no acknowledged message is lost; none is delivered again whose end was durable;
//! none appears that was not acknowledged or being written; a commit comes whole or not at all; of
//! an envelope and its replacement there is exactly one; of a new payload and the envelope that
//! begins with it both or neither; payloads and bodies are what was stored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use platform::dir::Access;

use super::disk::{Disk, Folder};
use super::engine::{Log, Options, lock};
use super::keeper::{Job, checksum, finish_large, perform};
use super::op::{Answer, LogBody, Op};
use super::place::EnvelopePlace;
use super::record::large_name;
use super::sim::{Random, SimDisk};
use super::state::State;
use crate::model::id::{EnvelopeId, MessageId};
use crate::queue::store::{Completion, NewEnvelope, StoreError};

const OPTIONS: Options =
    Options { smallest_segment: 14 << 10, largest_segment: 28 << 10, free_percent: 5 };

/// Everything about one envelope that was asked for or promised.
#[derive(Clone, Debug, Default)]
pub(super) struct Promise {
    /// Payload versions that it may have.
    versions: BTreeSet<u8>,
    /// Holds that it may have, by the order in which they were asked for.
    held: BTreeMap<u32, bool>,
    begun: bool,
    /// The request in which it begins was refused, durably.
    void: bool,
    end_asked: bool,
    ended: bool,
    /// The envelope that it takes the place of.
    replaces: Option<EnvelopeId>,
    /// The envelope with whose payload of this version it begins.
    extends: Option<(EnvelopeId, u8)>,
}

/// What a completion said, for the model to learn.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Committed(MessageId),
    Ended(EnvelopeId),
    Extended(EnvelopeId, u8, EnvelopeId),
    Held(EnvelopeId, u32),
    Refused(MessageId, StoreError),
    Replaced(EnvelopeId, EnvelopeId),
    Updated(EnvelopeId, u8),
}

fn payload(id: EnvelopeId, version: u8) -> Vec<u8> {
    let length = (id.get() as usize * 7 + usize::from(version) * 13) % 90;
    let mut bytes = vec![version; length + 1];
    bytes.extend_from_slice(&id.get().to_le_bytes());
    bytes
}

fn body(id: MessageId) -> Vec<u8> {
    let length = id.get() as usize * 37 % 700;
    id.get().to_le_bytes().iter().copied().cycle().take(length).collect()
}

fn is_large(id: MessageId) -> bool {
    id.get().is_multiple_of(5)
}

/// A log being tried, its disk, and what was promised.
pub(super) struct Trial {
    pub disk: SimDisk,
    pub log: Log,
    pub queue: VecDeque<Op>,
    pub jobs: Vec<Job>,
    pub said: Arc<Mutex<Vec<Said>>>,
    pub promises: BTreeMap<EnvelopeId, Promise>,
    pub next_message: u32,
    pub next_low: u32,
    pub now: Instant,
}

/// Opens a log; `salt` makes its incarnations differ from others.
pub(super) fn opened(disk: &SimDisk, salt: u128) -> Result<Log, StoreError> {
    let mut number = salt << 64;
    let entropy = Box::new(move || {
        number += 1;
        number
    });
    let state = Arc::new(Mutex::new(State::new()));
    Log::open(Arc::new(disk.clone()), OPTIONS, entropy, state)
}

impl Trial {
    pub(super) fn new() -> Self {
        let disk = SimDisk::new();
        let log = opened(&disk, 1).unwrap();
        Self {
            disk,
            log,
            queue: VecDeque::new(),
            jobs: Vec::new(),
            said: Arc::default(),
            promises: BTreeMap::new(),
            next_message: 1,
            next_low: 1,
            now: Instant::now(),
        }
    }

    pub(super) fn completion(&self, said: Said) -> Completion<()> {
        let list = Arc::clone(&self.said);
        Box::new(move |result| {
            if result.is_ok() {
                list.lock().unwrap().push(said);
            }
        })
    }

    pub(super) fn new_envelope(&mut self, message: MessageId) -> NewEnvelope {
        let id = message.envelope(NonZeroU32::new(self.next_low).unwrap());
        self.next_low += 1;
        let promise = Promise {
            versions: BTreeSet::from([0]),
            held: BTreeMap::from([(0, false)]),
            ..Promise::default()
        };
        self.promises.insert(id, promise);
        NewEnvelope { id, payload: payload(id, 0) }
    }

    pub(super) fn commit(&mut self, envelopes: usize) {
        let message = MessageId::new(self.next_message).unwrap();
        self.next_message += 1;
        let large = if is_large(message) { self.large(message) } else { None };
        if is_large(message) && large.is_none() {
            return;
        }
        let bytes = body(message);
        let body = large.unwrap_or(LogBody::Inline(bytes));
        let envelopes = (0..envelopes).map(|_| self.new_envelope(message)).collect();
        let list = Arc::clone(&self.said);
        let answer = Answer::new(Box::new(move |result| {
            list.lock().unwrap().push(match result {
                Ok(()) => Said::Committed(message),
                Err(error) => Said::Refused(message, error),
            });
        }));
        let deadline = self.now + Duration::from_secs(30);
        self.queue.push_back(Op::Commit { message, body, envelopes, deadline, answer });
    }

    /// Writes a large body as a session would; `None` if the disk did not let it.
    pub(super) fn large(&self, message: MessageId) -> Option<LogBody> {
        let sequence = u64::from(message.get());
        let name = large_name(message, sequence);
        let file = self.disk.open(Folder::Large, &name, Access::Create).ok()?;
        let bytes = body(message);
        file.write_at(&bytes, 0).ok()?;
        let size = bytes.len() as u64;
        finish_large(&self.disk, message, sequence, size).ok().map(LogBody::Large)
    }

    /// Envelopes that were acknowledged and nobody asked to end.
    pub(super) fn living(&self) -> Vec<EnvelopeId> {
        let living = |promise: &Promise| promise.begun && !promise.end_asked;
        self.promises.iter().filter(|(_, p)| living(p)).map(|(id, _)| *id).collect()
    }

    pub(super) fn pick(&self, random: &mut Random) -> Option<EnvelopeId> {
        let living = self.living();
        living.get(random.below(living.len() as u64) as usize).copied()
    }

    pub(super) fn end(&mut self, id: EnvelopeId, asked: bool) {
        self.promises.get_mut(&id).unwrap().end_asked = true;
        let done = asked.then(|| self.completion(Said::Ended(id)));
        self.queue.push_back(Op::End { envelope: id, done });
    }

    fn next_version(&mut self, id: EnvelopeId) -> u8 {
        let promise = self.promises.get_mut(&id).unwrap();
        let version = promise.versions.last().unwrap().wrapping_add(1);
        promise.versions.insert(version);
        version
    }

    pub(super) fn extend(&mut self, id: EnvelopeId) {
        let version = self.next_version(id);
        let new = self.new_envelope(id.message());
        self.promises.get_mut(&new.id).unwrap().extends = Some((id, version));
        let done = self.completion(Said::Extended(id, version, new.id));
        let update = NewEnvelope { id, payload: payload(id, version) };
        self.queue.push_back(Op::Extend { update, new: vec![new], done });
    }

    pub(super) fn update(&mut self, id: EnvelopeId) {
        let version = self.next_version(id);
        let done = self.completion(Said::Updated(id, version));
        self.queue.push_back(Op::Update { envelope: id, payload: payload(id, version), done });
    }

    pub(super) fn hold(&mut self, id: EnvelopeId, held: bool) {
        let asked = &mut self.promises.get_mut(&id).unwrap().held;
        let number = asked.last_key_value().map_or(0, |(number, _)| number + 1);
        asked.insert(number, held);
        let done = self.completion(Said::Held(id, number));
        self.queue.push_back(Op::Hold { envelope: id, held, done });
    }

    pub(super) fn replace(&mut self, end: EnvelopeId) {
        self.promises.get_mut(&end).unwrap().end_asked = true;
        let new = self.new_envelope(end.message());
        self.promises.get_mut(&new.id).unwrap().replaces = Some(end);
        let done = self.completion(Said::Replaced(end, new.id));
        self.queue.push_back(Op::Replace { end, new: vec![new], done });
    }

    /// One turn of the log thread.
    pub(super) fn write(&mut self) {
        self.now += Duration::from_millis(10);
        while self.log.write(&mut self.queue, self.now) {
            self.learn();
        }
        self.learn();
        self.log.maintain();
        self.jobs.extend(self.log.take_jobs());
        self.log.take_events();
    }

    pub(super) fn clean(&mut self) {
        if self.log.can_clean() {
            self.log.clean_step();
        }
        self.learn();
        self.jobs.extend(self.log.take_jobs());
    }

    /// Does one of the jobs that wait, whichever.
    pub(super) fn job(&mut self, random: &mut Random) {
        if self.jobs.is_empty() {
            return;
        }
        let job = self.jobs.swap_remove(random.below(self.jobs.len() as u64) as usize);
        self.log.report(perform(&self.disk, job));
        self.jobs.extend(self.log.take_jobs());
    }

    pub(super) fn tick(&mut self) {
        self.now += Duration::from_secs(1);
        self.log.tick(self.now);
        self.jobs.extend(self.log.take_jobs());
    }

    /// Everything that can be done without new requests.
    pub(super) fn settle(&mut self, random: &mut Random) {
        for _ in 0..40 {
            self.write();
            while !self.jobs.is_empty() {
                self.job(random);
            }
            self.clean();
            self.tick();
        }
    }

    /// Takes in what completions said, unless the power was off by then.
    pub(super) fn learn(&mut self) {
        let said = std::mem::take(&mut *self.said.lock().unwrap());
        if self.disk.is_off() {
            return;
        }
        for one in said {
            match one {
                Said::Committed(message) => {
                    for (_, promise) in of_message(&mut self.promises, message) {
                        promise.begun = true;
                    }
                }
                Said::Refused(message, error) => {
                    // Without a durable cancellation it may still appear.
                    let void = self.log.cancels.is_empty();
                    assert!(!matches!(error, StoreError::Duplicate | StoreError::TooLarge));
                    for (_, promise) in of_message(&mut self.promises, message) {
                        promise.void = void;
                    }
                }
                Said::Ended(id) => self.promises.get_mut(&id).unwrap().ended = true,
                Said::Extended(id, version, new) => {
                    let versions = &mut self.promises.get_mut(&id).unwrap().versions;
                    versions.retain(|other| *other >= version);
                    self.promises.get_mut(&new).unwrap().begun = true;
                }
                Said::Updated(id, version) => {
                    let versions = &mut self.promises.get_mut(&id).unwrap().versions;
                    versions.retain(|other| *other >= version);
                }
                Said::Held(id, number) => {
                    let held = &mut self.promises.get_mut(&id).unwrap().held;
                    held.retain(|other, _| *other >= number);
                }
                Said::Replaced(end, new) => {
                    self.promises.get_mut(&end).unwrap().ended = true;
                    self.promises.get_mut(&new).unwrap().begun = true;
                }
            }
        }
        // An end without a completion is durable once the state has taken it in.
        let state = lock(&self.log.state);
        for (id, promise) in &mut self.promises {
            if promise.begun && promise.end_asked && state.envelope(*id).is_none() {
                promise.ended = true;
            }
        }
    }

    /// Compares a log with what was promised.
    pub(super) fn check(&self, log: &Log, case: &str) {
        let live: BTreeSet<EnvelopeId> = {
            let state = lock(&log.state);
            state.all_envelopes().filter_map(EnvelopePlace::id).collect()
        };
        for id in &live {
            let Some(promise) = self.promises.get(id) else {
                panic!("{case}: {id} appeared from nowhere");
            };
            assert!(!promise.ended, "{case}: {id} ended durably and is back");
            assert!(!promise.void, "{case}: {id} was refused and is there");
            let stored = log.payload(*id).unwrap_or_else(|error| panic!("{case}: {id}: {error}"));
            let version = stored.first().copied().unwrap();
            assert_eq!(stored, payload(*id, version), "{case}: {id}");
            assert!(promise.versions.contains(&version), "{case}: {id}: payload {version}");
            let held = lock(&log.state).envelope(*id).is_some_and(EnvelopePlace::held);
            assert!(promise.held.values().any(|may| *may == held), "{case}: {id}: held {held}");
        }
        for (id, promise) in &self.promises {
            if promise.begun && !promise.end_asked {
                assert!(live.contains(id), "{case}: {id} is lost: {promise:?}");
            }
            if let Some(old) = promise.replaces.filter(|_| !promise.begun && !promise.void) {
                let asked_otherwise = self.promises[&old].ended;
                let count = usize::from(live.contains(id)) + usize::from(live.contains(&old));
                assert!(count == 1 || asked_otherwise, "{case}: {old} and {id}: {count} are there");
            }
        }
        self.check_extensions(log, &live, case);
        let messages: BTreeSet<MessageId> = self.promises.keys().map(|id| id.message()).collect();
        for message in messages {
            self.check_message(log, message, &live, case);
        }
    }

    /// An envelope that began with another's new payload is there if that payload was ever stored.
    fn check_extensions(&self, log: &Log, live: &BTreeSet<EnvelopeId>, case: &str) {
        for (id, promise) in &self.promises {
            let Some((old, version)) = promise.extends.filter(|_| !promise.void) else { continue };
            let Some(stored) = log.payload(old).ok().and_then(|bytes| bytes.first().copied())
            else {
                continue;
            };
            if stored == version && !promise.end_asked {
                assert!(live.contains(id), "{case}: {old} has payload {version} without {id}");
            }
            if live.contains(id) {
                assert!(stored >= version, "{case}: {id} without payload {version} of {old}");
            }
        }
    }

    pub(super) fn check_message(
        &self,
        log: &Log,
        message: MessageId,
        live: &BTreeSet<EnvelopeId>,
        case: &str,
    ) {
        let of = |id: &&EnvelopeId| id.message() == message;
        let count = live.iter().filter(of).count();
        let pending = self.promises.iter().filter(|(id, _)| of(id));
        let (all, unacknowledged) = pending.fold((0, 0), |(all, unacknowledged), (_, promise)| {
            let plain = !promise.begun
                && !promise.end_asked
                && promise.replaces.is_none()
                && promise.extends.is_none();
            (all + 1, unacknowledged + usize::from(plain))
        });
        if unacknowledged == all {
            assert!(count == 0 || count == all, "{case}: {message}: {count} of {all} are there");
        }
        if count == 0 {
            return;
        }
        let (file, place, large) = {
            let state = lock(&log.state);
            let place = *state.message(message).unwrap();
            let file = state.segment(place.segment).unwrap().file.clone().unwrap();
            (file, place, state.large(message))
        };
        assert_eq!(place.envelopes() as usize, count, "{case}: {message}");
        if is_large(message) {
            let (large, _) = large.unwrap_or_else(|| panic!("{case}: {message}: no reference"));
            let name = large_name(message, large.sequence);
            let disk = &log.disk;
            let file = disk.open(Folder::Large, &name, Access::Read);
            let file = file.unwrap_or_else(|error| panic!("{case}: {message}: {error}"));
            assert_eq!(checksum(&*file).unwrap(), large.crc, "{case}: {message}");
        } else {
            let (_, found) = file.body(place.offset(), place.body_length()).unwrap().unwrap();
            assert_eq!(found, body(message), "{case}: {message}");
        }
    }

    /// Takes what a recovered log holds for what was promised: requests that were under way have
    /// happened or not.
    pub(super) fn accept(&mut self, disk: SimDisk, log: Log) {
        let state = lock(&log.state);
        for (id, promise) in &mut self.promises {
            let place = state.envelope(*id);
            match place {
                Some(place) => {
                    promise.begun = true;
                    promise.end_asked = false;
                    promise.held = BTreeMap::from([(0, place.held())]);
                }
                None if promise.begun => {
                    promise.end_asked = true;
                    promise.ended = true;
                }
                None => promise.void = true,
            }
        }
        drop(state);
        for (id, promise) in &mut self.promises {
            if let Ok(stored) = log.payload(*id) {
                promise.versions = BTreeSet::from([stored[0]]);
            }
        }
        self.queue.clear();
        self.jobs.clear();
        self.said = Arc::default();
        self.disk = disk;
        self.log = log;
        self.jobs.extend(self.log.take_jobs());
    }
}

fn of_message(
    promises: &mut BTreeMap<EnvelopeId, Promise>,
    message: MessageId,
) -> impl Iterator<Item = (&EnvelopeId, &mut Promise)> {
    promises.iter_mut().filter(move |(id, _)| id.message() == message)
}
