//! What each command checks, in order, and what it leads to.
//!
//! The first check that fails answers. Between the checks of a command and what it does is where
//! a filter of the listener is asked. Sources: RFC 5321 section 4.1; the SMTP page of the
//! specification, 1.6.

use jiff::Timestamp;

use super::action::{Action, ExpandRecipient};
use super::session::Session;
use super::settings::{Settings, UNKNOWN_HOSTNAME};
use super::state::{Greeting, Mail, Outcome, State};
use crate::message::{Additions, Options, Pipeline};
use crate::model::envelope::Origin;
use crate::proto::command::{self, Command, Verb};
use crate::proto::parameter::{self, Offered};
use crate::proto::trace::{self, Received};
use crate::proto::{address, reply};
use crate::time::time_to_text;

impl Session {
    /// Runs one command.
    pub(super) fn execute(
        &mut self,
        command: Command<'_>,
        now: Timestamp,
        output: &mut Vec<u8>,
    ) -> Outcome {
        let Command { verb, argument } = command;
        let forbids_argument = matches!(verb, Verb::Data | Verb::Help | Verb::Quit | Verb::Rset);
        if forbids_argument && argument.is_some() {
            return reply::NO_ARGUMENTS.into();
        }
        match verb {
            Verb::Auth => self.auth(),
            Verb::Bdat => self.bdat(),
            Verb::Data => self.data(now),
            Verb::Ehlo => self.greet(argument, true, output),
            Verb::Helo => self.greet(argument, false, output),
            Verb::Help => help(output),
            Verb::Mail => self.mail(argument.unwrap_or_default()),
            Verb::Noop => reply::OK.into(),
            Verb::Quit => Outcome::Close(reply::BYE.into()),
            Verb::Rcpt => self.recipient(argument.unwrap_or_default()),
            Verb::Rset => self.reset(),
            Verb::StartTls => self.start_tls(),
            Verb::Vrfy => reply::CANNOT_VERIFY.into(),
        }
    }

    /// HELO and EHLO. A second one resets the session (RFC 5321, section 4.1.4); a refused one
    /// changes nothing.
    fn greet(&mut self, argument: Option<&[u8]>, extended: bool, output: &mut Vec<u8>) -> Outcome {
        let Some(argument) = argument else {
            let needs = if extended { reply::EHLO_NEEDS_NAME } else { reply::HELO_NEEDS_NAME };
            return needs.into();
        };
        let name = std::str::from_utf8(argument).ok().filter(|name| address::is_domain(name));
        let Some(name) = name else { return reply::BAD_DOMAIN.into() };
        self.roll_back();
        self.greeting = Some(Greeting { name: name.into(), extended });
        let (server, client) = (self.server_name(), self.peer.bracketed_address());
        let hello = format!("{server} Hello {name} {client}, pleased to meet you");
        if !extended {
            return Outcome::Reply(format!("250 {hello}").into());
        }
        reply::write_line(output, &format!("250-{hello}"));
        for extension in self.extensions() {
            reply::write_line(output, &format!("250-{extension}"));
        }
        reply::write_line(output, "250 HELP");
        Outcome::Done
    }

    /// The extensions that this session may use now, in the order in which they are listed.
    /// HELP, the last line, is not among them.
    fn extensions(&self) -> impl Iterator<Item = String> {
        let settings = &self.settings;
        let always = |text: &str| Some(text.to_owned());
        let optional = |on: bool, text: &str| on.then(|| text.to_owned());
        [
            always("8BITMIME"),
            always("ENHANCEDSTATUSCODES"),
            Some(format!("SIZE {}", settings.max_message_size)),
            optional(settings.dsn, "DSN"),
            optional(settings.pipelining, "PIPELINING"),
            optional(settings.chunking, "CHUNKING"),
            optional(settings.smtputf8, "SMTPUTF8"),
            settings.limits.then(|| limits_line(settings)),
        ]
        .into_iter()
        .flatten()
    }

    /// STARTTLS where it is not offered.
    fn start_tls(&self) -> Outcome {
        if self.greeting.is_none() || self.transaction.is_some() {
            return reply::BAD_SEQUENCE.into();
        }
        reply::NOT_SUPPORTED.into()
    }

    /// AUTH where it is not offered. Local sessions are authenticated from the start.
    fn auth(&self) -> Outcome {
        if self.greeting.is_none() || self.transaction.is_some() {
            return reply::BAD_SEQUENCE.into();
        }
        if self.peer.is_local() {
            return reply::ALREADY_AUTHENTICATED.into();
        }
        reply::NOT_SUPPORTED.into()
    }

    /// BDAT where it is not offered.
    fn bdat(&self) -> Outcome {
        if self.transaction.as_ref().is_none_or(|t| t.recipients.is_empty()) {
            return reply::BAD_SEQUENCE.into();
        }
        reply::NOT_SUPPORTED.into()
    }

    fn mail(&mut self, argument: &[u8]) -> Outcome {
        if self.greeting.is_none() || self.transaction.is_some() {
            return reply::BAD_SEQUENCE.into();
        }
        if self.messages >= self.settings.max_messages {
            return reply::TOO_MANY_MESSAGES.into();
        }
        let Ok((sender, rest)) = address::reverse_path(argument, self.server_name()) else {
            return reply::BAD_SENDER.into();
        };
        let parameters = match parameter::mail(rest, self.offered()) {
            Ok(parameters) => parameters,
            Err(refused) => return Outcome::Reply(refused.0.into()),
        };
        let mail = Box::new(Mail { sender, parameters });
        if self.peer.hostname.is_none() {
            self.state = State::Naming { mail };
            return Outcome::Done;
        }
        self.lease(mail)
    }

    fn recipient(&mut self, argument: &[u8]) -> Outcome {
        let Some(transaction) = &self.transaction else { return reply::BAD_SEQUENCE.into() };
        if transaction.recipients.len() >= self.settings.max_recipients {
            return reply::TOO_MANY_RECIPIENTS.into();
        }
        let Ok((recipient, rest)) = address::forward_path(argument, self.server_name()) else {
            return reply::BAD_RECIPIENT.into();
        };
        let dsn = match parameter::recipient(rest, self.offered()) {
            Ok(dsn) => dsn,
            Err(refused) => return Outcome::Reply(refused.0.into()),
        };
        let (message, origin) = (transaction.lease.id, transaction.origin.clone());
        let request = self.next_request();
        let kept = Box::new((recipient.clone(), dsn.clone()));
        self.state = State::Expanding { request, recipient: kept };
        let expand = ExpandRecipient { request, message, origin, recipient, dsn };
        Outcome::Ask(Action::ExpandRecipient(Box::new(expand)))
    }

    fn data(&mut self, now: Timestamp) -> Outcome {
        let (Some(transaction), Some(greeting)) = (&self.transaction, &self.greeting) else {
            return reply::BAD_SEQUENCE.into();
        };
        if transaction.recipients.is_empty() {
            return reply::NO_RECIPIENT.into();
        }
        let settings = &self.settings;
        let date = time_to_text(now, &settings.zone);
        let address = self.peer.bracketed_address();
        let client = trace::Client {
            helo: &greeting.name,
            hostname: self.peer.hostname.as_deref().unwrap_or(UNKNOWN_HOSTNAME),
            address: &address,
        };
        let mut body = Vec::new();
        Received {
            client: (!settings.masks_source).then_some(client),
            by: self.server_name(),
            protocol: trace::protocol(greeting.extended, self.peer.is_local()),
            id: transaction.lease.id,
            recipient: match transaction.recipients.as_slice() {
                [only] => Some(&only.address),
                _ => None,
            },
            date: &date,
        }
        .write(&mut body);
        let completes = settings.completes_headers || self.peer.is_local();
        let message_id = format!("<{:016x}@{}>", transaction.lease.nonce, settings.listener_name);
        let pipeline = Pipeline::new(Options {
            domain: settings.listener_name.clone(),
            additions: completes.then_some(Additions { date, message_id }),
            lenient: self.peer.is_local(),
            max_size: settings.max_message_size,
        });
        if let Some(transaction) = &mut self.transaction {
            transaction.body = body;
        }
        self.state = State::Body(Box::new(pipeline));
        reply::ENTER_MAIL.into()
    }

    fn reset(&mut self) -> Outcome {
        if self.greeting.is_none() {
            return reply::BAD_SEQUENCE.into();
        }
        self.roll_back();
        reply::RESET.into()
    }

    /// What rules and reports will need to know of the message that `mail` begins.
    pub(super) fn origin(&self, mail: Mail) -> Origin {
        let hostname = self.peer.hostname.as_deref().unwrap_or(UNKNOWN_HOSTNAME);
        Origin {
            sender: mail.sender,
            smtp_name: self.server_name().to_string(),
            helo: self.greeting.as_ref().map(|g| g.name.to_string()).unwrap_or_default(),
            hostname: hostname.to_owned(),
            username: String::new(),
            source: self.peer.source,
            tag: self.settings.tag.to_string(),
            authenticated: self.peer.is_local(),
            ret: mail.parameters.ret,
            envid: mail.parameters.envid,
        }
    }

    fn offered(&self) -> Offered {
        Offered { dsn: self.settings.dsn, max_message_size: self.settings.max_message_size }
    }
}

/// LIMITS, with the limits that its six digits can tell (RFC 9422, section 4).
fn limits_line(settings: &Settings) -> String {
    let limits = [
        ("MAILMAX", u64::from(settings.max_messages)),
        ("RCPTMAX", settings.max_recipients as u64),
    ];
    let mut line = "LIMITS".to_owned();
    for (name, limit) in limits.into_iter().filter(|(_, limit)| (1..1_000_000).contains(limit)) {
        line.push_str(&format!(" {name}={limit}"));
    }
    line
}

/// HELP lists the commands.
fn help(output: &mut Vec<u8>) -> Outcome {
    reply::write_line(output, "214-2.0.0 This is Pillarbox");
    reply::write_line(output, &format!("214-2.0.0 Commands: {}", command::KNOWN));
    reply::write_line(output, "214 2.0.0 End of HELP info");
    Outcome::Done
}
