//! Recipients: their expansion, what it asks and reads, and the routes that come of it.

use std::sync::Arc;

use jiff::Timestamp;

use super::super::address::Address;
use super::super::expand::{
    Contents, Delivery, DeliveryKind, Expansion, Note, Reading, Refusal, Step, Target,
};
use super::super::rules::{Client, Session};
use super::{Lookup, Responding, reply};
use crate::config::{LocalAddress, TableSource};
use crate::ipc::message::lookup::{
    Expansion as Answered, LookupToDispatcher, SealedRoute, SessionFacts,
};
use crate::ipc::message::reader::{ForwardFile, Reads};
use crate::ipc::seal::Sealed;
use crate::model::envelope::{self, Exec, LocalDelivery, Route, Source};
use crate::model::{Mailbox, ReversePath};
use crate::proto::address::to_ascii;
use crate::table::Answer;

/// Reply when the expansion itself failed.
const TEMPORARY: &str = "451 Temporary failure";

impl Lookup {
    /// Expands as far as tables in memory go; what has to be asked or read goes on in a task.
    pub(super) fn expand(self: &Arc<Self>, job: Job, responder: Responding) {
        let address = |mailbox: &Mailbox| Address::new(mailbox.local(), mailbox.domain());
        let (sender, recipient) = (&job.sender, &job.recipient);
        let original =
            self.srs.as_ref().and_then(|srs| srs.turn_back(sender, recipient, Timestamp::now()));
        let mut expansion = match &original {
            Some(original) => Expansion::of_own(address(original), &self.setup.daemon_user),
            None => Expansion::new(address(recipient), &self.setup.daemon_user),
        };
        let mut step = self.advance(&job, &mut expansion, None);
        while let Step::Ask(question) = &step
            && let Some(known) = self.known(question)
        {
            step = self.advance(&job, &mut expansion, Some(&known));
        }
        match step {
            Step::Done(result) => self.finish(&job, result, responder),
            step => {
                tokio::spawn(Arc::clone(self).expand_on(job, expansion, step, responder));
            }
        }
    }

    async fn expand_on(
        self: Arc<Self>,
        job: Job,
        mut expansion: Expansion,
        mut step: Step,
        responder: Responding,
    ) {
        loop {
            let answer = match step {
                Step::Done(result) => return self.finish(&job, result, responder),
                Step::Ask(question) => Some(self.answer_to(&question).await),
                Step::Read(reading) => {
                    expansion.supply(self.read(reading).await);
                    None
                }
            };
            step = self.advance(&job, &mut expansion, answer.as_ref());
        }
    }

    fn advance(&self, job: &Job, expansion: &mut Expansion, answer: Option<&Answer>) -> Step {
        let step = expansion.advance(&self.setup.config, &self.few, &job.session, answer);
        for note in expansion.take_notes() {
            match note {
                Note::Info(text) => tracing::info!("info: {text}"),
                Note::Warning(text) => tracing::warn!("warn: {text}"),
            }
        }
        step
    }

    /// Has a file read by whoever may read it.
    async fn read(&self, reading: Reading) -> Contents {
        let (userbase, name, account) = match reading {
            Reading::Include { path } => {
                return Contents::Include(self.readers.include(&path).await);
            }
            Reading::Forward { userbase, name, account } => (userbase, name, account),
        };
        let declared = self.setup.config.table(userbase).map(|table| &table.source);
        let reads = match declared {
            _ if self.setup.rootless => Reads::Daemon,
            Some(TableSource::Users) => Reads::System(name),
            // Of which there is but one.
            _ if account.uid == 0 => Reads::System("root".to_owned()),
            _ => Reads::Entry { uid: account.uid, gid: account.gid },
        };
        // Who is not root reads for nobody else, and delivers to nobody else.
        let foreign = self.setup.rootless && account.uid != platform::privilege::effective_uid();
        if account.home.is_empty() || foreign {
            return Contents::Forward(ForwardFile::Absent);
        }
        Contents::Forward(self.readers.forward(reads, account.home).await)
    }

    fn finish(&self, job: &Job, result: Result<Vec<Delivery>, Refusal>, responder: Responding) {
        let answered = match result {
            Ok(deliveries) => match self.seal(job, deliveries) {
                Some(routes) => Answered::Accepted(routes),
                None => Answered::Refused { reply: TEMPORARY.to_owned() },
            },
            Err(refusal) => {
                tracing::debug!("debug: lookup: <{}>: {refusal}", job.recipient);
                Answered::Refused { reply: refusal.line().to_owned() }
            }
        };
        reply(responder, &LookupToDispatcher::Expanded(answered));
    }

    fn seal(&self, job: &Job, deliveries: Vec<Delivery>) -> Option<Vec<Sealed>> {
        let mut routes = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            let route = self.route(job, delivery)?;
            let sealed =
                SealedRoute { transaction: job.transaction, sender: job.sender.clone(), route };
            routes.push(self.key.seal(&sealed).ok()?);
        }
        Some(routes)
    }

    fn route(&self, job: &Job, delivery: Delivery) -> Option<Route> {
        let Address { local, domain } = &delivery.destination;
        // An alias may name a domain as people write it; one that is none is given up at the look-up.
        let domain = to_ascii(domain).unwrap_or_else(|| domain.into());
        let destination = Mailbox::new(local, &domain).ok()?;
        let kind = match delivery.kind {
            DeliveryKind::Relay => envelope::DeliveryKind::Relay,
            DeliveryKind::Local { user, tag, target } => {
                let exec = match target {
                    Target::Command(line) => Some(Exec::Command(line)),
                    Target::File(path) => Some(Exec::File(path)),
                    Target::Method => None,
                };
                let subaddress = tag.unwrap_or_default();
                envelope::DeliveryKind::Local(LocalDelivery { user, exec, subaddress })
            }
        };
        Some(Route {
            internal: destination != job.recipient,
            recipient: job.recipient.clone(),
            destination,
            action: self.setup.config.action(delivery.action)?.name.clone(),
            kind,
        })
    }
}

/// A recipient to expand.
pub(super) struct Job {
    pub(super) transaction: u64,
    pub(super) session: Session,
    pub(super) sender: ReversePath,
    pub(super) recipient: Mailbox,
}

/// What rules may ask about a session.
pub(super) fn facts(facts: &SessionFacts, sender: &ReversePath) -> Session {
    let client = match facts.source {
        Source::Ip(address) => Client::Address(LocalAddress::from(address)),
        Source::Local => Client::Socket,
    };
    let login =
        if facts.authenticated { Some(facts.username.clone().unwrap_or_default()) } else { None };
    let sender = sender.0.as_ref();
    Session {
        tag: facts.tag.clone(),
        client,
        client_name: (!facts.reverse_name.is_empty()).then(|| facts.reverse_name.clone()),
        helo: facts.helo.clone(),
        login,
        tls: facts.secure,
        sender: sender.map(|m| Address::new(m.local(), m.domain())).unwrap_or_default(),
    }
}
