//! The log itself: which segment is written, which comes next, what may be freed, and what to say
//! when the disk fails or is full.
//!
//! One thread owns a [`Log`] and calls it; batches are in `batch`, compaction is in `clean`,
//! recovery in `recovery`. Work on names and whole files goes out as [`Job`]s and comes back as
//! [`Report`]s, so nothing here waits for more than the write and the sync of a batch. Time comes
//! in as a value.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use platform::dir::Space;

use super::clean::{Cleaning, Rewrite};
use super::disk::Disk;
use super::keeper::{Job, Report, Source};
use super::op::Answer;
use super::place::SegmentSlot;
use super::record::large_name;
use super::segment::{Identity, RECORDS_AT, SegmentFile, Skeleton};
use super::state::{DeadLarge, State};
use crate::queue::store::{Event, Health, Statistics};

/// Sizes and floors of the log.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size of segments at first, bytes.
    pub smallest_segment: u64,
    /// Size that segments grow to under load, bytes; at most 64 MiB.
    pub largest_segment: u64,
    /// Accepting stops when less than this share of space or inodes is free, per cent.
    pub free_percent: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self { smallest_segment: 1 << 20, largest_segment: 64 << 20, free_percent: 5 }
    }
}

/// The segment being written.
pub(super) struct Active {
    pub slot: SegmentSlot,
    pub file: SegmentFile,
    pub seed: u32,
    /// Where the next batch goes; everything before is durable.
    pub end: u64,
    /// Place of the next record.
    pub place: u32,
    pub skeleton: Skeleton,
    pub began: Instant,
    /// Whether it is the reserve, which takes no messages.
    pub reserve: bool,
}

/// How the disk did lately.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Trouble {
    /// Batches that failed one after the other.
    pub failed: u32,
    /// No segment could be made: no room.
    pub no_room: bool,
    /// Not even the reserve has room.
    pub stopped: bool,
    /// Free space or inodes are under the floor.
    pub low: bool,
}

/// The log.
pub(super) struct Log {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: Options,
    pub(super) state: Arc<Mutex<State>>,
    entropy: Box<dyn FnMut() -> u128 + Send>,
    pub(super) active: Option<Active>,
    pub(super) next: Option<(SegmentFile, Source)>,
    pub(super) preparing: bool,
    /// Number of the newest segment asked for.
    pub(super) last_number: u64,
    /// Number and durable end of the segment before the active one.
    pub(super) previous: Option<(u64, u64)>,
    /// Sequence numbers of failed batches, not yet cancelled durably.
    pub(super) cancels: Vec<(u64, u64)>,
    /// Commits of those batches with their large bodies: refused, and the bodies removed, once the
    /// cancellation is durable.
    pub(super) refused: Vec<(Answer, Option<DeadLarge>)>,
    pub(super) trouble: Trouble,
    pub(super) reserve: bool,
    pub(super) making_reserve: bool,
    /// Size of the spare file, if there is one.
    pub(super) spare: Option<u64>,
    /// Size of the next segment.
    pub(super) target: u64,
    /// Size that a waiting request needs.
    pub(super) wanted: u64,
    pub(super) cleaning: Cleaning,
    /// What recovery found without knowing that it is durable: copied before anything is freed.
    pub(super) rewrites: Vec<Rewrite>,
    /// Files in `large/` that recovery found nobody to refer to.
    pub(super) leftovers: Vec<String>,
    /// Size that compaction's next copy needs.
    pub(super) copy_needs: usize,
    /// Whether compaction waits for a segment.
    pub(super) copy_waits: bool,
    pub(super) jobs: Vec<Job>,
    pub(super) events: Vec<Event>,
    health: Health,
    pub(super) buffer: Vec<u8>,
    /// The owner's clock.
    pub(super) now: Instant,
}

/// Above this, a buffer that one large request made is given back.
pub(super) const KEPT_BUFFER: usize = 1 << 20;

/// A segment that filled up faster makes the next one larger.
const FAST: Duration = Duration::from_secs(2);
/// A segment that filled up slower makes the next one smaller.
const SLOW: Duration = Duration::from_secs(60);

pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic elsewhere leaves numbers that recovery would rebuild; serving on is better.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// A log with nothing in it; [`Log::open`] fills it from the disk.
    pub(super) fn empty(
        disk: Arc<dyn Disk>,
        options: Options,
        entropy: Box<dyn FnMut() -> u128 + Send>,
        state: Arc<Mutex<State>>,
    ) -> Self {
        Self {
            disk,
            options,
            state,
            entropy,
            active: None,
            next: None,
            preparing: false,
            last_number: 0,
            previous: None,
            cancels: Vec::new(),
            refused: Vec::new(),
            trouble: Trouble::default(),
            reserve: false,
            making_reserve: false,
            spare: None,
            target: options.smallest_segment,
            wanted: 0,
            cleaning: Cleaning::Idle,
            rewrites: Vec::new(),
            leftovers: Vec::new(),
            copy_needs: 0,
            copy_waits: false,
            jobs: Vec::new(),
            events: Vec::new(),
            health: Health::Accepting,
            buffer: Vec::new(),
            now: Instant::now(),
        }
    }

    /// What is to be done elsewhere.
    pub(super) fn take_jobs(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.jobs)
    }

    /// What the administrator should know.
    pub(super) fn take_events(&mut self) -> Vec<Event> {
        let health = self.current_health();
        if health != self.health {
            self.health = health;
            self.events.push(Event::Health(health));
        }
        let ready = self.next.as_ref().map_or(0, |(file, _)| file.identity.size);
        let mut state = lock(&self.state);
        state.figures.health = health;
        state.figures.log_bytes = ready + self.spare.unwrap_or(0);
        drop(state);
        std::mem::take(&mut self.events)
    }

    pub(super) fn current_health(&self) -> Health {
        if self.is_failing() {
            return Health::Failing;
        }
        if self.trouble.stopped {
            return Health::Stopped;
        }
        if self.is_full() { Health::Full } else { Health::Accepting }
    }

    /// Whether the log failed twice in a row and takes no messages until it works again.
    pub(super) fn is_failing(&self) -> bool {
        self.trouble.failed >= 2
    }

    /// Whether there is no room for messages.
    pub(super) fn is_full(&self) -> bool {
        let on_reserve = self.active.as_ref().is_some_and(|active| active.reserve);
        self.trouble.low || self.trouble.no_room || on_reserve
    }

    /// Whether waiting for a report can make a refused write possible.
    pub(super) fn is_waiting(&self) -> bool {
        self.preparing
    }

    /// Asks for the next segment unless it is there or on its way. Without room, the reserve is
    /// taken, unless this is to `retry` whether there is room now.
    pub(super) fn want_next(&mut self, retry: bool) {
        if self.next.is_some() || self.preparing {
            return;
        }
        let size = self.target.max(self.wanted);
        let source = match self.spare {
            Some(spare) if spare >= self.wanted.max(self.options.smallest_segment) => Source::Spare,
            _ if self.trouble.no_room && self.reserve && !retry => Source::Reserve,
            _ if self.trouble.no_room && !retry => return,
            _ => Source::New,
        };
        let size = match source {
            Source::New => size,
            Source::Reserve => self.options.smallest_segment,
            Source::Spare => self.spare.take().unwrap_or(size),
        };
        if source == Source::Reserve {
            self.reserve = false;
        }
        self.last_number += 1;
        self.preparing = true;
        let incarnation = (self.entropy)();
        let identity = Identity { number: self.last_number, incarnation, size };
        self.jobs.push(Job::Prepare { identity, source });
    }

    /// Takes in what a job came to.
    pub(super) fn report(&mut self, report: Report) {
        match report {
            Report::Prepared { source, result } => self.prepared(source, result),
            Report::Reserve(result) => {
                self.making_reserve = false;
                self.reserve = result.is_ok();
            }
            Report::Sealed { slot, result } => self.sealed(slot, &result),
            Report::Removed { slot, file, spare, result } => {
                self.removed(slot, file, spare, &result);
            }
            Report::Read { slot, result } => self.cleaning_read(slot, result),
            Report::LargeRemoved => {}
            Report::Space(Ok(space)) => self.trouble.low = self.is_low(&space),
            // Not knowing is no reason to refuse mail: a write will tell.
            Report::Space(Err(_)) => {}
        }
    }

    fn is_low(&self, space: &Space) -> bool {
        let percent = u64::from(self.options.free_percent);
        let floor = (space.total_bytes / 100 * percent).max(4 * self.target);
        let inodes = space.total_inodes / 100 * percent;
        // No room at all for inodes is how some systems say that they do not count them.
        space.free_bytes < floor || (space.total_inodes != 0 && space.free_inodes < inodes.max(4))
    }

    fn prepared(&mut self, source: Source, result: io::Result<SegmentFile>) {
        self.preparing = false;
        match result {
            Ok(file) => {
                if source != Source::Reserve {
                    self.trouble.no_room = false;
                }
                if self.cancels.is_empty() {
                    self.trouble.failed = 0;
                }
                self.trouble.stopped = false;
                self.copy_waits = false;
                self.next = Some((file, source));
                self.leave_reserve();
            }
            Err(error) => {
                lock(&self.state).figures.failures += 1;
                if is_no_room(&error) {
                    self.trouble.no_room = true;
                } else if self.active.is_none() {
                    self.trouble.failed = self.trouble.failed.max(2);
                }
            }
        }
    }

    /// Goes on with an ordinary segment as soon as there is one.
    fn leave_reserve(&mut self) {
        let on_reserve = self.active.as_ref().is_some_and(|active| active.reserve);
        let ordinary = matches!(self.next, Some((_, Source::New | Source::Spare)));
        if on_reserve && ordinary {
            self.roll();
        }
    }

    fn sealed(&mut self, slot: SegmentSlot, result: &io::Result<u64>) {
        let mut state = lock(&self.state);
        match result {
            Ok(written) => state.figures.written_bytes += written,
            // Without its index the segment is read record by record: slower, not worse.
            Err(_) => {
                state.figures.failures += 1;
                if let Some(segment) = state.segment_mut(slot) {
                    segment.suspect = true;
                }
            }
        }
    }

    fn removed(
        &mut self,
        slot: SegmentSlot,
        file: SegmentFile,
        spare: bool,
        result: &io::Result<()>,
    ) {
        let Identity { number, size, .. } = file.identity;
        if result.is_err() {
            let mut state = lock(&self.state);
            state.figures.failures += 1;
            if let Some(segment) = state.segment_mut(slot) {
                // Tried again after the next tick.
                segment.stuck = true;
                segment.leaving = false;
                segment.file = Some(file);
            }
            return;
        }
        lock(&self.state).remove_segment(slot);
        self.cancels.retain(|(from, _)| super::record::segment_of(*from) != number);
        if spare {
            self.spare = Some(size);
        }
    }

    /// Ends the active segment and begins the next one, if it is ready.
    pub(super) fn roll(&mut self) -> bool {
        let Some((file, source)) = self.next.take() else {
            // A failing log is tried again by the tick alone.
            if !self.is_failing() {
                self.want_next(false);
            }
            return false;
        };
        self.retire(true);
        let slot = lock(&self.state).add_segment(file.clone());
        let Some(slot) = slot else {
            // 65,535 segments: as full as a disk.
            self.trouble.no_room = true;
            return false;
        };
        self.active = Some(Active {
            slot,
            seed: file.identity.seed(),
            file,
            end: RECORDS_AT,
            place: 0,
            skeleton: Skeleton::default(),
            began: self.now,
            reserve: source == Source::Reserve,
        });
        if source != Source::Reserve && !self.is_failing() {
            self.want_next(false);
        }
        true
    }

    /// Closes the active segment; a `healthy` one gets its index.
    pub(super) fn retire(&mut self, healthy: bool) {
        let Some(active) = self.active.take() else { return };
        let age = self.now.saturating_duration_since(active.began);
        let (smallest, largest) = (self.options.smallest_segment, self.options.largest_segment);
        if healthy && active.end > active.file.identity.size / 2 {
            if age < FAST {
                self.target = (self.target * 2).min(largest);
            } else if age > SLOW {
                self.target = (self.target / 2).max(smallest);
            }
        }
        if active.place > 0 {
            self.previous = Some((active.file.identity.number, active.end));
        }
        lock(&self.state).close_segment(active.slot);
        if healthy {
            let Active { slot, file, end, skeleton, .. } = active;
            self.jobs.push(Job::Seal { slot, file, end, skeleton });
        }
    }

    /// Looks after what is not urgent: the next segment, the reserve, freeing, compaction.
    pub(super) fn maintain(&mut self) {
        if !self.trouble.no_room && !self.is_failing() {
            self.want_next(false);
            if !self.reserve && !self.making_reserve && self.next.is_some() {
                self.making_reserve = true;
                self.jobs.push(Job::MakeReserve { size: self.options.smallest_segment });
            }
        }
        self.begin_rewrite();
        if self.is_settled() {
            if !self.leftovers.is_empty() {
                let names = std::mem::take(&mut self.leftovers);
                self.jobs.push(Job::RemoveLarge { names });
            }
            self.free();
            self.choose_victim();
        }
    }

    /// What is done about once a second: free space is looked at, what failed is tried again.
    pub(super) fn tick(&mut self, now: Instant) {
        self.now = now;
        self.jobs.push(Job::Space);
        for (_, segment) in lock(&self.state).segments_mut() {
            segment.stuck = false;
        }
        if self.trouble.no_room || self.is_failing() {
            self.want_next(true);
        }
        self.copy_waits = false;
        self.maintain();
    }

    fn free(&mut self) {
        let mut keep = self.spare.is_none();
        let target = self.target;
        let no_room = self.trouble.no_room;
        let mut state = lock(&self.state);
        for (slot, segment) in state.segments_mut() {
            if !segment.is_free() || segment.stuck {
                continue;
            }
            // The state gives up its own reference, so that the job sees only readers' ones.
            let Some(file) = segment.file.take() else { continue };
            segment.leaving = true;
            let fits = segment.identity.size == target || no_room;
            let reusable = keep && fits && !segment.suspect;
            keep &= !reusable;
            self.jobs.push(Job::Remove { slot, file, keep: reusable });
        }
    }

    pub(super) fn bury_large(&mut self, dead: Vec<DeadLarge>) {
        let names: Vec<String> = dead
            .into_iter()
            .filter_map(|large| Some(large_name(large.message, large.reference?.sequence)))
            .collect();
        if !names.is_empty() {
            self.jobs.push(Job::RemoveLarge { names });
        }
    }

    /// The figures now.
    pub(super) fn statistics(state: &State) -> Statistics {
        let (envelopes, messages) = state.counts();
        let sizes = state.segments().map(|(_, segment)| segment.identity.size);
        Statistics {
            envelopes,
            messages,
            live_bytes: state.live(),
            log_bytes: sizes.sum::<u64>() + state.figures.log_bytes,
            segments: state.segments().count() as u64,
            index_bytes: state.memory() as u64,
            ..state.figures
        }
    }
}

pub(super) fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
