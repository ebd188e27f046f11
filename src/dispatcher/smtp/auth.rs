//! Logging in: AUTH, the lines that follow it, the verdict; and what a user may send from.
//!
//! What the lines mean is in [`crate::proto::sasl`], and who knows which password is the lookup
//! role's business. Credentials go there and to the filters of phase `auth`, and nowhere else: the
//! log has the name of the user alone.
//!
//! Sources: RFC 4954; the SMTP page of the specification, 1.6, 2.1 to 2.3, 2.5 and D6, D7, D27 of
//! section 9.

use super::action::{Action, Authenticate, Authenticated, CheckSender, FoundVerifier, NoVerifier};
use super::event::LogEvent;
use super::session::Session;
use super::state::{Mail, Outcome, State};
use crate::filter::{AuthResult, Event};
use crate::proto::reply;
use crate::proto::sasl::{Exchange, Mechanism, SaslError, Step, is_mechanism_name};
use crate::proto::scram::ChannelBinding;

impl Session {
    /// Whether the client has logged in, or is local.
    pub(super) fn is_authenticated(&self) -> bool {
        self.peer.is_local() || self.login.is_some()
    }

    /// Whether MAIL has to wait for AUTH.
    pub(super) fn lacks_login(&self) -> bool {
        self.settings.auth.is_some_and(|auth| auth.required) && !self.is_authenticated()
    }

    /// The line of EHLO, if AUTH may be used now.
    pub(super) fn auth_line(&self) -> Option<String> {
        if !self.offers_auth() {
            return None;
        }
        let offered = Mechanism::ALL.into_iter().filter(|one| self.offers(*one));
        Some(offered.fold("AUTH".to_owned(), |line, one| line + " " + one.name()))
    }

    fn offers_auth(&self) -> bool {
        self.settings.auth.is_some() && self.is_secure() && !self.is_authenticated()
    }

    fn offers(&self, mechanism: Mechanism) -> bool {
        let scram = self.settings.auth.is_some_and(|auth| auth.scram);
        match mechanism {
            Mechanism::Login | Mechanism::Plain => true,
            Mechanism::ScramSha256 => scram,
            Mechanism::ScramSha256Plus => scram && self.binding().is_some(),
        }
    }

    fn binding(&self) -> Option<ChannelBinding> {
        self.secured.as_ref().and_then(|secured| secured.exporter)
    }

    /// What AUTH checks before filters are asked; gives its argument.
    pub(super) fn check_auth<'a>(
        &self,
        argument: Option<&'a [u8]>,
    ) -> Result<&'a [u8], &'static str> {
        if self.greeting.is_none() || self.transaction.is_some() {
            return Err(reply::BAD_SEQUENCE);
        }
        if self.is_authenticated() {
            return Err(reply::ALREADY_AUTHENTICATED);
        }
        if !self.offers_auth() {
            return Err(reply::NOT_SUPPORTED);
        }
        argument.ok_or(reply::NO_PARAMETERS)
    }

    /// AUTH, with a mechanism and perhaps its first response.
    pub(super) fn auth(&mut self, argument: Option<&[u8]>) -> Outcome {
        let argument = match self.check_auth(argument) {
            Ok(argument) => argument,
            Err(refused) => return refused.into(),
        };
        let mut parts = argument.splitn(2, |&byte| byte == b' ');
        let (name, initial) = (parts.next().unwrap_or_default(), parts.next());
        let Some(mechanism) = Mechanism::from_name(name).filter(|one| self.offers(*one)) else {
            let name = match std::str::from_utf8(name) {
                Ok(name) if name.is_empty() || is_mechanism_name(name.as_bytes()) => name,
                _ => "(...)",
            };
            return Outcome::Reply(
                format!("{} AUTH method \"{name}\" not supported", reply::UNKNOWN_MECHANISM).into(),
            );
        };
        let mut exchange = Box::new(Exchange::new(mechanism, self.binding()));
        let step = exchange.begin(initial);
        self.exchange_step(exchange, step)
    }

    /// Takes a line that the exchange under way awaits.
    pub(super) fn exchange_line(&mut self, line: &[u8], output: &mut Vec<u8>) -> Option<Action> {
        let State::Exchanging(mut exchange) = std::mem::replace(&mut self.state, State::Command)
        else {
            return None;
        };
        self.report_command(None, b"********");
        let logged = exchange.log_name();
        let step = exchange.respond(line);
        let outcome = self.exchange_step(exchange, step);
        self.settle(outcome, logged.into(), output)
    }

    /// Does what an exchange asks for.
    fn exchange_step(&mut self, exchange: Box<Exchange>, step: Result<Step, SaslError>) -> Outcome {
        let request = self.next_request();
        let action = match step {
            Ok(Step::Challenge(text)) => {
                self.state = State::Exchanging(exchange);
                return Outcome::Reply(format!("334 {text}").into());
            }
            Ok(Step::Check(credentials)) => {
                self.state = State::Authenticating { request, exchange };
                let user = credentials.user.into_bytes();
                let password = credentials.password;
                Action::Authenticate(Box::new(Authenticate { request, user, password }))
            }
            Ok(Step::Find(user)) => {
                self.state = State::Verifying { request, exchange };
                Action::FindVerifier { request, user }
            }
            Ok(Step::Proved(accepted)) => {
                self.state = State::Authenticating { request, exchange };
                Action::CountProof { request, accepted }
            }
            Ok(Step::Success) => {
                self.verdict(AuthResult::Pass, exchange.user());
                self.login = Some(exchange.user().into());
                return reply::AUTHENTICATED.into();
            }
            Err(SaslError::Binding) => {
                self.verdict(AuthResult::Fail, exchange.user());
                return reply::WRONG_CREDENTIALS.into();
            }
            Err(SaslError::Syntax) => return reply::BAD_EXCHANGE.into(),
        };
        Outcome::Ask(action)
    }

    /// Goes on with the verifier of the user of SCRAM.
    pub(super) fn verifier_found(
        &mut self,
        mut exchange: Box<Exchange>,
        found: Result<FoundVerifier, NoVerifier>,
    ) -> Outcome {
        let found = found.and_then(|FoundVerifier { text, nonce }| {
            Ok((text.parse().map_err(|_| NoVerifier::Failed)?, nonce))
        });
        match found {
            Ok((verifier, nonce)) => {
                let step = exchange.verify(verifier, nonce);
                self.exchange_step(exchange, Ok(step))
            }
            Err(NoVerifier::Failed) => self.authenticated(exchange, Authenticated::Failed),
            Err(NoVerifier::Limited) => self.authenticated(exchange, Authenticated::Limited),
            Err(NoVerifier::Missing) => {
                self.verdict(AuthResult::Error, exchange.user());
                reply::OTHER_MECHANISM.into()
            }
        }
    }

    /// Goes on with the verdict on credentials or on a proof.
    pub(super) fn authenticated(
        &mut self,
        mut exchange: Box<Exchange>,
        verdict: Authenticated,
    ) -> Outcome {
        match verdict {
            Authenticated::Accepted => {
                // After SCRAM the client has yet to see who the server is.
                let step = exchange.confirm().unwrap_or(Step::Success);
                self.exchange_step(exchange, Ok(step))
            }
            Authenticated::Failed => {
                self.verdict(AuthResult::Error, exchange.user());
                reply::TEMPORARY_FAILURE.into()
            }
            Authenticated::Limited => {
                self.verdict(AuthResult::Error, exchange.user());
                Outcome::Close(reply::TOO_MANY_FAILURES.into())
            }
            Authenticated::Rejected => {
                self.verdict(AuthResult::Fail, exchange.user());
                reply::WRONG_CREDENTIALS.into()
            }
        }
    }

    fn verdict(&mut self, result: AuthResult, user: &str) {
        self.report(|| Event::LinkAuth { result, user: user.as_bytes().to_vec() });
        self.events.push_back(LogEvent::Authentication { user: user.to_owned(), result });
    }

    /// Asks whether the user may send from the address of `mail`, where that is limited.
    pub(super) fn check_sender(&mut self, mail: Box<Mail>) -> Outcome {
        let (Some(user), Some(_)) = (&self.login, &self.settings.senders) else {
            return self.name_or_lease(mail);
        };
        let (user, sender) = (user.to_string(), mail.sender.clone());
        let request = self.next_request();
        self.state = State::CheckingSender { request, mail };
        Outcome::Ask(Action::CheckSender(Box::new(CheckSender { request, user, sender })))
    }

    /// Goes on with what is known of the sender. The session goes on in any case.
    pub(super) fn sender_checked(&mut self, mail: Box<Mail>, allowed: Option<bool>) -> Outcome {
        match allowed {
            Some(true) => self.name_or_lease(mail),
            Some(false) => reply::SENDER_REJECTED.into(),
            None => reply::TEMPORARY_ERROR.into(),
        }
    }
}
