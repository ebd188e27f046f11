//! What each command checks, in order, and what it leads to.
//!
//! The first check that fails answers. Between the checks of a command and what it does is where
//! a filter of the listener is asked. Sources: RFC 5321 section 4.1; the SMTP page of the
//! specification, 1.6.

use std::sync::Arc;

use jiff::Timestamp;

use super::action::{Action, ExpandRecipient};
use super::filtered_body::FilteredBody;
use super::session::Session;
use super::settings::{Settings, UNKNOWN_HOSTNAME};
use super::state::{Greeting, Mail, Outcome, State};
use super::transaction::Transaction;
use crate::filter::{Event, Phase, bracketed};
use crate::message::{Additions, Framing, Options, Pipeline};
use crate::model::envelope::{Origin, Smtputf8};
use crate::model::{Mailbox, ReversePath};
use crate::proto::address::{self, Charset};
use crate::proto::command::{self, Command, Verb};
use crate::proto::parameter::{self, Offered};
use crate::proto::reply;
use crate::proto::trace::{self, Received};
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
        if let Some(asked) = self.ask_about(command) {
            return asked;
        }
        self.perform(command, now, output)
    }

    /// The filter phase of a command that passes everything checked before it, and the parameter;
    /// `None` for a command that filters do not decide, or that will be refused without them.
    ///
    /// What a command checks before its filters are asked is in its `check_…`, which it calls
    /// first when it is performed: also once they have answered, with the argument that they made.
    pub(super) fn phase_of<'a>(&self, command: Command<'a>) -> Option<(Phase, &'a [u8])> {
        let Command { verb, argument } = command;
        let text = argument.unwrap_or_default();
        let (passed, phase, parameter): (bool, Phase, &[u8]) = match verb {
            Verb::Auth => (self.check_auth(argument).is_ok(), Phase::Auth, text),
            Verb::Bdat => (self.begins_chunks(argument), Phase::Data, b""),
            Verb::Data => (self.check_data().is_ok(), Phase::Data, b""),
            Verb::Ehlo => (self.check_greeting(argument, true).is_ok(), Phase::Ehlo, text),
            Verb::Helo => (self.check_greeting(argument, false).is_ok(), Phase::Helo, text),
            Verb::Help | Verb::Vrfy => return None,
            Verb::Mail => {
                (self.check_mail(text).is_ok(), Phase::MailFrom, bracketed(text).unwrap_or(b""))
            }
            Verb::Noop => (true, Phase::Noop, b""),
            Verb::Quit => (true, Phase::Quit, b""),
            Verb::Rcpt => {
                (self.check_recipient(text).is_ok(), Phase::RcptTo, bracketed(text).unwrap_or(b""))
            }
            Verb::Rset => (self.check_reset().is_ok(), Phase::Rset, b""),
            Verb::StartTls => (self.check_start_tls(argument).is_ok(), Phase::StartTls, b""),
        };
        passed.then_some((phase, parameter))
    }

    /// Runs a command that no filter has anything against.
    pub(super) fn perform(
        &mut self,
        command: Command<'_>,
        now: Timestamp,
        output: &mut Vec<u8>,
    ) -> Outcome {
        let Command { verb, argument } = command;
        match verb {
            Verb::Auth => self.auth(argument),
            Verb::Bdat => self.bdat(argument, now),
            Verb::Data => self.data(now),
            Verb::Ehlo => self.greet(argument, true, output),
            Verb::Helo => self.greet(argument, false, output),
            Verb::Help => self.help(output),
            Verb::Mail => self.mail(argument.unwrap_or_default()),
            Verb::Noop => reply::OK.into(),
            Verb::Quit => Outcome::Close(reply::BYE.into()),
            Verb::Rcpt => self.recipient(argument.unwrap_or_default()),
            Verb::Rset => self.reset(output),
            Verb::StartTls => self.start_tls(argument),
            Verb::Vrfy => reply::CANNOT_VERIFY.into(),
        }
    }

    /// HELO and EHLO. A second one resets the session (RFC 5321, section 4.1.4); a refused one
    /// changes nothing.
    fn greet(&mut self, argument: Option<&[u8]>, extended: bool, output: &mut Vec<u8>) -> Outcome {
        let name = match self.check_greeting(argument, extended) {
            Ok(name) => name,
            Err(refused) => return refused.into(),
        };
        self.roll_back();
        self.greeting = Some(Greeting { name: name.into(), extended });
        self.report(|| Event::LinkIdentify {
            method: if extended { "EHLO" } else { "HELO" }.to_owned(),
            name: name.to_owned(),
        });
        let (server, client) = (self.server_name(), self.peer.bracketed_address());
        let hello = format!("{server} Hello {name} {client}, pleased to meet you");
        if !extended {
            return Outcome::Reply(format!("250 {hello}").into());
        }
        let extensions: Vec<String> = self.extensions().collect();
        self.write(&format!("250-{hello}"), output);
        for extension in extensions {
            self.write(&format!("250-{extension}"), output);
        }
        self.write("250 HELP", output);
        Outcome::Done
    }

    fn check_greeting<'a>(
        &self,
        argument: Option<&'a [u8]>,
        extended: bool,
    ) -> Result<&'a str, &'static str> {
        if self.is_mute() {
            return Err(reply::BAD_SEQUENCE);
        }
        let Some(argument) = argument else {
            return Err(if extended { reply::EHLO_NEEDS_NAME } else { reply::HELO_NEEDS_NAME });
        };
        let name = std::str::from_utf8(argument).ok().filter(|name| address::is_domain(name));
        name.ok_or(reply::BAD_DOMAIN)
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
            optional(self.offers_chunking(), "CHUNKING"),
            optional(settings.smtputf8, "SMTPUTF8"),
            settings.limits.then(|| limits_line(settings)),
            optional(self.offers_tls(), "STARTTLS"),
            self.auth_line(),
        ]
        .into_iter()
        .flatten()
    }

    fn mail(&mut self, argument: &[u8]) -> Outcome {
        let (sender, rest) = match self.check_mail(argument) {
            Ok(parts) => parts,
            Err(refused) => return refused.into(),
        };
        let parameters = match parameter::mail(rest, self.offered()) {
            Ok(parameters) => parameters,
            Err(refused) => {
                self.report_unnumbered();
                return Outcome::Reply(refused.0.into());
            }
        };
        if !parameters.smtputf8 && !path_in(argument, rest).is_ascii() {
            return reply::BAD_SENDER.into();
        }
        self.check_sender(Box::new(Mail { sender, parameters }))
    }

    fn check_mail<'a>(&self, argument: &'a [u8]) -> Result<(ReversePath, &'a [u8]), &'static str> {
        if self.greeting.is_none() || self.transaction.is_some() {
            return Err(reply::BAD_SEQUENCE);
        }
        if self.lacks_tls() {
            return Err(reply::TLS_REQUIRED);
        }
        if self.lacks_login() {
            return Err(reply::AUTH_REQUIRED);
        }
        if self.messages >= self.settings.max_messages {
            return Err(reply::TOO_MANY_MESSAGES);
        }
        address::reverse_path(argument, self.server_name(), self.charset())
            .map_err(|_| reply::BAD_SENDER)
    }

    fn recipient(&mut self, argument: &[u8]) -> Outcome {
        let (transaction, recipient, rest) = match self.check_recipient(argument) {
            Ok(parts) => parts,
            Err(refused) => return refused.into(),
        };
        let smtputf8 = transaction.origin.smtputf8 != Smtputf8::Absent;
        let dsn = match parameter::recipient(rest, Offered { smtputf8, ..self.offered() }) {
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

    fn check_recipient<'a>(
        &self,
        argument: &'a [u8],
    ) -> Result<(&Transaction, Mailbox, &'a [u8]), &'static str> {
        let transaction = self.transaction.as_deref().filter(|t| t.chunks.is_none());
        let transaction = transaction.ok_or(reply::BAD_SEQUENCE)?;
        if transaction.recipients.len() >= self.settings.max_recipients {
            return Err(reply::TOO_MANY_RECIPIENTS);
        }
        let (recipient, rest) = address::forward_path(argument, self.server_name(), self.charset())
            .map_err(|_| reply::BAD_RECIPIENT)?;
        let is_plain = transaction.origin.smtputf8 == Smtputf8::Absent;
        if is_plain && !path_in(argument, rest).is_ascii() {
            return Err(reply::NOT_ASCII);
        }
        Ok((transaction, recipient, rest))
    }

    /// What addresses may be written in.
    fn charset(&self) -> Charset {
        if self.settings.smtputf8 { Charset::Utf8 } else { Charset::Ascii }
    }

    fn check_data(&self) -> Result<(), &'static str> {
        let Some(transaction) = &self.transaction else { return Err(reply::BAD_SEQUENCE) };
        if transaction.recipients.is_empty() {
            return Err(reply::NO_RECIPIENT);
        }
        if self.has_chunks() { Err(reply::BAD_SEQUENCE) } else { Ok(()) }
    }

    fn data(&mut self, now: Timestamp) -> Outcome {
        if let Err(refused) = self.check_data() {
            return refused.into();
        }
        let framing = if self.peer.is_local() { Framing::Lenient } else { Framing::Strict };
        let Some((options, trace)) = self.content(now, framing) else {
            return reply::BAD_SEQUENCE.into();
        };
        if self.filters_lines() {
            self.state = State::FilteredBody(Box::new(FilteredBody::new(trace, options)));
            return reply::ENTER_MAIL.into();
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.body = trace;
        }
        self.state = State::Body(Box::new(Pipeline::new(options)));
        reply::ENTER_MAIL.into()
    }

    /// How the content of the transaction is received, and the trace headers in front of it; `None`
    /// without a transaction.
    pub(super) fn content(&self, now: Timestamp, framing: Framing) -> Option<(Options, Vec<u8>)> {
        let (transaction, greeting) = (self.transaction.as_ref()?, self.greeting.as_ref()?);
        let settings = &self.settings;
        let date = time_to_text(now, &settings.zone);
        let address = self.peer.bracketed_address();
        let client = trace::Client {
            helo: &greeting.name,
            hostname: self.peer.hostname.as_deref().unwrap_or(UNKNOWN_HOSTNAME),
            address: &address,
        };
        let secured = self.secured.as_ref().map(|it| (it.description(), it.verified));
        let login = self.login.as_deref().map_or(trace::Login::Nobody, trace::Login::User);
        let mut body = Vec::new();
        if transaction.junk || self.is_junk() {
            body.extend_from_slice(b"X-Spam: Yes\n");
        }
        Received {
            client: (!settings.masks_source).then_some(client),
            by: self.server_name(),
            protocol: trace::Protocol {
                extended: greeting.extended,
                secure: self.is_secure(),
                authenticated: self.is_authenticated(),
                utf8: transaction.origin.smtputf8 != Smtputf8::Absent,
            },
            id: transaction.lease.id,
            encryption: secured.as_ref().map(|(description, verified)| trace::Encryption {
                description,
                verified: *verified,
                login: settings.received_auth.then_some(login),
            }),
            recipient: match transaction.recipients.as_slice() {
                // One that is not ASCII would keep the message from servers without SMTPUTF8, also
                // where an alias has led away from it.
                [only] => Some(&only.address).filter(|address| address.as_str().is_ascii()),
                _ => None,
            },
            date: &date,
        }
        .write(&mut body);
        let completes = settings.completes_headers || self.peer.is_local();
        let message_id = format!("<{:016x}@{}>", transaction.lease.nonce, settings.listener_name);
        let options = Options {
            domain: settings.listener_name.clone(),
            additions: completes.then_some(Additions { date, message_id }),
            masquerade: self.masquerade(transaction),
            framing,
            max_size: settings.max_message_size,
            // With filters our own header is one of the message's, whether they see it or not.
            received: usize::from(self.filters.is_some() && !self.filters_lines()),
        };
        Some((options, body))
    }

    /// What addresses in the header From become: the sender, for who has logged in on a listener
    /// that wants that. A message without sender keeps what it has.
    fn masquerade(&self, transaction: &Transaction) -> Option<Arc<str>> {
        let wanted = self.login.is_some() && self.settings.senders.is_some_and(|it| it.masquerade);
        let sender = transaction.origin.sender.as_str();
        (wanted && !sender.is_empty()).then(|| Arc::from(sender))
    }

    fn reset(&mut self, output: &mut Vec<u8>) -> Outcome {
        if let Err(refused) = self.check_reset() {
            return refused.into();
        }
        self.write(reply::RESET, output);
        self.roll_back();
        Outcome::Done
    }

    fn check_reset(&self) -> Result<(), &'static str> {
        if self.greeting.is_none() { Err(reply::BAD_SEQUENCE) } else { Ok(()) }
    }

    /// HELP lists the commands.
    fn help(&mut self, output: &mut Vec<u8>) -> Outcome {
        self.write("214-2.0.0 This is Pillarbox", output);
        self.write(&format!("214-2.0.0 Commands: {}", command::KNOWN), output);
        self.write("214 2.0.0 End of HELP info", output);
        Outcome::Done
    }

    /// What rules and reports will need to know of the message that `mail` begins.
    pub(super) fn origin(&self, mail: Mail) -> Origin {
        let hostname = self.peer.hostname.as_deref().unwrap_or(UNKNOWN_HOSTNAME);
        Origin {
            sender: mail.sender,
            smtp_name: self.server_name().to_string(),
            helo: self.greeting.as_ref().map(|g| g.name.to_string()).unwrap_or_default(),
            hostname: hostname.to_owned(),
            username: self.login.as_deref().unwrap_or_default().to_owned(),
            source: self.peer.source,
            tag: self.settings.tag.to_string(),
            authenticated: self.is_authenticated(),
            ret: mail.parameters.ret,
            envid: mail.parameters.envid,
            smtputf8: match mail.parameters.smtputf8 {
                true => Smtputf8::Addresses,
                false => Smtputf8::Absent,
            },
        }
    }

    fn offered(&self) -> Offered {
        Offered {
            dsn: self.settings.dsn,
            smtputf8: self.settings.smtputf8,
            max_message_size: self.settings.max_message_size,
        }
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

/// The path at the beginning of an argument, whose rest is `rest`.
fn path_in<'a>(argument: &'a [u8], rest: &[u8]) -> &'a [u8] {
    argument.get(..argument.len() - rest.len()).unwrap_or_default()
}
