//! The run queue: what is due, what is in flight, what becomes of it.
//!
//! Every envelope is in exactly one place ([`Place`]). Those that wait for a time have a timer;
//! those that are ready keep one for their expiry, so that an envelope whose turn does not come
//! (a paused kind, no credits) still ends at its time. Nothing is forgotten before its outcome is
//! told, and an envelope in flight is released again only after its failure is told.
//!
//! Every operation costs the logarithm of the number of envelopes or less. An envelope takes at
//! most 200 bytes, names of destinations apart.
//!
//! Sources: the queue page of the specification, 1.13 and 2.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::EnvelopeId;

use super::allowance::Allowance;
use super::backoff::{self, OVERFLOW_BASE};
use super::clock::{Reading, Seconds, TimeLine};
use super::destination::{Class, Destinations};
use super::entry::{Entries, Entry, Flags, Place};
use super::hold::HoldQueues;
use super::list::{List, Slot};
use super::work::{
    Batch, Deferred, Due, End, HoldQueue, Kind, Release, Settings, Statistics, Work,
};

/// Timers that one poll looks at.
const TIMERS_PER_POLL: usize = 1024;
/// Of so many turns of a kind, the last goes to overdue envelopes first, so that new mail without
/// end cannot keep them until they expire.
const LATE_TURN: u32 = 8;
/// An envelope that was never tried is new up to this age, in seconds; then it is overdue.
const NEW: i64 = 60;
/// Wait after an end that could not be written down, in seconds.
const ENDING_RETRY: i64 = 10;
/// Wait of what came back untried, in seconds.
const UNTRIED_RETRY: i64 = 1;
/// The order in which work is served.
const TURNS: [Work; 5] = [
    Work::Remove,
    Work::Expire,
    Work::Deliver(Kind::Bounce),
    Work::Deliver(Kind::Local),
    Work::Deliver(Kind::Relay),
];

/// Knows when every envelope is due.
#[derive(Debug)]
pub struct Scheduler {
    settings: Settings,
    pub(super) line: TimeLine,
    pub(super) entries: Entries,
    pub(super) index: BTreeMap<EnvelopeId, Slot>,
    timers: BTreeSet<(Seconds, EnvelopeId)>,
    destinations: Destinations,
    expiring: List,
    removing: List,
    holds: HoldQueues,
    paused: [bool; 3],
    in_flight: usize,
    /// Next of [`TURNS`].
    turn: usize,
    /// Turns that each kind had.
    turns_had: [u32; 3],
    allowance: Allowance,
    pub(super) statistics: Statistics,
}

impl Scheduler {
    /// A scheduler without envelopes.
    #[must_use]
    pub fn new(settings: Settings, now: Reading) -> Self {
        let line = TimeLine::new(now);
        Self {
            allowance: Allowance::full(settings.overdue_per_second, line.milliseconds()),
            settings,
            line,
            entries: Entries::new(),
            index: BTreeMap::new(),
            timers: BTreeSet::new(),
            destinations: Destinations::new(),
            expiring: List::EMPTY,
            removing: List::EMPTY,
            holds: HoldQueues::default(),
            paused: [false; 3],
            in_flight: 0,
            turn: 0,
            turns_had: [0; 3],
            statistics: Statistics::default(),
        }
    }

    /// Takes over the settings of a new configuration.
    pub fn configure(&mut self, settings: Settings) {
        self.allowance.change(settings.overdue_per_second);
        self.settings = settings;
    }

    /// Learns of an envelope: new mail, a restart, `smtpctl discover`.
    ///
    /// False, and nothing changes, if it is known already (or if there are 2³² envelopes).
    pub fn insert(&mut self, due: &Due<'_>, now: Reading) -> bool {
        self.line.observe(now);
        if self.index.contains_key(&due.id) {
            return false;
        }
        let created = self.line.place(due.created);
        let mut entry = Entry::new(due.id, due.kind, created);
        entry.due = backoff::first_try(created, backoff::base(due.kind), due.retries);
        entry.ttl = u32::try_from(due.ttl.as_secs()).unwrap_or(u32::MAX);
        entry.retries = due.retries;
        if due.last_bounce != 0 {
            entry.warned = due.last_bounce.saturating_sub(due.created);
        }
        if let Some(block) = due.blocked {
            entry.flags.set(Flags::of(block));
        }
        let Some(slot) = self.entries.add(entry) else {
            return false;
        };
        self.entries[slot].destination = self.destinations.intern(due.kind, due.destination);
        self.index.insert(due.id, slot);
        if due.in_flight {
            self.launch(slot);
        } else {
            self.wait(slot);
        }
        true
    }

    /// Releases envelopes that are due, at most `credits` of them.
    ///
    /// New mail goes before what was tried already or is overdue, which is released at a bounded
    /// rate; kinds of work, and within a kind destinations, take turns.
    pub fn poll(&mut self, now: Reading, credits: usize) -> Vec<Batch> {
        self.line.observe(now);
        self.allowance.refill(self.line.milliseconds());
        for _ in 0..TIMERS_PER_POLL {
            if !self.fire_timer() {
                break;
            }
        }
        let room = self.settings.max_inflight.saturating_sub(self.in_flight);
        let mut left = credits.min(room);
        let mut batches = Vec::new();
        let mut idle = 0;
        while left > 0 && idle < TURNS.len() {
            let work = TURNS[self.turn];
            self.turn = (self.turn + 1) % TURNS.len();
            idle += 1;
            if let Some(batch) = self.take(work, left) {
                left -= batch.envelopes.len();
                batches.push(batch);
                idle = 0;
            }
        }
        batches
    }

    /// How long [`Self::poll`] would release nothing, however many credits there are.
    ///
    /// `None` until an outcome, an insertion or an administrator changes that.
    pub fn next_wake(&mut self, now: Reading) -> Option<Duration> {
        self.line.observe(now);
        self.allowance.refill(self.line.milliseconds());
        if self.in_flight >= self.settings.max_inflight {
            return None;
        }
        let running = [Kind::Bounce, Kind::Local, Kind::Relay]
            .into_iter()
            .filter(|kind| !self.paused[*kind as usize]);
        let ready = |class| running.clone().any(|kind| self.destinations.any_ready(kind, class));
        if !self.removing.is_empty() || !self.expiring.is_empty() || ready(Class::Fresh) {
            return Some(Duration::ZERO);
        }
        let timer = self.timers.first().map(|(due, _)| self.line.until(*due));
        let allowed = ready(Class::Late).then(|| self.allowance.wait());
        [timer, allowed].into_iter().flatten().min()
    }

    /// An envelope in flight ended for good: it is forgotten.
    ///
    /// False, and nothing changes, if it was not in flight.
    pub fn ended(&mut self, id: EnvelopeId, end: End) -> bool {
        let Some(slot) = self.flying(id) else {
            return false;
        };
        match end {
            End::Delivered => self.statistics.delivered += 1,
            End::Expired => self.statistics.expired += 1,
            End::Loop => self.statistics.looped += 1,
            End::Permanent => self.statistics.permanent += 1,
            End::Removed => self.statistics.removed += 1,
        }
        self.in_flight -= 1;
        self.index.remove(&id);
        self.destinations.release(self.entries[slot].destination);
        self.entries.free(slot);
        true
    }

    /// An attempt failed for now.
    ///
    /// Expiry and removal that could not be written down are told here too; they are repeated, do
    /// not count as attempts, and warn nobody. `None`, and nothing changes, if the envelope was
    /// not in flight.
    pub fn temporary(&mut self, id: EnvelopeId, now: Reading) -> Option<Deferred> {
        self.line.observe(now);
        let slot = self.flying(id)?;
        self.in_flight -= 1;
        let now = self.line.seconds();
        let entry = &mut self.entries[slot];
        if entry.flags.has(Flags::ENDING) {
            let retries = entry.retries;
            entry.flags.clear(Flags::ENDING);
            self.set_timer(slot, Place::Pending, now.saturating_add(ENDING_RETRY));
            return Some(Deferred { retries, warn: None });
        }
        entry.retries = entry.retries.saturating_add(1);
        entry.due = backoff::next_try(entry.created, backoff::base(entry.kind), entry.retries, now);
        let retries = entry.retries;
        self.statistics.temporary += 1;
        self.statistics.updated += 1;
        if entry.flags.has(Flags::REMOVED) {
            self.wait(slot);
            return Some(Deferred { retries, warn: None });
        }
        let intervals = &self.settings.warn_intervals;
        let warn = backoff::warning(intervals, entry.created, entry.warned, entry.due);
        if let Some(interval) = warn {
            entry.warned = i64::try_from(interval.as_secs()).unwrap_or(i64::MAX);
        }
        self.wait(slot);
        Some(Deferred { retries, warn })
    }

    /// The dispatcher gives an envelope in flight back, untried: its relay or user is busy.
    ///
    /// False, and nothing changes, if it was not in flight.
    pub fn hold(&mut self, id: EnvelopeId, queue: HoldQueue, now: Reading) -> bool {
        self.line.observe(now);
        let Some(slot) = self.flying(id) else {
            return false;
        };
        self.in_flight -= 1;
        let flags = self.entries[slot].flags;
        if flags.blocked() || flags.has(Flags::REMOVED) {
            self.wait(slot);
        } else if self.holds.push(&mut self.entries, queue, slot) {
            self.entries[slot].place = Place::Held;
        } else {
            self.statistics.hold_overflow += 1;
            self.postpone(slot, OVERFLOW_BASE);
        }
        true
    }

    /// The queue gives an envelope in flight back, untried: nothing can be handed out at the moment.
    /// It is due again after a second; no failure is counted, and nobody is warned.
    ///
    /// False, and nothing changes, if it was not in flight.
    pub fn returned(&mut self, id: EnvelopeId, now: Reading) -> bool {
        self.line.observe(now);
        let Some(slot) = self.flying(id) else {
            return false;
        };
        self.in_flight -= 1;
        let due = self.line.seconds().saturating_add(UNTRIED_RETRY);
        let entry = &mut self.entries[slot];
        entry.due = due;
        if entry.flags.has(Flags::ENDING) {
            entry.flags.clear(Flags::ENDING);
            self.set_timer(slot, Place::Pending, due);
        } else {
            self.wait(slot);
        }
        true
    }

    /// A relay or user can do with more, or failed: envelopes leave its hold queue.
    ///
    /// Answers how many.
    pub fn release(&mut self, queue: HoldQueue, release: Release, now: Reading) -> usize {
        self.line.observe(now);
        let most = match release {
            Release::All | Release::Failed => usize::MAX,
            Release::Some(most) => most,
        };
        let mut released = 0;
        while released < most
            && let Some(slot) = self.holds.pop(&mut self.entries, queue)
        {
            released += 1;
            match release {
                Release::All | Release::Some(_) => self.run_now(slot),
                Release::Failed => {
                    let base = backoff::base(self.entries[slot].kind);
                    self.postpone(slot, base);
                }
            }
        }
        released
    }

    /// Stops a kind from being released; expiry and removal go on. False if it is paused already.
    ///
    /// For reports, it makes them wait while there is no listener that takes them.
    pub fn pause(&mut self, kind: Kind) -> bool {
        !std::mem::replace(&mut self.paused[kind as usize], true)
    }

    /// Lets a kind be released again. False if it was not paused.
    pub fn resume(&mut self, kind: Kind) -> bool {
        std::mem::replace(&mut self.paused[kind as usize], false)
    }

    /// Whether a kind is paused.
    #[must_use]
    pub fn is_paused(&self, kind: Kind) -> bool {
        self.paused[kind as usize]
    }

    /// Counters since the start, and what there is now.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            envelopes: self.index.len(),
            in_flight: self.in_flight,
            held: self.holds.held(),
            hold_queues: self.holds.len(),
            ..self.statistics
        }
    }

    /// The slot of an envelope that is in flight.
    fn flying(&self, id: EnvelopeId) -> Option<Slot> {
        let slot = *self.index.get(&id)?;
        (self.entries[slot].place == Place::InFlight).then_some(slot)
    }

    /// Looks at the first timer that has run out; false if none has.
    fn fire_timer(&mut self) -> bool {
        let now = self.line.seconds();
        let Some(&(_, id)) = self.timers.first().filter(|(due, _)| *due <= now) else {
            return false;
        };
        if let Some(&slot) = self.index.get(&id) {
            self.leave(slot);
            self.wait(slot);
        }
        true
    }

    /// One batch of one kind of work, of at most `most` envelopes.
    fn take(&mut self, work: Work, most: usize) -> Option<Batch> {
        let most = most.min(self.settings.max_schedule.max(1));
        match work {
            Work::Deliver(kind) => self.take_deliveries(kind, most),
            Work::Expire | Work::Remove => self.take_ends(work, most),
        }
    }

    fn take_ends(&mut self, work: Work, most: usize) -> Option<Batch> {
        let mut envelopes = Vec::new();
        while envelopes.len() < most {
            let list = if work == Work::Expire { &self.expiring } else { &self.removing };
            let Some(slot) = list.first() else { break };
            self.leave(slot);
            self.entries[slot].flags.set(Flags::ENDING);
            self.launch(slot);
            envelopes.push(self.entries[slot].id);
        }
        (!envelopes.is_empty()).then(|| Batch { work, destination: Arc::default(), envelopes })
    }

    fn take_deliveries(&mut self, kind: Kind, most: usize) -> Option<Batch> {
        if self.paused[kind as usize] {
            return None;
        }
        let turn = &self.turns_had[kind as usize];
        let order = if *turn % LATE_TURN == LATE_TURN - 1 {
            [Class::Late, Class::Fresh]
        } else {
            [Class::Fresh, Class::Late]
        };
        for class in order {
            let most = match class {
                Class::Fresh => most,
                Class::Late => most.min(self.allowance.available()),
            };
            let Some(destination) = self.destinations.turn(kind, class).filter(|_| most > 0) else {
                continue;
            };
            let mut envelopes = Vec::new();
            while envelopes.len() < most
                && let Some(slot) = self.destinations.first_ready(destination, class)
            {
                self.leave(slot);
                self.launch(slot);
                envelopes.push(self.entries[slot].id);
            }
            self.destinations.end_turn(destination, class);
            if class == Class::Late {
                self.allowance.spend(envelopes.len());
            }
            self.turns_had[kind as usize] = self.turns_had[kind as usize].wrapping_add(1);
            let destination = self.destinations.name(destination);
            return Some(Batch { work: Work::Deliver(kind), destination, envelopes });
        }
        None
    }

    /// Makes an envelope that is nowhere fly.
    fn launch(&mut self, slot: Slot) {
        let entry = &mut self.entries[slot];
        entry.place = Place::InFlight;
        entry.mark = self.line.seconds();
        self.in_flight += 1;
    }

    /// Finds the place of an envelope that is nowhere, from its marks and times.
    pub(super) fn wait(&mut self, slot: Slot) {
        let now = self.line.seconds();
        let entry = &mut self.entries[slot];
        let expiry = entry.expiry();
        if entry.flags.has(Flags::REMOVED) {
            entry.place = Place::Removing;
            self.removing.push_back(&mut self.entries, slot);
        } else if entry.flags.blocked() {
            entry.place = Place::Parked;
        } else if expiry <= now {
            entry.place = Place::Expiring;
            self.expiring.push_back(&mut self.entries, slot);
        } else if entry.due <= now {
            let new = entry.retries == 0 && now.saturating_sub(entry.created) <= NEW;
            let class = if new { Class::Fresh } else { Class::Late };
            self.make_ready(slot, class);
        } else {
            let due = entry.due.min(expiry);
            self.set_timer(slot, Place::Pending, due);
        }
    }

    /// Makes an envelope that is nowhere run before others, whatever its time.
    pub(super) fn run_now(&mut self, slot: Slot) {
        self.make_ready(slot, Class::Fresh);
    }

    fn make_ready(&mut self, slot: Slot, class: Class) {
        let entry = &self.entries[slot];
        let place = match class {
            Class::Fresh => Place::Fresh,
            Class::Late => Place::Late,
        };
        if entry.flags.blocked() {
            // Runs once at an administrator's word; it does not expire while it is blocked.
            self.entries[slot].place = place;
        } else {
            self.set_timer(slot, place, entry.expiry());
        }
        self.destinations.push(&mut self.entries, slot, class);
    }

    /// Tries an envelope that is nowhere again later, as if it never had been tried.
    fn postpone(&mut self, slot: Slot, base: i64) {
        let entry = &mut self.entries[slot];
        entry.due = backoff::next_try(entry.created, base, 0, self.line.seconds());
        self.wait(slot);
    }

    fn set_timer(&mut self, slot: Slot, place: Place, due: Seconds) {
        let entry = &mut self.entries[slot];
        entry.place = place;
        entry.mark = due;
        entry.flags.set(Flags::TIMED);
        self.timers.insert((due, entry.id));
    }

    /// Takes an envelope that is not in flight out of its place.
    pub(super) fn leave(&mut self, slot: Slot) {
        let Entry { id, mark, place, flags, .. } = self.entries[slot];
        match place {
            Place::Expiring => self.expiring.unlink(&mut self.entries, slot),
            Place::Fresh => self.destinations.unlink(&mut self.entries, slot, Class::Fresh),
            Place::Held => self.holds.unlink(&mut self.entries, slot),
            Place::InFlight | Place::Parked | Place::Pending => {}
            Place::Late => self.destinations.unlink(&mut self.entries, slot, Class::Late),
            Place::Removing => self.removing.unlink(&mut self.entries, slot),
        }
        if flags.has(Flags::TIMED) {
            self.timers.remove(&(mark, id));
            self.entries[slot].flags.clear(Flags::TIMED);
        }
    }
}
