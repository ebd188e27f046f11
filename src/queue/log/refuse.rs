//! What is not written: which requests are refused, and why.

use std::collections::VecDeque;
use std::time::Instant;

use super::engine::Log;
use super::op::{Answer, LogBody, Op};
use super::state::DeadLarge;
use crate::model::id::MessageId;
use crate::queue::store::StoreError;

impl Log {
    /// Why a message is not taken now.
    pub(super) fn hopeless(&self, deadline: Instant, answer: &Answer) -> Option<StoreError> {
        if answer.is_given() || deadline <= self.now {
            return Some(StoreError::Expired);
        }
        if self.is_failing() {
            return Some(StoreError::Failing);
        }
        self.is_full().then_some(StoreError::Full)
    }

    /// Answers commits that cannot be written whatever room there is.
    pub(super) fn refuse_front(&mut self, queue: &mut VecDeque<Op>) {
        while let Some(Op::Commit { deadline, answer, .. }) = queue.front() {
            let Some(error) = self.hopeless(*deadline, answer) else { return };
            if let Some(op) = queue.pop_front() {
                self.refuse_op(op, &error);
            }
        }
    }

    /// Puts what a failed batch held back into the queue, messages excepted: they are refused once
    /// the batch is cancelled.
    pub(super) fn put_back(&mut self, ops: Vec<Op>, queue: &mut VecDeque<Op>) {
        for op in ops.into_iter().rev() {
            match op {
                Op::Commit { message, body, answer, .. } => {
                    let large = match body {
                        LogBody::Large(large) => {
                            Some(DeadLarge { message, reference: Some(large) })
                        }
                        LogBody::Inline(_) => None,
                    };
                    self.refused.push((answer, large));
                }
                other => queue.push_front(other),
            }
        }
        if self.is_failing() {
            self.refuse(queue);
        }
    }

    /// Answers everything that can be answered with a refusal; ends stay, since they need no answer
    /// and are written when the log works again.
    pub(super) fn refuse(&mut self, queue: &mut VecDeque<Op>) {
        let error = self.refusal();
        self.refuse_failed();
        for op in std::mem::take(queue) {
            queue.extend(self.refuse_op(op, &error));
        }
    }

    /// Refuses an op; gives it back if it must not be refused.
    pub(super) fn refuse_op(&mut self, op: Op, error: &StoreError) -> Option<Op> {
        match op {
            Op::Commit { message, body, answer, .. } => {
                self.discard(message, &body);
                answer.give(Err(error.clone()));
            }
            Op::Extend { done, .. }
            | Op::Hold { done, .. }
            | Op::Replace { done, .. }
            | Op::Update { done, .. }
            | Op::End { done: Some(done), .. } => done(Err(error.clone())),
            op @ (Op::End { done: None, .. } | Op::Cancel { .. }) => return Some(op),
        }
        None
    }

    /// Removes the file of a large body that will not be referred to.
    pub(super) fn discard(&mut self, message: MessageId, body: &LogBody) {
        if let LogBody::Large(large) = body {
            self.bury_large(vec![DeadLarge { message, reference: Some(*large) }]);
        }
    }

    /// Answers the commits of failed batches whose cancellation cannot be written. They may come
    /// back with the next start, so their large bodies stay until then.
    pub(super) fn refuse_failed(&mut self) {
        let error = self.refusal();
        for (answer, _) in self.refused.drain(..) {
            answer.give(Err(error.clone()));
        }
    }

    /// Why nothing can be written.
    pub(super) fn refusal(&self) -> StoreError {
        if self.trouble.no_room && !self.is_failing() {
            StoreError::Full
        } else {
            StoreError::Failing
        }
    }
}
