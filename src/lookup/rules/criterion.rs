//! What a criterion of a rule says about a session and a recipient, as far as that is known without
//! tables.
//!
//! Everything here is to be compiled into its caller, which asks it for every rule.

use super::texts::Subject;
use super::{Client, Recipient, Session, Word};
use crate::config::{Destination, Login, Rule, Source, TableId, TableMatch};
use crate::table::Service;

/// What a criterion says.
pub(super) enum Test {
    /// Nothing: it is not written.
    Absent,
    /// This, whether it is negated or not.
    Known(bool),
    /// This, before negation.
    Plain { negated: bool, holds: bool },
    /// A table knows, before negation.
    Table { negated: bool, test: TableMatch, service: Service, subject: Subject },
}

/// Applies a criterion of a rule to a session and a recipient.
#[inline(always)] // `word` is a constant where it is called
pub(super) fn test(word: Word, rule: &Rule, session: &Session, recipient: Recipient<'_>) -> Test {
    match word {
        Word::Tag => tag(rule),
        Word::From => from(rule, session, recipient),
        Word::For => to(rule, recipient),
        Word::Helo => helo(rule),
        Word::Auth => auth(rule, session),
        Word::Tls => tls(rule, session),
        Word::MailFrom => mail_from(rule),
        Word::RcptTo => rcpt_to(rule),
    }
}

#[inline]
fn tag(rule: &Rule) -> Test {
    let Some(tag) = &rule.tag else { return Test::Absent };
    contains(tag.negated, tag.test, Service::String, Subject::Tag)
}

/// `from`. Its negation does not turn everything round: who has no name is not "someone else by
/// name", and what an expansion produced has no client.
#[inline]
fn from(rule: &Rule, session: &Session, recipient: Recipient<'_>) -> Test {
    let negated = rule.from.negated;
    let plain = |holds| Test::Plain { negated, holds };
    let local = recipient.internal || session.client == Client::Socket;
    match rule.from.test {
        Source::Any => plain(true),
        Source::Local if local => plain(true),
        Source::Local => contains(negated, LOCAL_HOST, Service::Netaddr, Subject::Client),
        Source::Socket | Source::Name(None) if recipient.internal => Test::Known(false),
        Source::Socket => plain(session.client == Client::Socket),
        Source::Name(None) => plain(session.client_name.is_some()),
        Source::Name(Some(_)) if recipient.internal => plain(false),
        Source::Name(Some(test)) => match &session.client_name {
            None => Test::Known(false),
            Some(_) => contains(negated, test, Service::Domain, Subject::ClientName),
        },
        Source::Src(test) => contains(negated, test, Service::Netaddr, Subject::Client),
    }
}

#[inline]
fn to(rule: &Rule, recipient: Recipient<'_>) -> Test {
    let negated = rule.to.negated;
    let domain = &recipient.address.domain;
    match rule.to.test {
        // No pattern matches an empty domain, not even that of all domains.
        Destination::Any => Test::Plain { negated, holds: !domain.is_empty() },
        Destination::Local => contains(negated, LOCAL_NAMES, Service::Domain, Subject::Domain),
        Destination::Domain(test) => contains(negated, test, Service::Domain, Subject::Domain),
    }
}

#[inline]
fn helo(rule: &Rule) -> Test {
    let Some(helo) = &rule.helo else { return Test::Absent };
    contains(helo.negated, helo.test, Service::Domain, Subject::Helo)
}

#[inline]
fn auth(rule: &Rule, session: &Session) -> Test {
    let Some(auth) = &rule.auth else { return Test::Absent };
    match (auth.test, &session.login) {
        (Login::User(test), Some(login)) => {
            let mail = login.contains('@');
            let service = if mail { Service::Mailaddr } else { Service::String };
            contains(auth.negated, test, service, Subject::Login)
        }
        (_, login) => Test::Plain { negated: auth.negated, holds: login.is_some() },
    }
}

#[inline]
fn tls(rule: &Rule, session: &Session) -> Test {
    let Some(tls) = &rule.tls else { return Test::Absent };
    Test::Plain { negated: tls.negated, holds: session.tls }
}

#[inline]
fn mail_from(rule: &Rule) -> Test {
    let Some(sender) = &rule.mail_from else { return Test::Absent };
    contains(sender.negated, sender.test, Service::Mailaddr, Subject::Sender)
}

#[inline]
fn rcpt_to(rule: &Rule) -> Test {
    let Some(wanted) = &rule.rcpt_to else { return Test::Absent };
    contains(wanted.negated, wanted.test, Service::Mailaddr, Subject::Recipient)
}

const LOCAL_HOST: TableMatch = TableMatch { table: TableId::LOCALHOST, regex: false };
const LOCAL_NAMES: TableMatch = TableMatch { table: TableId::LOCALNAMES, regex: false };

/// A test that a table decides; of regular expressions whatever it is about.
#[inline]
fn contains(negated: bool, test: TableMatch, service: Service, subject: Subject) -> Test {
    let service = if test.regex { Service::Regex } else { service };
    Test::Table { negated, test, service, subject }
}
