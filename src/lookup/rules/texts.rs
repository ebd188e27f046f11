//! What tables are asked about in a search, as text; each is made once.

use std::cell::OnceCell;

use super::{Asked, Client, Recipient, Session};
use crate::table::Service;
use crate::table::few::{FewTables, Key};

/// The client that is this machine itself, as tables name it.
const LOCAL: &str = "local";

/// What a table is asked about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Subject {
    /// The address of the client.
    Client,
    /// Its name.
    ClientName,
    /// The domain of the recipient.
    Domain,
    /// The argument of HELO or EHLO.
    Helo,
    /// Who has logged in.
    Login,
    /// The recipient.
    Recipient,
    /// The envelope sender.
    Sender,
    /// The tag of the listener.
    Tag,
}

impl Subject {
    /// How many there are.
    const COUNT: usize = Self::Tag as usize + 1;
}

/// What is made for tables, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts {
    client: OnceCell<String>,
    recipient: OnceCell<String>,
    sender: OnceCell<String>,
    /// By [`Subject`].
    keys: [OnceCell<Option<Box<Key>>>; Subject::COUNT],
}

impl Texts {
    /// What tables of a few entries are looked through for; `None` where they have to be asked. But for
    /// regular expressions a subject is always compared under the same service.
    #[inline]
    pub(super) fn key(
        &self,
        few: &FewTables,
        asked: Asked,
        session: &Session,
        recipient: Recipient<'_>,
    ) -> Option<&Key> {
        let Asked { service, subject, .. } = asked;
        if service == Service::Regex {
            return None;
        }
        let made = self
            .keys
            .get(subject as usize)?
            .get_or_init(|| few.key(service, self.of(subject, session, recipient)).map(Box::new));
        made.as_deref()
    }

    /// The text of a subject.
    #[inline]
    pub(super) fn of<'a>(
        &'a self,
        subject: Subject,
        session: &'a Session,
        recipient: Recipient<'a>,
    ) -> &'a str {
        match subject {
            Subject::Client => match &session.client {
                Client::Address(address) if !recipient.internal => {
                    self.client.get_or_init(|| address.to_string())
                }
                _ => LOCAL,
            },
            Subject::ClientName => session.client_name.as_deref().unwrap_or_default(),
            Subject::Domain => &recipient.address.domain,
            Subject::Helo => &session.helo,
            Subject::Login => session.login.as_deref().unwrap_or_default(),
            Subject::Recipient => self.recipient.get_or_init(|| recipient.address.to_string()),
            Subject::Sender => self.sender.get_or_init(|| session.sender.to_string()),
            Subject::Tag => &session.tag,
        }
    }
}
