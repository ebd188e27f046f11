//! The worker of one identity, and the jobs that wait for it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{Mda, temporary};
use crate::dispatcher::mta::Body;
use crate::ipc::blob::Blob;
use crate::ipc::link::{Link, LinkError};
use crate::ipc::message::parent::{ParentToRole, RoleToParent, WorkerFailure};
use crate::ipc::message::worker::{
    DispatcherToWorker, Identity, JobBody, JobRecord, WorkerToDispatcher,
};
use crate::ipc::seal::Sealed;
use crate::model::limits::{BODY_IN_LOG, FRAME, WORKER_ANSWER};
use crate::model::outcome::{EnhancedStatus, Failure, Outcome, Report};

/// Jobs in a worker's hands at once: two batches, so that one gathers while one syncs.
const WINDOW: u32 = 128;
/// How long a crew without jobs is kept; the worker leaves a little earlier by itself.
const IDLE: Duration = Duration::from_secs(15);
/// Bytes of a body that go with the job in its frame.
const INLINE: usize = FRAME - 8 * 1024;
/// Bytes of a body in one piece.
const PIECE: usize = 48 * 1024;

/// The channel to a worker.
type WorkerLink = Link<DispatcherToWorker, WorkerToDispatcher>;

/// One job, and who waits for its outcome.
#[derive(Debug)]
pub(crate) struct Job {
    ticket: Sealed,
    body: Body,
    answer: oneshot::Sender<Report>,
}

impl Job {
    pub(super) fn new(ticket: Sealed, body: Body) -> (Self, oneshot::Receiver<Report>) {
        let (answer, receiver) = oneshot::channel();
        (Self { ticket, body, answer }, receiver)
    }
}

/// Serves the jobs of one identity until none has come for a while.
pub(super) async fn serve(
    mda: Arc<Mda>,
    identity: Identity,
    mut queue: mpsc::UnboundedReceiver<Job>,
) {
    let mut link: Option<WorkerLink> = None;
    loop {
        let job = match timeout(IDLE, queue.recv()).await {
            Ok(Some(job)) => job,
            Ok(None) => return,
            Err(_) if mda.dismiss(&identity, &mut queue) => return,
            Err(_) => continue,
        };
        if let Some(worker) = link.take_if(|link| link.is_closed()) {
            worker.close();
        }
        let worker = match &link {
            Some(worker) => worker.clone(),
            None => match start(&mda, &identity, &job.ticket).await {
                Ok(worker) => link.insert(worker).clone(),
                Err(outcome) => {
                    // Nobody may have left; the outcome is what the queue is told.
                    let _gone = job.answer.send(outcome.into());
                    continue;
                }
            },
        };
        hand_over(worker, job).await;
    }
}

/// Starts the worker, once there is a place for it.
async fn start(
    mda: &Arc<Mda>,
    identity: &Identity,
    ticket: &Sealed,
) -> Result<WorkerLink, Outcome> {
    let place = Arc::clone(&mda.places).acquire_owned().await;
    let Ok(place) = place else { return Err(temporary("no worker")) };
    let request = RoleToParent::StartWorker { identity: identity.clone(), ticket: ticket.clone() };
    let descriptor = match mda.shared.parent.request(&request, None).await {
        Ok((ParentToRole::Worker(Ok(())), Some(descriptor))) => descriptor,
        Ok((ParentToRole::Worker(Err(failure)), _)) => return Err(outcome_of(failure)),
        Ok(_) | Err(_) => return Err(temporary("worker could not be started")),
    };
    let (link, mut arrivals) =
        Link::open(descriptor, WINDOW).map_err(|_| temporary("worker could not be started"))?;
    let workers = Arc::clone(&mda.shared);
    workers.counters.workers.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(async move {
        // A worker only answers. Its place is free when it has left.
        while arrivals.recv().await.is_some() {}
        workers.counters.workers.fetch_sub(1, Ordering::Relaxed);
        drop(place);
    });
    Ok(link)
}

fn outcome_of(failure: WorkerFailure) -> Outcome {
    let (subject, detail) = failure.detail;
    let class = if failure.temporary { 4 } else { 5 };
    let status = EnhancedStatus::new(class, subject, detail);
    let told = Failure { text: failure.text, status };
    if failure.temporary { Outcome::Temporary(told) } else { Outcome::Permanent(told) }
}

/// Sends a job to the worker; its outcome is waited for in a task of its own.
async fn hand_over(worker: WorkerLink, job: Job) {
    let Job { ticket, body, answer } = job;
    let (body, pieces, descriptor) = match parts(body) {
        Ok(parts) => parts,
        Err(_) => {
            let _gone = answer.send(temporary("Cannot get message fd").into());
            return;
        }
    };
    let number = ticket.peek::<JobRecord>().map(|record| record.job).unwrap_or_default();
    let request = DispatcherToWorker::Deliver { ticket, body };
    let asked = match worker.ask(&request, descriptor).await {
        Ok(asked) => asked,
        Err(_) => {
            let _gone = answer.send(temporary("worker ended").into());
            return;
        }
    };
    tokio::spawn(async move {
        let _gone = answer.send(report_from(asked.reply().await));
    });
    for bytes in pieces {
        let piece = DispatcherToWorker::Piece { job: number, bytes: Blob(bytes) };
        if worker.notice(&piece, None).await.is_err() {
            return;
        }
    }
}

type Parts = (JobBody, Vec<Vec<u8>>, Option<OwnedFd>);

/// How a body travels.
fn parts(body: Body) -> std::io::Result<Parts> {
    match body {
        Body::File { file, size } => {
            let descriptor = file.try_clone()?.into();
            Ok((JobBody::Descriptor { size }, Vec::new(), Some(descriptor)))
        }
        Body::Memory(bytes) if bytes.len() <= INLINE => {
            Ok((JobBody::Inline(Blob(bytes.to_vec())), Vec::new(), None))
        }
        Body::Memory(bytes) if bytes.len() <= BODY_IN_LOG => {
            let pieces = bytes.chunks(PIECE).map(<[u8]>::to_vec).collect();
            Ok((JobBody::Pieces { size: bytes.len() as u64 }, pieces, None))
        }
        Body::Memory(_) => Err(std::io::ErrorKind::InvalidInput.into()),
    }
}

fn report_from(reply: Result<(WorkerToDispatcher, Option<OwnedFd>), LinkError>) -> Report {
    match reply {
        Ok((WorkerToDispatcher::Outcome(report), _)) => match &report.outcome {
            Outcome::Permanent(failure) | Outcome::Temporary(failure)
                if failure.text.len() > WORKER_ANSWER =>
            {
                temporary("the worker said too much").into()
            }
            _ => report,
        },
        Err(_) => temporary("worker ended").into(),
    }
}
