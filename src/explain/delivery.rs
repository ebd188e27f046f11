//! What a delivery will do: who delivers, by which command or into which path, to which server.
//!
//! Local deliveries are planned as a worker plans them ([`crate::worker::plan`]); nothing is run.

use std::num::NonZeroU32;
use std::path::Path;

use super::report::{Delivery, Local, Relay, Way};
use super::request::Request;
use super::sources::{Known, Sources};
use crate::config::{ActionKind, Config, LocalAction, RelayAction, SenderRewrite, TableId};
use crate::ipc::message::worker::{Identity, JobRecord, Method};
use crate::lookup::expand::{self, DeliveryKind, Target};
use crate::model::envelope::Exec;
use crate::model::{Mailbox, MessageId};
use crate::table::{Account, Answer, Question};
use crate::worker::plan::{Plan, plan};

/// What a description of deliveries needs.
pub struct Describer<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Tables and accounts.
    pub sources: &'a Sources<'a>,
    /// What was asked.
    pub request: &'a Request,
    /// Directory of helper programs.
    pub libexec: &'a str,
    /// Directory of mailboxes.
    pub mailboxes: &'a Path,
}

impl Describer<'_> {
    /// The delivery with this number (from 1) of `recipient`; `None` for one of another
    /// configuration.
    #[must_use]
    pub fn describe(
        &self,
        number: usize,
        recipient: &Mailbox,
        delivery: &expand::Delivery,
    ) -> Option<Delivery> {
        let action = self.config.action(delivery.action)?;
        let way = match (&delivery.kind, &action.kind) {
            (DeliveryKind::Local { user, tag, target }, ActionKind::Local(local)) => {
                let destination =
                    Mailbox::new(&delivery.destination.local, &delivery.destination.domain).ok()?;
                let job = Job { action: local, user, tag: tag.as_deref(), target };
                Way::Local(self.local(&job, recipient, &destination)?)
            }
            (DeliveryKind::Relay, ActionKind::Relay(relay)) => {
                Way::Relay(self.relay(relay, &delivery.destination.domain))
            }
            _ => return None,
        };
        let destination = delivery.destination.to_string();
        Some(Delivery { number, action: action.name.clone(), destination, way })
    }

    fn local(&self, job: &Job<'_>, recipient: &Mailbox, destination: &Mailbox) -> Option<Local> {
        let exec = match job.target {
            Target::Command(line) => Some(Exec::Command(line.clone())),
            Target::File(path) => Some(Exec::File(path.clone())),
            Target::Method => None,
        };
        let method = Method::of(job.action, exec.as_ref())?;
        let account = job.action.user.as_deref().unwrap_or(job.user);
        let mut told = Local {
            user: job.user.to_owned(),
            subaddress: job.tag.unwrap_or_default().to_owned(),
            account: account.to_owned(),
            method: None,
            target: None,
            lmtp_recipient: None,
            problem: None,
        };
        let wrapper = job.action.wrapper.and_then(|id| self.config.wrapper(id));
        let mailbox_only = method == Method::Mbox && wrapper.is_none();
        let owner = match self.identity(job, account) {
            Ok(owner) if owner.uid == 0 && !mailbox_only => {
                told.problem = Some(format!("MDA not allowed to deliver to: {account}"));
                return Some(told);
            }
            Ok(owner) => owner,
            Err(problem) => {
                told.problem = Some(problem);
                return Some(told);
            }
        };
        let directory = match self.home_of(job) {
            Ok(directory) => directory,
            Err(problem) => {
                told.problem = Some(problem);
                return Some(told);
            }
        };
        let programs = wrapper.is_some() || method.starts_programs();
        let record = JobRecord {
            job: 1,
            envelope: MessageId::new(1)?.envelope(NonZeroU32::MIN),
            identity: Identity {
                account: account.to_owned(),
                userbase: None,
                root_mailbox: false,
                programs,
            },
            user: job.user.to_owned(),
            userbase: None,
            method,
            overridden: false,
            wrapper: wrapper.map(|wrapper| wrapper.command.clone()),
            sender: self.request.sender.clone(),
            recipient: recipient.clone(),
            destination: destination.clone(),
            subaddress: told.subaddress.clone(),
            delimiter: self.config.smtp.sub_address_delimiter.to_string(),
        };
        match plan(&record, Path::new(&owner.home), &directory, self.libexec) {
            Err(error) => told.problem = Some(error.to_string()),
            Ok(planned) => self.fill(&mut told, planned),
        }
        Some(told)
    }

    fn fill(&self, told: &mut Local, planned: Plan) {
        let (method, target) = match planned {
            Plan::Append { path } => ("file", path.display().to_string()),
            Plan::Lmtp { destination, recipient } => {
                told.lmtp_recipient = Some(recipient);
                ("lmtp", destination)
            }
            Plan::Maildir { path, junk } => {
                let method = if junk { "maildir junk" } else { "maildir" };
                (method, path.display().to_string())
            }
            Plan::Mailbox => ("mailbox", self.mailboxes.join(&told.account).display().to_string()),
            Plan::Shell { line, .. } => ("command", line),
        };
        told.method = Some(method);
        told.target = Some(target);
    }

    /// The account that delivers.
    fn identity(&self, job: &Job<'_>, account: &str) -> Result<Account, String> {
        if job.action.user.is_none() {
            return self.account(job.action.userbase, account);
        }
        match self.sources.account(account) {
            Answer::Account(Some(found)) => Ok(found),
            Answer::Account(None) => Err(format!("delivery user '{account}' does not exist")),
            _ => Err("Temporary failure in user lookup".to_owned()),
        }
    }

    /// The home of the recipient.
    fn home_of(&self, job: &Job<'_>) -> Result<String, String> {
        self.account(job.action.userbase, job.user).map(|account| account.home)
    }

    fn account(&self, table: TableId, name: &str) -> Result<Account, String> {
        let question = Question::Account { table, name: name.to_owned() };
        match self.sources.answer(&question) {
            Known::Answer(Answer::Account(Some(account))) => Ok(account),
            Known::Answer(Answer::Account(None)) => {
                Err("Permanent failure in user lookup".to_owned())
            }
            Known::Answer(_) => Err("Temporary failure in user lookup".to_owned()),
            Known::Unknown(because) => {
                Err(format!("the account of {name} is not known: {because}"))
            }
        }
    }

    fn relay(&self, action: &RelayAction, domain: &str) -> Relay {
        let entries = |table: Option<TableId>| {
            table.map(|table| self.sources.in_turn(table)).unwrap_or_default()
        };
        let (hosts, sources) = (entries(action.host), entries(action.source));
        let missing = (action.host.is_some() && hosts.is_empty())
            || (action.source.is_some() && sources.is_empty());
        Relay {
            exchangers_of: action.host.is_none().then(|| domain.to_owned()),
            hosts,
            sources,
            helo: action.helo.clone().unwrap_or_else(|| self.config.server_name.clone()),
            sender: self.sender(action.mail_from.as_ref()),
            problem: missing.then(|| "what its tables hold is not known".to_owned()),
        }
    }

    /// The sender after `mail-from`, which leaves the null sender alone.
    fn sender(&self, rewrite: Option<&SenderRewrite>) -> String {
        let (Some(sender), Some(rewrite)) = (&self.request.sender.0, rewrite) else {
            return self.request.sender.as_str().to_owned();
        };
        let local = rewrite.local.as_deref().unwrap_or(sender.local());
        let domain = rewrite.domain.as_deref().unwrap_or(sender.domain());
        format!("{local}@{domain}")
    }
}

/// One local delivery of an expansion.
struct Job<'a> {
    action: &'a LocalAction,
    user: &'a str,
    tag: Option<&'a str>,
    target: &'a Target,
}
