//! The loop of the lookup role: answers the dispatcher from tables, rules and name servers.
//!
//! What needs no outside answer is answered at once; the rest in a task of its own.

mod login;
mod recipients;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use platform::Role;

use self::recipients::{Job, facts};
use super::credentials::{Logins, Prepared};
use super::dns::{Dns, DnsConfig};
use super::maps::{Maps, warn_about_expression};
use super::programs::Programs;
use super::readers::Readers;
use super::rewriting::Rewriting;
use super::users::Users;
use crate::config::{LocalAddress, TableId, TableSource};
use crate::ipc::link::{Arrived, Link, Responder};
use crate::ipc::message::control::{ControlToLookup, LookupToControl};
use crate::ipc::message::lookup::{DispatcherToLookup, ListPurpose, LookupToDispatcher};
use crate::ipc::message::parent::{ParentToRole, Peer, RoleToParent, Setup};
use crate::ipc::message::spawner::{self, UserAnswer};
use crate::ipc::seal::Key;
use crate::process::{self, Context, Memory, ParentLink, StartError, Threads};
use crate::table::few::FewTables;
use crate::table::{Account, Answer, Question, Service, Tables, UpdateError};

/// Largest table file that is read, in bytes.
const MAX_TABLE: u64 = 512 * 1024 * 1024;

/// How the dispatcher is answered.
type Responding = Responder<LookupToDispatcher, DispatcherToLookup>;

/// Runs the role.
pub fn run() -> ExitCode {
    process::run(Role::Lookup, Threads::One, prepare, serve)
}

/// Reads what name resolution and hashes need, which is out of reach later.
fn prepare(setup: &Setup) -> Result<(Dns, Prepared), StartError> {
    let config = match setup.resolvers.first() {
        Some(server) => DnsConfig::with_server(*server),
        None => DnsConfig::from_system(),
    };
    let dns = Dns::new(config).map_err(|error| StartError::Prepare {
        what: "name resolution".to_owned(),
        source: io::Error::other(error.to_string()),
    })?;
    Ok((dns, Prepared::load()))
}

async fn serve(context: Context, (dns, prepared): (Dns, Prepared)) {
    let tables = Arc::new(Tables::new(&context.setup.config));
    for (id, path) in Tables::files(&context.setup.config) {
        if let Err(reason) = load(&context.parent, &tables, id, path, Loading::First).await {
            // The parent has read it already: questions to it fail until it can be read again.
            tracing::warn!("warn: lookup: {reason}");
        }
    }
    let maps = Maps::new(&context.parent, &context.setup.config, &tables);
    maps.open().await;
    context.ready().await;
    let Context { setup, parent, mut orders, memory, .. } = context;
    let Some(key) = setup.keys.route.clone() else {
        tracing::error!("fatal: lookup: no key for routes");
        return;
    };
    let logins = Logins::new(&parent, prepared, &key);
    let srs = setup.keys.srs.clone().map(|keys| Rewriting::new(keys, setup.config.srs.days));
    let lookup = Arc::new(Lookup {
        logins,
        users: Users::new(&parent),
        programs: Programs::start(&setup.config, &parent),
        readers: Readers::new(&parent),
        srs,
        tables,
        few: FewTables::new(&setup.config),
        maps,
        parent,
        key,
        dns,
        setup,
        memory,
        expansions: AtomicI64::new(0),
    });
    while let Some(order) = orders.recv().await {
        match (order.message, order.descriptor) {
            (ParentToRole::Attach { peer }, Some(descriptor)) => {
                if let Err(error) = lookup.attach(peer, descriptor) {
                    tracing::error!("warn: lookup: channel: {error}");
                }
            }
            (ParentToRole::LookUpIn { userbase, name }, _) => {
                let lookup = Arc::clone(&lookup);
                tokio::spawn(async move {
                    let answer = RoleToParent::Entry(lookup.entry(&userbase, name).await);
                    // A parent that is gone does not wait.
                    let _gone = order.responder.reply(&answer, None);
                });
            }
            (ParentToRole::Switch(switches), _) => crate::log::set_verbose(switches.verbose),
            _ => {}
        }
    }
}

/// Why a table's file is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Loading {
    /// The role begins.
    First,
    /// An administrator wants it.
    Update,
}

/// Reads a table whose file the parent opens. The old contents stay if that fails; why, is told in
/// words that begin with the path.
async fn load(
    parent: &ParentLink,
    tables: &Arc<Tables>,
    id: TableId,
    path: &str,
    loading: Loading,
) -> Result<(), String> {
    let request = RoleToParent::OpenFile { table: id.0, update: loading == Loading::Update };
    let file = match parent.request(&request, None).await {
        Ok((ParentToRole::File { error: None }, Some(descriptor))) => Ok(File::from(descriptor)),
        Ok((ParentToRole::File { error: Some(error) }, _)) => Err(error),
        Ok(_) => Err("the parent did not answer the question".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let file = file.map_err(|reason| format!("{path}: {reason}"))?;
    let reader = Arc::clone(tables);
    // A large file takes a while, and a slow disk a long one: others are answered meanwhile.
    let read = tokio::task::spawn_blocking(move || -> Result<(), Unread> {
        Ok(reader.update(id, text_of(&file)?)?)
    });
    match read.await {
        Ok(Ok(())) => {}
        Ok(Err(Unread::Text(error))) => return Err(format!("{path}:{error}")),
        Ok(Err(Unread::File(error))) => return Err(format!("{path}: {error}")),
        Err(panic) => return Err(format!("{path}: {panic}")),
    }
    for pattern in tables.invalid_expressions(id) {
        warn_about_expression(path, &pattern);
    }
    Ok(())
}

/// Why a file's text is not a table's.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    Text(#[from] UpdateError),
}

/// The text of a file, in a buffer of its length.
fn text_of(file: &File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    if length > MAX_TABLE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut text = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.take(MAX_TABLE).read_to_end(&mut text)?;
    text.shrink_to_fit();
    Ok(text)
}

/// What answers need.
struct Lookup {
    setup: Setup,
    parent: ParentLink,
    tables: Arc<Tables>,
    few: FewTables,
    maps: Maps,
    programs: Programs,
    users: Users,
    readers: Arc<Readers>,
    logins: Logins,
    srs: Option<Rewriting>,
    dns: Dns,
    key: Key,
    memory: Memory,
    expansions: AtomicI64,
}

impl Lookup {
    fn attach(self: &Arc<Self>, peer: Peer, descriptor: OwnedFd) -> io::Result<()> {
        let credits = self.setup.credits;
        let lookup = Arc::clone(self);
        match peer {
            Peer::Control => {
                let (_, mut arrivals) =
                    Link::<LookupToControl, ControlToLookup>::open(descriptor, credits)?;
                tokio::spawn(async move {
                    while let Some(arrived) = arrivals.recv().await {
                        // A table takes a while.
                        tokio::spawn(Arc::clone(&lookup).answer_control(arrived));
                    }
                });
            }
            Peer::Dispatcher => {
                let (_, mut arrivals) = Link::open(descriptor, credits)?;
                tokio::spawn(async move {
                    while let Some(arrived) = arrivals.recv().await {
                        lookup.answer(arrived);
                    }
                });
            }
            Peer::Keys | Peer::Lookup | Peer::Queue | Peer::Scheduler => {}
        }
        Ok(())
    }

    async fn answer_control(self: Arc<Self>, arrived: Arrived<LookupToControl, ControlToLookup>) {
        let message = match arrived.message {
            ControlToLookup::Statistics => {
                let count = self.expansions.load(Ordering::Relaxed);
                let counters = vec![("lookup.expansion".to_owned(), count)];
                LookupToControl::Statistics(self.memory.snapshot(counters))
            }
            ControlToLookup::UpdateTable { name } => {
                LookupToControl::Updated { done: self.update_table(&name).await }
            }
        };
        // A control role that is gone does not wait.
        let _gone = arrived.responder.reply(&message, None);
    }

    /// Makes a table what its source says now. What has no source of its own is so already.
    async fn update_table(&self, name: &str) -> bool {
        let shown = name.escape_debug();
        let found = self.setup.config.table_named(name);
        let Some((id, table)) = found.and_then(|id| Some((id, self.setup.config.table(id)?)))
        else {
            tracing::warn!("warn: Lookup table not found: \"{shown}\"");
            return false;
        };
        let updated = match &table.source {
            TableSource::BuiltIn(_) | TableSource::Inline(_) | TableSource::Users => Ok(()),
            TableSource::Db(path) => {
                self.maps.reopen(id).await.map_err(|reason| format!("{path}: {reason}"))
            }
            TableSource::File(path) => {
                load(&self.parent, &self.tables, id, path, Loading::Update).await
            }
            TableSource::Program { .. } => {
                self.programs.update(id).await.map_err(|error| error.to_string())
            }
        };
        match updated {
            Ok(()) => tracing::info!("info: Table \"{shown}\" successfully updated"),
            Err(ref reason) => {
                tracing::warn!("warn: {reason}");
                tracing::info!("info: Failed to update table \"{shown}\"");
            }
        }
        updated.is_ok()
    }

    fn answer(self: &Arc<Self>, arrived: Arrived<LookupToDispatcher, DispatcherToLookup>) {
        let lookup = Arc::clone(self);
        let responder = arrived.responder;
        match arrived.message {
            DispatcherToLookup::Expand { transaction, session, sender, recipient } => {
                self.expansions.fetch_add(1, Ordering::Relaxed);
                let job = Job { transaction, session: facts(&session, &sender), sender, recipient };
                self.expand(job, responder);
            }
            DispatcherToLookup::Authenticate { table, user, password, source } => {
                tokio::spawn(async move {
                    let verdict = lookup.authenticate(table, user, password, source).await;
                    reply(responder, &LookupToDispatcher::Authenticated(verdict));
                });
            }
            DispatcherToLookup::Client { address } => {
                tokio::spawn(async move {
                    let name = lookup.dns.reverse(address).await;
                    reply(responder, &LookupToDispatcher::Client(name));
                });
            }
            DispatcherToLookup::Exchanges { domain } => {
                tokio::spawn(async move {
                    let exchanges = lookup.dns.mx(&domain).await;
                    reply(responder, &LookupToDispatcher::Exchanges(exchanges));
                });
            }
            DispatcherToLookup::Contains { table, service, key } => {
                let question = Question::Contains { table, service, key };
                let found = |answer: Answer| match answer {
                    Answer::Contains(found) => LookupToDispatcher::Contains(Some(found)),
                    _ => LookupToDispatcher::Contains(None),
                };
                match lookup.known(&question) {
                    Some(answer) => reply(responder, &found(answer)),
                    None => {
                        tokio::spawn(async move {
                            reply(responder, &found(lookup.ask(&question).await));
                        });
                    }
                }
            }
            DispatcherToLookup::ForwardedSender { sender, recipient } => {
                let now = Timestamp::now();
                let sender = match &self.srs {
                    Some(srs) => srs.rewrite(sender, &recipient, now),
                    None => sender,
                };
                reply(responder, &LookupToDispatcher::ForwardedSender(sender));
            }
            DispatcherToLookup::Host { name } => {
                tokio::spawn(async move {
                    let exchanges = lookup.dns.host(&name).await.map(|exchange| vec![exchange]);
                    reply(responder, &LookupToDispatcher::Exchanges(exchanges));
                });
            }
            DispatcherToLookup::AddressName { table, address } => {
                tokio::spawn(async move {
                    let key = LocalAddress::from(address).to_string();
                    let name = lookup.value(&table, Service::Addrname, key).await;
                    reply(responder, &LookupToDispatcher::Value(name));
                });
            }
            DispatcherToLookup::Mechanisms { table } => {
                tokio::spawn(async move {
                    let scram = lookup.offers_scram(table).await;
                    reply(responder, &LookupToDispatcher::Mechanisms { scram });
                });
            }
            DispatcherToLookup::Proof { source, accepted } => {
                tokio::spawn(async move {
                    let verdict = lookup.logins.judged(source, accepted).await;
                    reply(responder, &LookupToDispatcher::Authenticated(verdict));
                });
            }
            DispatcherToLookup::Sender { table, user, sender } => {
                tokio::spawn(async move {
                    let allowed = lookup.may_send(table, &user, &sender).await;
                    reply(responder, &LookupToDispatcher::Sender(allowed));
                });
            }
            DispatcherToLookup::Verifier { table, user, source } => {
                tokio::spawn(async move {
                    let verifier = lookup.verifier(table, &user, source).await;
                    reply(responder, &LookupToDispatcher::Verifier(verifier));
                });
            }
            DispatcherToLookup::List { table, purpose } => {
                tokio::spawn(async move {
                    let list = lookup.list(&table, purpose).await;
                    reply(responder, &LookupToDispatcher::List(list));
                });
            }
            DispatcherToLookup::RelayHost { table, domain } => {
                tokio::spawn(async move {
                    let url = lookup.value(&table, Service::Relayhost, domain).await;
                    reply(responder, &LookupToDispatcher::Value(url));
                });
            }
        }
    }

    /// The value of a key in a table; `None` without one, or if the table could not be read.
    async fn value(&self, table: &str, service: Service, key: String) -> Option<String> {
        let table = self.setup.config.table_named(table)?;
        let question = Question::Value { table, service, key };
        match self.answer_to(&question).await {
            Answer::Value(value) => value,
            _ => None,
        }
    }

    /// What is used in turn, in its order: all keys of a table, or the next one that a program says.
    async fn list(&self, table: &str, purpose: ListPurpose) -> Option<Vec<String>> {
        let id = self.setup.config.table_named(table)?;
        match self.setup.config.table(id)?.source {
            TableSource::Db(_) => self.maps.keys(id).await,
            TableSource::Program { .. } => {
                let service = match purpose {
                    ListPurpose::RelayHost => Service::Relayhost,
                    ListPurpose::Source => Service::Source,
                };
                let next = self.programs.fetch(id, service).await.ok()?;
                Some(next.into_iter().collect())
            }
            TableSource::BuiltIn(_)
            | TableSource::File(_)
            | TableSource::Inline(_)
            | TableSource::Users => {
                let table = self.tables.get(id)?;
                Some((0..table.len()).filter_map(|turn| table.in_turn(turn)).collect())
            }
        }
    }

    /// An entry of a userbase, for who delivers.
    async fn entry(&self, userbase: &str, name: String) -> UserAnswer {
        let Some(table) = self.setup.config.table_named(userbase) else {
            return UserAnswer::Failed(format!("there is no table {userbase}"));
        };
        let question = Question::Account { table, name: name.clone() };
        match self.answer_to(&question).await {
            Answer::Account(Some(Account { uid, gid, home })) => {
                let groups = vec![gid];
                UserAnswer::Found(spawner::Account { name, uid, gid, groups, home })
            }
            Answer::Account(None) => UserAnswer::NotFound,
            _ => UserAnswer::Failed(format!("table {userbase} could not answer")),
        }
    }

    async fn answer_to(&self, question: &Question) -> Answer {
        match self.known(question) {
            Some(answer) => answer,
            None => self.ask(question).await,
        }
    }

    /// The answer, if it is at hand.
    fn known(&self, question: &Question) -> Option<Answer> {
        self.tables.answer(question).or_else(|| match (question, self.source(question)?) {
            (Question::Account { name, .. }, TableSource::Users) => self.users.known(name),
            (_, TableSource::Db(_)) => self.maps.known(question),
            _ => None,
        })
    }

    /// The answer of who is no table in memory.
    async fn ask(&self, question: &Question) -> Answer {
        match (question, self.source(question)) {
            (Question::Account { name, .. }, Some(TableSource::Users)) => {
                self.users.look_up(name).await
            }
            (_, Some(TableSource::Db(_))) => self.maps.ask(question).await,
            (_, Some(TableSource::Program { .. })) => self.programs.answer(question).await,
            _ => Answer::Failed,
        }
    }

    fn source(&self, question: &Question) -> Option<&TableSource> {
        self.setup.config.table(question.table()).map(|table| &table.source)
    }
}

/// Answers; a dispatcher that is gone does not wait.
fn reply(responder: Responding, message: &LookupToDispatcher) {
    let _gone = responder.reply(message, None);
}
