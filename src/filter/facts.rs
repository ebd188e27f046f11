//! What is known of a session when its filters decide.

use super::{AuthResult, Event, Fcrdns, Phase};
use crate::model::envelope::Source;

/// Facts of one session: first what its beginning tells, then what questions and events add.
///
/// Arguments of commands are those that filters were asked about, before any rewriting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Facts {
    /// The client's name, `<unknown>` without one.
    pub hostname: String,
    /// Whether the name leads back to the address.
    pub fcrdns: Fcrdns,
    /// Where it connected from.
    pub source: Source,
    /// Argument of HELO or EHLO.
    pub helo: Option<String>,
    /// Who has logged in.
    pub user: Option<String>,
    /// What MAIL had between its brackets.
    pub mail_from: Option<String>,
    /// What RCPT had between its brackets.
    pub rcpt_to: Option<String>,
}

impl Facts {
    /// What is known when a client has connected.
    #[must_use]
    pub fn new(hostname: String, fcrdns: Fcrdns, source: Source) -> Self {
        let (helo, user, mail_from, rcpt_to) = (None, None, None, None);
        Self { hostname, fcrdns, source, helo, user, mail_from, rcpt_to }
    }

    /// Filters are asked about this.
    pub fn asked(&mut self, phase: Phase, parameter: &[u8]) {
        let slot = match phase {
            Phase::Helo | Phase::Ehlo => &mut self.helo,
            Phase::MailFrom => &mut self.mail_from,
            Phase::RcptTo => &mut self.rcpt_to,
            _ => return,
        };
        *slot = Some(String::from_utf8_lossy(parameter).into_owned());
    }

    /// This has happened.
    pub fn happened(&mut self, event: &Event) {
        if let Event::LinkAuth { result: AuthResult::Pass, user } = event {
            self.user = Some(String::from_utf8_lossy(user).into_owned());
        }
    }

    /// Whether the client has a name, which an address in brackets is not.
    #[must_use]
    pub fn has_name(&self) -> bool {
        self.hostname != "<unknown>"
            && !self.hostname.starts_with('[')
            && self.hostname.parse::<std::net::IpAddr>().is_err()
    }
}
