//! Local deliveries: jobs go to workers, one worker for each delivery identity.
//!
//! A worker is started when its first job comes and leaves by itself when it has had none for a
//! while. [`Mda::deliver`] answers each job once, whatever becomes of its worker.

mod crew;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::mta::Body;
use super::shared::Shared;
use crate::ipc::message::worker::Identity;
use crate::ipc::seal::Sealed;
use crate::model::Envelope;
use crate::model::outcome::{EnhancedStatus, Failure, Outcome, Report};
use crate::time::duration_to_text;

pub(crate) use crew::Job;

/// Workers at most, where the configuration sets no limit.
const MAX_WORKERS: usize = 50;

/// The workers of all identities.
#[derive(Debug)]
pub struct Mda {
    shared: Arc<Shared>,
    crews: Mutex<HashMap<Identity, mpsc::UnboundedSender<Job>>>,
    /// How many workers there may be.
    places: Arc<Semaphore>,
}

impl Mda {
    /// No workers yet.
    #[must_use]
    pub fn new(shared: &Arc<Shared>) -> Arc<Self> {
        let most = shared.setup.config.mda.max_session.get();
        let most = most.map_or(MAX_WORKERS, |most| (most as usize).max(1));
        Arc::new(Self {
            shared: Arc::clone(shared),
            crews: Mutex::new(HashMap::new()),
            places: Arc::new(Semaphore::new(most)),
        })
    }

    /// Delivers one envelope, and logs what came of it.
    pub async fn deliver(
        self: &Arc<Self>,
        envelope: &Envelope,
        identity: Identity,
        ticket: Sealed,
    ) -> Outcome {
        let report = match self.shared.body(envelope.id.message()).await {
            Ok(body) => self.give(identity, ticket, body).await,
            Err(none) => none.outcome().into(),
        };
        let report = Report { outcome: checked(report.outcome), exit: report.exit };
        log(envelope, &report);
        report.outcome
    }

    async fn give(self: &Arc<Self>, identity: Identity, ticket: Sealed, body: Body) -> Report {
        let (job, answer) = Job::new(ticket, body);
        {
            let mut crews = self.crews.lock().unwrap_or_else(PoisonError::into_inner);
            let refused = match crews.get(&identity) {
                Some(crew) => crew.send(job).err().map(|error| error.0),
                None => Some(job),
            };
            if let Some(job) = refused {
                let (jobs, queue) = mpsc::unbounded_channel();
                // The receiver is here: nothing is lost.
                let _never = jobs.send(job);
                crews.insert(identity.clone(), jobs);
                tokio::spawn(crew::serve(Arc::clone(self), identity, queue));
            }
        }
        answer.await.unwrap_or_else(|_| temporary("worker ended").into())
    }

    /// Takes a crew off the list, unless a job came for it meanwhile.
    fn dismiss(&self, identity: &Identity, queue: &mut mpsc::UnboundedReceiver<Job>) -> bool {
        let mut crews = self.crews.lock().unwrap_or_else(PoisonError::into_inner);
        if !queue.is_empty() {
            return false;
        }
        crews.remove(identity);
        queue.close();
        true
    }
}

/// An answer of a worker is taken for what it is: a text from outside.
fn checked(outcome: Outcome) -> Outcome {
    let clean = |failure: Failure| Failure {
        text: failure.text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        status: failure.status,
    };
    match outcome {
        Outcome::Permanent(failure) => Outcome::Permanent(clean(failure)),
        Outcome::Temporary(failure) => Outcome::Temporary(clean(failure)),
        Outcome::Delivered { .. } | Outcome::Loop => outcome,
    }
}

fn temporary(text: &str) -> Outcome {
    Outcome::Temporary(Failure { text: text.to_owned(), status: EnhancedStatus::new(4, 3, 0) })
}

fn log(envelope: &Envelope, report: &Report) {
    let result = match &report.outcome {
        Outcome::Delivered { .. } => "Ok",
        Outcome::Loop | Outcome::Permanent(_) => "PermFail",
        Outcome::Temporary(_) => "TempFail",
    };
    let user = match &envelope.route.kind {
        crate::model::DeliveryKind::Local(local) => local.user.as_str(),
        _ => "",
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let created = u64::try_from(envelope.progress.created).unwrap_or(0);
    let delay = duration_to_text(Duration::from_secs(now.saturating_sub(created)));
    tracing::info!(
        "{:016x} mda delivery evpid={} from=<{}> to=<{}> rcpt=<{}> user={user} delay={delay} \
         result={result} stat={}",
        u64::from(envelope.id.message().get()),
        envelope.id,
        envelope.origin.sender,
        envelope.route.destination,
        envelope.route.recipient,
        report.stat(),
    );
}
