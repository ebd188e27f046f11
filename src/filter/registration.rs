//! What a filter program has registered: the events it is told, the phases it decides.
//!
//! Lines before `register|ready`, and those that come later all the same. The texts of errors are
//! those that administrators know.
//!
//! Source: section 5.3 of the SMTP page.

use super::{Direction, Event, Phase};

/// The events that a program may register for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum EventName {
    /// `link-connect`
    LinkConnect,
    /// `link-disconnect`
    LinkDisconnect,
    /// `link-greeting`
    LinkGreeting,
    /// `link-identify`
    LinkIdentify,
    /// `link-tls`
    LinkTls,
    /// `link-auth`
    LinkAuth,
    /// `tx-reset`
    TxReset,
    /// `tx-begin`
    TxBegin,
    /// `tx-mail`
    TxMail,
    /// `tx-rcpt`
    TxRcpt,
    /// `tx-envelope`
    TxEnvelope,
    /// `tx-data`
    TxData,
    /// `tx-commit`
    TxCommit,
    /// `tx-rollback`
    TxRollback,
    /// `protocol-client`
    ProtocolClient,
    /// `protocol-server`
    ProtocolServer,
    /// `filter-report`
    FilterReport,
    /// `filter-response`
    FilterResponse,
    /// `timeout`
    Timeout,
}

impl EventName {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::LinkConnect,
        Self::LinkDisconnect,
        Self::LinkGreeting,
        Self::LinkIdentify,
        Self::LinkTls,
        Self::LinkAuth,
        Self::TxReset,
        Self::TxBegin,
        Self::TxMail,
        Self::TxRcpt,
        Self::TxEnvelope,
        Self::TxData,
        Self::TxCommit,
        Self::TxRollback,
        Self::ProtocolClient,
        Self::ProtocolServer,
        Self::FilterReport,
        Self::FilterResponse,
        Self::Timeout,
    ];

    /// Its word in lines.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::LinkConnect => "link-connect",
            Self::LinkDisconnect => "link-disconnect",
            Self::LinkGreeting => "link-greeting",
            Self::LinkIdentify => "link-identify",
            Self::LinkTls => "link-tls",
            Self::LinkAuth => "link-auth",
            Self::TxReset => "tx-reset",
            Self::TxBegin => "tx-begin",
            Self::TxMail => "tx-mail",
            Self::TxRcpt => "tx-rcpt",
            Self::TxEnvelope => "tx-envelope",
            Self::TxData => "tx-data",
            Self::TxCommit => "tx-commit",
            Self::TxRollback => "tx-rollback",
            Self::ProtocolClient => "protocol-client",
            Self::ProtocolServer => "protocol-server",
            Self::FilterReport => "filter-report",
            Self::FilterResponse => "filter-response",
            Self::Timeout => "timeout",
        }
    }

    /// The name of what has happened.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        match event {
            Event::LinkConnect { .. } => Self::LinkConnect,
            Event::LinkGreeting { .. } => Self::LinkGreeting,
            Event::LinkIdentify { .. } => Self::LinkIdentify,
            Event::LinkTls { .. } => Self::LinkTls,
            Event::LinkAuth { .. } => Self::LinkAuth,
            Event::LinkDisconnect => Self::LinkDisconnect,
            Event::Timeout => Self::Timeout,
            Event::TxBegin(_) => Self::TxBegin,
            Event::TxMail(..) => Self::TxMail,
            Event::TxRcpt(..) => Self::TxRcpt,
            Event::TxEnvelope(_) => Self::TxEnvelope,
            Event::TxData(..) => Self::TxData,
            Event::TxCommit(..) => Self::TxCommit,
            Event::TxRollback(_) => Self::TxRollback,
            Event::TxReset(_) => Self::TxReset,
            Event::ProtocolClient(_) => Self::ProtocolClient,
            Event::ProtocolServer(_) => Self::ProtocolServer,
        }
    }
}

/// Counts by event: who registers twice is told twice.
type Counts = [u8; EventName::ALL.len()];

/// All that one program has registered.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Registrations {
    incoming: Counts,
    outgoing: Counts,
    phases: u16,
}

/// What a registering line brought about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Registered {
    /// An event or a phase more.
    More,
    /// That was all.
    Ready,
}

/// A line that registers nothing known. It holds what the program said, as it came.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RegisterError {
    /// Neither `report` nor `filter`.
    #[error("Invalid register line received: {0}")]
    Line(String),
    /// Neither `smtp-in` nor, for reports, `smtp-out`.
    #[error("Invalid message direction: {0}")]
    Direction(String),
    /// An event or a phase that does not exist.
    #[error("Unrecognized report name: {0}")]
    Name(String),
}

impl Registrations {
    /// Reads a line after its `register|`, without line end.
    ///
    /// # Errors
    /// [`RegisterError`]; nothing is registered then.
    pub fn register(&mut self, rest: &[u8]) -> Result<Registered, RegisterError> {
        if rest == b"ready" {
            return Ok(Registered::Ready);
        }
        if let Some(hook) = rest.strip_prefix(b"report|") {
            self.report(hook)?;
        } else if let Some(hook) = rest.strip_prefix(b"filter|") {
            self.filter(hook)?;
        } else {
            return Err(RegisterError::Line(format!("register|{}", lossy(rest))));
        }
        Ok(Registered::More)
    }

    fn report(&mut self, hook: &[u8]) -> Result<(), RegisterError> {
        let (counts, name) = if let Some(name) = hook.strip_prefix(b"smtp-in|") {
            (&mut self.incoming, name)
        } else if let Some(name) = hook.strip_prefix(b"smtp-out|") {
            (&mut self.outgoing, name)
        } else {
            return Err(RegisterError::Direction(lossy(hook)));
        };
        let mut known = false;
        for (event, count) in EventName::ALL.into_iter().zip(counts) {
            if name == b"*" || name == event.word().as_bytes() {
                *count = count.saturating_add(1);
                known = true;
            }
        }
        if known { Ok(()) } else { Err(RegisterError::Name(lossy(name))) }
    }

    fn filter(&mut self, hook: &[u8]) -> Result<(), RegisterError> {
        const DIRECTION: &[u8] = b"smtp-in|";
        let name = match hook.split_at_checked(DIRECTION.len()) {
            // Here alone the case of the direction does not count.
            Some((direction, name)) if direction.eq_ignore_ascii_case(DIRECTION) => name,
            _ => return Err(RegisterError::Direction(lossy(hook))),
        };
        let named = |phase: &Phase| phase.name().as_bytes() == name;
        match Phase::ALL.iter().find(|phase| named(phase)) {
            Some(phase) => self.phases |= phase.bit(),
            None => return Err(RegisterError::Name(lossy(name))),
        }
        Ok(())
    }

    /// How often the program is told of this event.
    #[must_use]
    pub fn times(&self, direction: Direction, event: EventName) -> u8 {
        self.counts(direction).get(event as usize).copied().unwrap_or_default()
    }

    /// Whether it is told of anything in sessions of this direction.
    #[must_use]
    pub fn hears(&self, direction: Direction) -> bool {
        self.counts(direction).iter().any(|count| *count > 0)
    }

    /// The phases that it decides, as in [`Phase::bit`].
    #[must_use]
    pub fn phases(&self) -> u16 {
        self.phases
    }

    fn counts(&self, direction: Direction) -> &Counts {
        match direction {
            Direction::In => &self.incoming,
            Direction::Out => &self.outgoing,
        }
    }
}

pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_case::ran;

    #[test]
    fn what_registers_nothing_known_is_said_in_known_words() {
        let cases = [
            (6, "filter|smtp-in|data-lines", "Unrecognized report name: data-lines"),
            (8, "filter|smtp-out|connect", "Invalid message direction: smtp-out|connect"),
            (9, "filter|smtp-in|*", "Unrecognized report name: *"),
            (0, "report|smtp-in|connect", "Unrecognized report name: connect"),
            (0, "report|SMTP-IN|*", "Invalid message direction: SMTP-IN|*"),
            (0, "report|smtp-in", "Invalid message direction: smtp-in"),
            (0, "filter|smtp-in", "Invalid message direction: smtp-in"),
            (0, "hello", "Invalid register line received: register|hello"),
            (0, "ready|now", "Invalid register line received: register|ready|now"),
            (0, "", "Invalid register line received: register|"),
        ];
        for (number, line, expected) in cases {
            let mut registrations = Registrations::default();
            let error = registrations.register(line.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), expected, "case F{number}");
            assert_eq!(registrations, Registrations::default(), "{line}");
            ran("filter", number);
        }
    }

    #[test]
    fn events_and_phases_are_registered_one_by_one() {
        let mut all = Registrations::default();
        assert_eq!(all.register(b"report|smtp-in|*"), Ok(Registered::More));
        assert_eq!(all.register(b"report|smtp-in|tx-mail"), Ok(Registered::More));
        assert_eq!(all.register(b"report|smtp-out|tx-rcpt"), Ok(Registered::More));
        assert_eq!(all.register(b"filter|SMTP-in|wiz"), Ok(Registered::More));
        assert_eq!(all.register(b"filter|smtp-in|data-line"), Ok(Registered::More));
        assert_eq!(all.register(b"ready"), Ok(Registered::Ready));
        for event in EventName::ALL {
            let twice = event == EventName::TxMail;
            assert_eq!(all.times(Direction::In, event), 1 + u8::from(twice), "{}", event.word());
            let told = u8::from(event == EventName::TxRcpt);
            assert_eq!(all.times(Direction::Out, event), told, "{}", event.word());
        }
        assert_eq!(all.phases(), Phase::Wiz.bit() | Phase::DataLine.bit());
        assert!(all.hears(Direction::Out) && !Registrations::default().hears(Direction::In));
    }

    #[test]
    fn every_phase_can_be_registered_by_its_name() {
        for phase in Phase::ALL {
            let mut registrations = Registrations::default();
            let line = format!("filter|smtp-in|{}", phase.name());
            assert_eq!(registrations.register(line.as_bytes()), Ok(Registered::More));
            assert_eq!(registrations.phases(), phase.bit());
        }
    }
}
