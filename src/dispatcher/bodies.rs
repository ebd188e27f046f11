//! Messages in memory: those just committed are kept for their first delivery.
//!
//! Bounded by [`FIRST_ATTEMPT_CACHE`]; the oldest go first, and are read from the queue if they are
//! needed after all.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use super::mta::Body;
use super::shared::Shared;
use crate::ipc::message::queue::{BodyPiece, DispatcherToQueue, QueueToDispatcher};
use crate::model::MessageId;
use crate::model::limits::{BODY_IN_LOG, FIRST_ATTEMPT_CACHE};
use crate::model::outcome::{EnhancedStatus, Failure, Outcome};

/// Messages kept for their first delivery.
#[derive(Debug, Default)]
pub struct Bodies {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    bodies: HashMap<MessageId, (Arc<[u8]>, usize)>,
    order: VecDeque<MessageId>,
    bytes: usize,
}

impl Bodies {
    /// Keeps the body of a message that is about to be committed, for `attempts` deliveries.
    pub fn keep(&self, message: MessageId, body: Arc<[u8]>, attempts: usize) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += body.len();
        if let Some((old, _)) = kept.bodies.insert(message, (body, attempts)) {
            kept.bytes -= old.len();
        } else {
            kept.order.push_back(message);
        }
        while kept.bytes > FIRST_ATTEMPT_CACHE {
            let Some(oldest) = kept.order.pop_front() else { break };
            if let Some((body, _)) = kept.bodies.remove(&oldest) {
                kept.bytes -= body.len();
            }
        }
        // Messages that were dropped leave their place in the order behind.
        if kept.order.len() > 2 * kept.bodies.len() + 64 {
            let Kept { bodies, order, .. } = &mut *kept;
            order.retain(|message| bodies.contains_key(message));
        }
    }

    /// Drops the body of a message.
    pub fn drop_message(&self, message: MessageId) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((body, _)) = kept.bodies.remove(&message) {
            kept.bytes -= body.len();
        }
    }

    /// Notes that one delivery of a message has had its attempt; after the last the body goes.
    pub fn attempted(&self, message: MessageId) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, attempts)) = kept.bodies.get_mut(&message) else { return };
        *attempts = attempts.saturating_sub(1);
        if *attempts > 0 {
            return;
        }
        if let Some((body, _)) = kept.bodies.remove(&message) {
            kept.bytes -= body.len();
        }
    }

    fn find(&self, message: MessageId) -> Option<Arc<[u8]>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bodies.get(&message).map(|(body, _)| Arc::clone(body))
    }
}

/// There is no body to deliver.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoBody {
    /// What is stored cannot be read, now or later.
    Damaged,
    /// It is not to be had now.
    Unavailable,
}

impl NoBody {
    /// What that means for an envelope of the message: one that can never be read is returned.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        let failure = |text: &str, class| Failure {
            text: text.to_owned(),
            status: EnhancedStatus::new(class, 3, 0),
        };
        match self {
            Self::Damaged => Outcome::Permanent(failure("The message is damaged in the queue", 5)),
            Self::Unavailable => Outcome::Temporary(failure("Cannot get message fd", 4)),
        }
    }
}

impl Shared {
    /// The body of a message in flight, from memory or from the queue.
    ///
    /// # Errors
    /// There is none to be had.
    pub async fn body(&self, message: MessageId) -> Result<Body, NoBody> {
        if let Some(body) = self.bodies.find(message) {
            return Ok(Body::Memory(body));
        }
        let mut bytes = Vec::new();
        loop {
            let request = DispatcherToQueue::LoadBody { message, offset: bytes.len() as u64 };
            let Ok((QueueToDispatcher::Body(piece), descriptor)) =
                self.queue.request(&request, None).await
            else {
                return Err(NoBody::Unavailable);
            };
            match piece {
                BodyPiece::Absent => return Err(NoBody::Unavailable),
                BodyPiece::Damaged => return Err(NoBody::Damaged),
                BodyPiece::Descriptor { size } => {
                    let file = Arc::new(File::from(descriptor.ok_or(NoBody::Unavailable)?));
                    return Ok(Body::File { file, size });
                }
                BodyPiece::Inline { size, bytes: piece } => {
                    let empty = piece.0.is_empty();
                    bytes.extend_from_slice(&piece.0);
                    if bytes.len() as u64 >= size {
                        return Ok(Body::Memory(bytes.into()));
                    }
                    if empty || bytes.len() > BODY_IN_LOG {
                        return Err(NoBody::Unavailable);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_bodies_go_when_memory_is_short() {
        let bodies = Bodies::default();
        let size = FIRST_ATTEMPT_CACHE / 4;
        let ids: Vec<_> = (1..=6).filter_map(MessageId::new).collect();
        for id in &ids {
            bodies.keep(*id, vec![0; size].into(), 2);
        }
        let kept: Vec<_> = ids.iter().map(|id| bodies.find(*id).is_some()).collect();
        assert_eq!(kept, [false, false, true, true, true, true]);
        bodies.drop_message(ids[5]);
        assert!(bodies.find(ids[5]).is_none());
        bodies.attempted(ids[4]);
        assert!(bodies.find(ids[4]).is_some());
        bodies.attempted(ids[4]);
        assert!(bodies.find(ids[4]).is_none());
    }
}
