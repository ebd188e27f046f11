//! What a connection asks the lookup role about those who log in.

use std::sync::Arc;

use super::action::{
    Answer, Authenticate, Authenticated, CheckSender, FoundVerifier, NoVerifier, RequestId,
};
use super::session::Session;
use crate::config::TableId;
use crate::dispatcher::shared::Shared;
use crate::ipc::blob::Blob;
use crate::ipc::message::lookup::{
    Credentials, DispatcherToLookup, LookupToDispatcher, Password, VerifierAnswer,
};
use crate::model::envelope::Source;

/// What the questions of one session have in common.
#[derive(Clone)]
pub(super) struct Logins {
    shared: Arc<Shared>,
    source: Source,
    /// Users of the listener.
    users: Option<TableId>,
    /// Their addresses.
    senders: Option<TableId>,
}

impl Logins {
    pub(super) fn new(shared: &Arc<Shared>, session: &Session) -> Self {
        Self {
            shared: Arc::clone(shared),
            source: session.peer.source,
            users: session.settings.auth.and_then(|auth| auth.table),
            senders: session.settings.senders.map(|senders| senders.table),
        }
    }

    /// The verdict on credentials. Where they are wrong, lookup has taken its time to say so.
    pub(super) async fn authenticate(self, asked: Box<Authenticate>) -> Answer {
        let Authenticate { request, user, password } = *asked;
        let question = DispatcherToLookup::Authenticate {
            table: self.users,
            user: Blob(user),
            password: Password(password),
            source: self.source,
        };
        Answer::Authenticated(request, self.verdict(question).await)
    }

    /// Notes what came of a proof.
    pub(super) async fn count_proof(self, request: RequestId, accepted: bool) -> Answer {
        let question = DispatcherToLookup::Proof { source: self.source, accepted };
        Answer::Authenticated(request, self.verdict(question).await)
    }

    async fn verdict(&self, question: DispatcherToLookup) -> Authenticated {
        match self.shared.lookup.request(&question, None).await {
            Ok((LookupToDispatcher::Authenticated(verdict), _)) => match verdict {
                Credentials::Accepted => Authenticated::Accepted,
                Credentials::Failed => Authenticated::Failed,
                Credentials::Limited => Authenticated::Limited,
                Credentials::Rejected => Authenticated::Rejected,
            },
            Ok(_) | Err(_) => Authenticated::Failed,
        }
    }

    /// The verifier of a user.
    pub(super) async fn find_verifier(self, request: RequestId, user: String) -> Answer {
        Answer::Verifier(request, self.verifier(user).await)
    }

    async fn verifier(&self, user: String) -> Result<FoundVerifier, NoVerifier> {
        let Some(table) = self.users else { return Err(NoVerifier::Failed) };
        let question = DispatcherToLookup::Verifier { table, user, source: self.source };
        let text = match self.shared.lookup.request(&question, None).await {
            Ok((LookupToDispatcher::Verifier(answer), _)) => match answer {
                VerifierAnswer::Failed => return Err(NoVerifier::Failed),
                VerifierAnswer::Found(text) => text,
                VerifierAnswer::Limited => return Err(NoVerifier::Limited),
                VerifierAnswer::Missing => return Err(NoVerifier::Missing),
            },
            Ok(_) | Err(_) => return Err(NoVerifier::Failed),
        };
        let nonce = self.nonce().ok_or(NoVerifier::Failed)?;
        Ok(FoundVerifier { text, nonce })
    }

    fn nonce(&self) -> Option<[u8; 18]> {
        let mut nonce = [0; 18];
        for part in nonce.chunks_mut(8) {
            let random = self.shared.random().ok()?.to_ne_bytes();
            part.copy_from_slice(random.get(..part.len())?);
        }
        Some(nonce)
    }

    /// Whether a user may send from an address.
    pub(super) async fn check_sender(self, asked: Box<CheckSender>) -> Answer {
        let CheckSender { request, user, sender } = *asked;
        let Some(table) = self.senders else { return Answer::Sender(request, None) };
        let question = DispatcherToLookup::Sender { table, user, sender };
        let allowed = match self.shared.lookup.request(&question, None).await {
            Ok((LookupToDispatcher::Sender(allowed), _)) => allowed,
            Ok(_) | Err(_) => None,
        };
        Answer::Sender(request, allowed)
    }
}
