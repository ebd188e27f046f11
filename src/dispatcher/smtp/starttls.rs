//! Encryption of a session: STARTTLS, handshakes before the banner, and what follows from them.
//!
//! The handshake itself is the shell's: it is asked for with [`Action::StartTls`], and answered
//! with [`Answer::Secured`](super::Answer::Secured). Nothing that came before it is believed after
//! it: the client has to greet again, and whoever sends more behind STARTTLS, in clear text, does
//! not get an answer at all.
//!
//! Sources: RFC 3207; the SMTP page of the specification, 1.6, 1.12 (rule L4) and 3.2.

use super::action::{Action, Ending};
use super::event::LogEvent;
use super::input::InputBuffer;
use super::session::Session;
use super::settings::TlsOffer;
use super::state::{Outcome, State};
use crate::config::TlsMode;
use crate::filter::Event;
use crate::model::tls::Secured;
use crate::proto::reply;

impl Session {
    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secured.is_some()
    }

    /// Whether STARTTLS may be used now. It is also listed while there is no key: a client that
    /// insists on encryption then tries again later.
    pub(super) fn offers_tls(&self) -> bool {
        self.has_starttls() && !self.is_secure()
    }

    fn has_starttls(&self) -> bool {
        matches!(self.tls_mode(), Some(TlsMode::Offered | TlsMode::Required))
    }

    fn tls_mode(&self) -> Option<TlsMode> {
        self.settings.tls.as_ref().map(|tls| tls.mode)
    }

    fn has_keys(&self) -> bool {
        self.settings.tls.as_ref().is_some_and(TlsOffer::is_available)
    }

    /// Whether MAIL has to wait for STARTTLS.
    pub(super) fn lacks_tls(&self) -> bool {
        self.tls_mode() == Some(TlsMode::Required) && !self.is_secure()
    }

    /// Whether nothing may be written yet: this session begins with a handshake.
    pub(super) fn awaits_first_handshake(&self) -> bool {
        self.tls_mode() == Some(TlsMode::Immediate) && !self.is_secure()
    }

    /// Goes from the connection to its handshake.
    pub(super) fn start_first_handshake(&mut self) -> Option<Action> {
        if !self.has_keys() {
            self.close(Some(Ending::TlsUnavailable));
            return None;
        }
        self.state = State::Handshaking;
        Some(Action::StartTls)
    }

    /// What STARTTLS checks before filters are asked.
    pub(super) fn check_start_tls(&self, argument: Option<&[u8]>) -> Result<(), &'static str> {
        if self.greeting.is_none() || self.transaction.is_some() {
            return Err(reply::BAD_SEQUENCE);
        }
        if !self.has_starttls() {
            return Err(reply::NOT_SUPPORTED);
        }
        if self.is_secure() {
            return Err(reply::ALREADY_SECURE);
        }
        if argument.is_some() {
            return Err(reply::NO_PARAMETERS_ALLOWED);
        }
        Ok(())
    }

    /// STARTTLS. The reply comes when it is known that nothing was sent behind it.
    pub(super) fn start_tls(&mut self, argument: Option<&[u8]>) -> Outcome {
        if let Err(refused) = self.check_start_tls(argument) {
            return refused.into();
        }
        if !self.has_keys() {
            return reply::TLS_NOT_AVAILABLE.into();
        }
        self.state = State::Securing;
        Outcome::Done
    }

    /// Answers STARTTLS. What is in `input` now was sent in clear text by somebody who did not
    /// wait for that answer: it must not be taken for a part of what comes encrypted.
    pub(super) fn start_handshake(
        &mut self,
        input: &InputBuffer,
        output: &mut Vec<u8>,
    ) -> Option<Action> {
        if !input.is_empty() {
            let reply = reply::NO_PIPELINING.to_owned();
            self.events.push_back(LogEvent::BadInput { reply });
            self.close(None);
            return None;
        }
        self.write(reply::READY_FOR_TLS, output);
        self.state = State::Handshaking;
        Some(Action::StartTls)
    }

    /// Goes on after the handshake: to the banner, or to a new greeting.
    pub(super) fn is_secured(&mut self, secured: Box<Secured>) -> Outcome {
        let description = secured.description();
        self.report(|| Event::LinkTls { description: description.clone() });
        self.events.push_back(LogEvent::Secured(description));
        if let Some(fingerprint) = secured.fingerprint.clone() {
            let verified = secured.verified;
            self.events.push_back(LogEvent::Certificate { verified, fingerprint });
        }
        if self.awaits_first_handshake() {
            self.state = State::Banner;
        }
        self.greeting = None;
        self.secured = Some(secured);
        Outcome::Done
    }
}
