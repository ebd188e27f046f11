//! What a session asks of other roles: expansions of lookup, files and commits of the queue.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::dispatcher::shared::{Counted, Shared};
use crate::dispatcher::smtp::{
    Answer, Commit, ExpandRecipient, Expansion, Refusal, UNKNOWN_HOSTNAME,
};
use crate::ipc::blob::Blob;
use crate::ipc::message::lookup::{
    DispatcherToLookup, Expansion as Answered, LookupToDispatcher, SessionFacts,
};
use crate::ipc::message::queue::{
    CommitBody, DispatcherToQueue, NewEnvelope, QueueToDispatcher, Refusal as QueueRefusal,
};
use crate::model::MessageId;
use crate::model::envelope::Origin;
use crate::model::limits::{BODY_IN_MEMORY, COMMIT_DEADLINE};

/// Envelopes in one frame; each takes at most about 800 bytes.
const ENVELOPES_IN_FRAME: usize = 32;

/// A message to commit, its body complete in one place.
pub(super) struct ReadyCommit {
    pub commit: Commit,
    /// Length of the body, if it is in a file.
    pub file: Option<u64>,
    pub failed: Option<Refusal>,
}

pub(super) async fn open_file(shared: &Shared, message: MessageId) -> Result<File, Refusal> {
    let request = DispatcherToQueue::OpenMessage { message };
    match shared.queue.request(&request, None).await {
        Ok((QueueToDispatcher::Opened(Ok(())), Some(descriptor))) => Ok(File::from(descriptor)),
        Ok((QueueToDispatcher::Opened(Err(refusal)), _)) => Err(refused(refusal)),
        Ok(_) | Err(_) => Err(Refusal::Failure),
    }
}

pub(super) async fn forget(shared: &Shared, message: MessageId) {
    // A queue that is gone has forgotten.
    let _gone = shared.queue.notice(&DispatcherToQueue::Forget { message }, None).await;
}

/// What a failed write of a body comes to.
pub(super) fn unwritten(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::Full,
        _ => Refusal::Failure,
    }
}

fn facts(origin: &Origin, secure: bool) -> SessionFacts {
    SessionFacts {
        source: origin.source,
        helo: origin.helo.clone(),
        reverse_name: if origin.hostname == UNKNOWN_HOSTNAME {
            String::new()
        } else {
            origin.hostname.clone()
        },
        tag: origin.tag.clone(),
        username: (!origin.username.is_empty()).then(|| origin.username.clone()),
        authenticated: origin.authenticated,
        secure,
    }
}

pub(super) async fn expand(
    shared: Arc<Shared>,
    transaction: u64,
    secure: bool,
    recipient: Box<ExpandRecipient>,
) -> Answer {
    let request = DispatcherToLookup::Expand {
        transaction,
        session: facts(&recipient.origin, secure),
        sender: recipient.origin.sender.clone(),
        recipient: recipient.recipient.clone(),
    };
    let expansion = match shared.lookup.request(&request, None).await {
        Ok((LookupToDispatcher::Expanded(Answered::Accepted(routes)), _)) => {
            Expansion::Accepted(routes)
        }
        Ok((LookupToDispatcher::Expanded(Answered::Refused { reply }), _)) => {
            Expansion::Refused(reply)
        }
        Ok(_) | Err(_) => Expansion::Failed,
    };
    Answer::Recipient(recipient.request, expansion)
}

pub(super) async fn commit_message(
    shared: Arc<Shared>,
    transaction: u64,
    ready: ReadyCommit,
) -> Answer {
    let request = ready.commit.request;
    let _counted = Counted::new(&shared.counters.committing);
    let deadline = COMMIT_DEADLINE + Duration::from_secs(2);
    let message = ready.commit.message;
    let result = match timeout(deadline, commit(&shared, transaction, ready)).await {
        Ok(result) => result,
        Err(_) => {
            shared.bodies.drop_message(message);
            // What was announced of it must not stay with the queue; the client does not wait.
            let shared = Arc::clone(&shared);
            tokio::spawn(async move { forget(&shared, message).await });
            Err(Refusal::Timeout)
        }
    };
    Answer::Commit(request, result)
}

async fn commit(shared: &Shared, transaction: u64, ready: ReadyCommit) -> Result<(), Refusal> {
    let ReadyCommit { commit, mut file, failed } = ready;
    let message = commit.message;
    if let Some(refusal) = failed {
        forget(shared, message).await;
        return Err(refusal);
    }
    let mut body = commit.body;
    if file.is_none() && body.len() > BODY_IN_MEMORY {
        // Too long for a frame together with its envelopes.
        let mut spill = open_file(shared, message).await?;
        if let Err(error) = spill.write_all(&body) {
            forget(shared, message).await;
            return Err(unwritten(&error));
        }
        file = Some(body.len() as u64);
        body = Vec::new();
    }
    let mut envelopes: Vec<NewEnvelope> = Vec::new();
    for recipient in commit.recipients {
        for (id, route) in recipient.envelopes {
            // The low half of an envelope id is never 0.
            let low = (id.get() & 0xffff_ffff) as u32;
            envelopes.push(NewEnvelope { low, route, dsn: recipient.dsn.clone() });
        }
    }
    let count = envelopes.len();
    let total = u32::try_from(count).unwrap_or(u32::MAX);
    while envelopes.len() > ENVELOPES_IN_FRAME {
        let rest = envelopes.split_off(ENVELOPES_IN_FRAME);
        let some = std::mem::replace(&mut envelopes, rest);
        let request = DispatcherToQueue::AddEnvelopes { message, envelopes: some };
        shared.queue.notice(&request, None).await.map_err(|_| Refusal::Failure)?;
    }
    let body = match file {
        Some(size) => CommitBody::File { size },
        None => {
            shared.bodies.keep(message, Arc::from(body.as_slice()), count);
            CommitBody::Inline(Blob(body))
        }
    };
    let origin = Box::new(Arc::unwrap_or_clone(commit.origin));
    let request =
        DispatcherToQueue::Commit { message, transaction, origin, total, envelopes, body };
    let result = match shared.queue.request(&request, None).await {
        Ok((QueueToDispatcher::Committed(Ok(())), _)) => Ok(()),
        Ok((QueueToDispatcher::Committed(Err(refusal)), _)) => Err(refused(refusal)),
        Ok(_) | Err(_) => Err(Refusal::Failure),
    };
    if result.is_err() {
        shared.bodies.drop_message(message);
    }
    result
}

fn refused(refusal: QueueRefusal) -> Refusal {
    match refusal {
        QueueRefusal::Failed | QueueRefusal::Forbidden => Refusal::Failure,
        QueueRefusal::Full => Refusal::Full,
        QueueRefusal::Late => Refusal::Timeout,
    }
}
