//! Jobs on their way in: seals opened, bodies put together. No I/O.
//!
//! Whatever the dispatcher says, only a record that the queue has sealed for this worker's identity
//! becomes a job, and each job number only once.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::os::fd::OwnedFd;

use super::body::Body;
use super::perform::Job;
use crate::ipc::message::worker::{Identity, JobBody, JobRecord};
use crate::ipc::seal::{Key, Sealed};
use crate::model::limits::BODY_IN_LOG;

/// Job numbers remembered; the queue never gives one twice.
const REMEMBERED: usize = 4096;
/// Bodies in pieces that may be under way at once.
const UNDER_WAY: usize = 64;

/// A job that can be done, and the request that it answers.
#[derive(Debug)]
pub struct Order {
    /// Number of the request.
    pub number: u32,
    /// What to do.
    pub job: Job,
}

/// Opens seals and puts bodies together.
#[derive(Debug)]
pub struct Intake {
    key: Key,
    identity: Identity,
    seen: HashSet<u64>,
    order: VecDeque<u64>,
    under_way: Vec<Partial>,
}

/// A job whose body is not complete.
#[derive(Debug)]
struct Partial {
    number: u32,
    record: JobRecord,
    bytes: Vec<u8>,
    size: usize,
}

impl Intake {
    /// For jobs of `identity`, sealed with `key`.
    #[must_use]
    pub fn new(key: Key, identity: Identity) -> Self {
        Self { key, identity, seen: HashSet::new(), order: VecDeque::new(), under_way: Vec::new() }
    }

    /// Whether a body is not complete yet.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Takes a request; `None` until its body is complete.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn deliver(
        &mut self,
        number: u32,
        ticket: &Sealed,
        body: JobBody,
        descriptor: Option<OwnedFd>,
    ) -> Result<Option<Order>, &'static str> {
        let record: JobRecord =
            self.key.open(ticket).map_err(|_| "the job is not sealed for this worker")?;
        // A confined worker could not do it; one that is not can do every job.
        let beyond = record.starts_programs() && !self.identity.programs;
        if record.identity != self.identity || beyond {
            return Err("the job is another worker's");
        }
        if !self.seen.insert(record.job) {
            return Err("the job was given before");
        }
        self.order.push_back(record.job);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        let body = match body {
            JobBody::Descriptor { size } => descriptor.map(|descriptor| Body::File {
                file: File::from(descriptor),
                offset: 0,
                length: size,
            }),
            JobBody::Inline(bytes) => Some(Body::Bytes(bytes.0)),
            JobBody::Pieces { size } => {
                let size = usize::try_from(size).ok().filter(|size| *size <= BODY_IN_LOG);
                let size = size.ok_or("the message is too large to come in pieces")?;
                if self.under_way.len() >= UNDER_WAY {
                    return Err("too many messages are under way");
                }
                let bytes = Vec::with_capacity(size);
                self.under_way.push(Partial { number, record, bytes, size });
                return Ok(self.take_complete());
            }
        };
        Ok(Some(Order { number, job: Job { record, body } }))
    }

    /// Takes a piece of a body; the job, once that is complete. A piece that belongs to nothing, or
    /// more than was announced, is dropped.
    pub fn piece(&mut self, job: u64, bytes: &[u8]) -> Option<Order> {
        let partial = self.under_way.iter_mut().find(|partial| partial.record.job == job)?;
        let room = partial.size - partial.bytes.len();
        partial.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        self.take_complete()
    }

    fn take_complete(&mut self) -> Option<Order> {
        let complete = |partial: &Partial| partial.bytes.len() == partial.size;
        let index = self.under_way.iter().position(complete)?;
        let Partial { number, record, bytes, .. } = self.under_way.swap_remove(index);
        Some(Order { number, job: Job { record, body: Some(Body::Bytes(bytes)) } })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::ipc::blob::Blob;
    use crate::ipc::message::worker::{Method, identity_key};
    use crate::worker::plan::tests::record;

    fn key(identity: &Identity) -> Key {
        identity_key(&Key::new([7; 32]), identity)
    }

    fn maildir(job: u64) -> JobRecord {
        JobRecord { job, ..record(Method::Maildir { path: None, junk: false }) }
    }

    fn inline() -> JobBody {
        JobBody::Inline(Blob(b"x".to_vec()))
    }

    fn text(order: Option<Order>) -> String {
        let mut text = String::new();
        let body = order.unwrap().job.body.unwrap();
        body.reader().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn only_what_is_sealed_for_this_worker_becomes_a_job_and_only_once() {
        let identity = maildir(1).identity;
        let mut intake = Intake::new(key(&identity), identity.clone());
        let own = key(&identity).seal(&maildir(1)).unwrap();
        assert_eq!(text(intake.deliver(5, &own, inline(), None).unwrap()), "x");
        assert!(intake.deliver(6, &own, inline(), None).is_err(), "again");

        let other = Identity { account: "other".to_owned(), ..identity.clone() };
        let theirs = JobRecord { identity: other.clone(), ..maildir(2) };
        let command = JobRecord { job: 3, ..record(Method::Pipe { line: "x".to_owned() }) };
        let forged = [
            ("sealed for another", key(&other).seal(&maildir(2)).unwrap()),
            ("another's, sealed with our key", key(&identity).seal(&theirs).unwrap()),
            ("a command for a confined worker", key(&identity).seal(&command).unwrap()),
            ("no record", key(&identity).seal(&"text").unwrap()),
        ];
        for (name, ticket) in forged {
            assert!(intake.deliver(7, &ticket, inline(), None).is_err(), "{name}");
        }
    }

    #[test]
    fn a_body_in_pieces_is_put_together() {
        let identity = maildir(1).identity;
        let mut intake = Intake::new(key(&identity), identity.clone());
        let sealed = |job| key(&identity).seal(&maildir(job)).unwrap();
        let pieces = |size| JobBody::Pieces { size };
        assert!(intake.deliver(1, &sealed(1), pieces(5), None).unwrap().is_none());
        assert!(intake.deliver(2, &sealed(2), pieces(2), None).unwrap().is_none());
        assert!(intake.is_waiting());
        assert!(intake.piece(1, b"abc").is_none());
        assert!(intake.piece(9, b"zz").is_none(), "of no job");
        assert_eq!(text(intake.piece(2, b"xyz")), "xy", "no more than was announced");
        assert_eq!(text(intake.piece(1, b"de")), "abcde");
        assert!(!intake.is_waiting());
        assert_eq!(text(intake.deliver(3, &sealed(3), pieces(0), None).unwrap()), "");
        let huge = pieces(u64::MAX);
        assert!(intake.deliver(4, &sealed(4), huge, None).is_err());
    }

    #[test]
    fn a_missing_descriptor_is_a_job_without_a_message() {
        let identity = maildir(1).identity;
        let mut intake = Intake::new(key(&identity), identity.clone());
        let ticket = key(&identity).seal(&maildir(1)).unwrap();
        let order = intake.deliver(1, &ticket, JobBody::Descriptor { size: 3 }, None).unwrap();
        assert!(order.unwrap().job.body.is_none());
    }
}
