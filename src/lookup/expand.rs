//! What a recipient comes to: deliveries, or the reply that refuses it.
//!
//! An address falls under a rule; its action may look it up in aliases or virtual recipients, whose
//! values name more users, addresses, commands, files and lists, and so on; a user may have a
//! `.forward`. An [`Expansion`] asks tables and files and does not know where they are: it stops with
//! a [`Question`] or a [`Reading`] and goes on with the answer. One branch that fails refuses the
//! whole recipient.
//!
//! Limits: 10 levels; 100 nodes a recipient once a `.forward` has added to them, 10,000 otherwise.
//!
//! Source: aliases(5), forward(5), smtpd.conf(5); `docs/expansion.md`.

mod delivery;
mod files;
mod nodes;
mod refusal;

use std::collections::HashSet;
use std::vec;

use self::delivery::Delivered;
pub use self::delivery::{Delivery, DeliveryKind, Target};
pub use self::files::{Contents, IncludedList, Reading};
use self::files::{Found, Lists};
use self::nodes::{Node, Nodes, User};
pub use self::refusal::Refusal;
use super::address::Address;
use super::aliases::{self, Item};
use super::rules::{Progress, Recipient, Search, Session, Verdict};
use crate::config::{ActionId, ActionKind, Config, LocalAction, Mapping, Method, TableId};
use crate::table::few::FewTables;
use crate::table::{Answer, Question, Service};

/// The depth at which an expansion is a loop.
const MAX_DEPTH: u8 = 10;

/// What an expansion has come to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// A table must answer first.
    Ask(Question),
    /// It has ended.
    Done(Result<Vec<Delivery>, Refusal>),
    /// A file must be read first: [`Expansion::supply`] takes what is in it.
    Read(Reading),
}

/// Something for the log that the reply does not tell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Note {
    /// The owner of a file may want to know.
    Info(String),
    /// The administrator may want to know.
    Warning(String),
}

/// The expansion of one recipient.
#[derive(Debug)]
pub struct Expansion {
    nodes: Nodes,
    /// The node that is worked on next.
    next: usize,
    deliveries: Vec<Delivery>,
    delivered: HashSet<Delivered>,
    work: Work,
    supplied: Option<Contents>,
    notes: Vec<Note>,
    /// The account that commands and files of aliases belong to.
    daemon_user: String,
    /// The node that each delivery was noted for.
    origins: Vec<usize>,
    /// Whether the recipient itself is one that this machine made.
    is_own: bool,
}

/// A node as others see it.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    /// What it names. The items of an included list stand beside those of the value that includes it.
    pub item: &'a Item,
    /// The node that named it; `None` for the recipient itself.
    pub parent: Option<usize>,
    /// The action that decides about it, once a rule matched.
    pub action: Option<ActionId>,
    /// Whether its turn has come.
    pub begun: bool,
}

/// What is being done about the node before [`Expansion::next`].
#[derive(Debug)]
enum Work {
    /// An account is being looked up.
    Account { user: String, tag: Option<String> },
    /// The `.forward` of an account is being read.
    Forward(Found),
    /// Lists that a value includes are being read.
    Lists(Lists),
    /// Keys of a mapping are being tried.
    Mapping { table: TableId, keys: vec::IntoIter<String> },
    /// Nothing: the next node's turn.
    Next,
    /// A rule is being searched for.
    Rule(Search),
}

/// What must be known first.
#[derive(Debug)]
enum Wanted {
    Answer(Question),
    Contents(Reading),
}

impl Expansion {
    /// The expansion of `recipient`, as the client gave it.
    ///
    /// Commands and files that aliases name belong to `daemon_user`.
    #[must_use]
    pub fn new(recipient: Address, daemon_user: &str) -> Self {
        Self {
            nodes: Nodes::new(recipient),
            next: 0,
            deliveries: Vec::new(),
            delivered: HashSet::new(),
            work: Work::Next,
            supplied: None,
            notes: Vec::new(),
            daemon_user: daemon_user.to_owned(),
            origins: Vec::new(),
            is_own: false,
        }
    }

    /// The expansion of an address that a rewritten sender of ours stands for: it counts as one
    /// that an expansion produced.
    #[must_use]
    pub fn of_own(recipient: Address, daemon_user: &str) -> Self {
        Self { is_own: true, ..Self::new(recipient, daemon_user) }
    }

    /// The nodes so far, for whoever explains an expansion; a node comes after its parent.
    pub fn nodes(&self) -> impl Iterator<Item = NodeView<'_>> {
        self.nodes.iter().enumerate().map(|(index, node)| NodeView {
            item: &node.item,
            parent: node.parent,
            action: node.action,
            begun: index < self.next,
        })
    }

    /// The node that is worked on, or was last.
    #[must_use]
    pub fn position(&self) -> usize {
        self.next.saturating_sub(1)
    }

    /// The nodes that the deliveries were noted for, in the order of the deliveries.
    #[must_use]
    pub fn origins(&self) -> &[usize] {
        &self.origins
    }

    /// Goes on: with no answer at first, then with the answer to what was asked. `config`, its tables
    /// of a few entries and `session` must be the same each time.
    pub fn advance(
        &mut self,
        config: &Config,
        few: &FewTables,
        session: &Session,
        answer: Option<&Answer>,
    ) -> Step {
        match self.run(config, few, session, answer) {
            Ok(Some(Wanted::Answer(question))) => Step::Ask(question),
            Ok(Some(Wanted::Contents(reading))) => Step::Read(reading),
            Ok(None) if self.deliveries.is_empty() => {
                Step::Done(Err(Refusal::expansion("nothing is left of it")))
            }
            Ok(None) => Step::Done(Ok(std::mem::take(&mut self.deliveries))),
            Err(refusal) => Step::Done(Err(refusal)),
        }
    }

    /// Takes what was read after [`Step::Read`]; [`Expansion::advance`] goes on from it.
    pub fn supply(&mut self, contents: Contents) {
        self.supplied = Some(contents);
    }

    /// What there is for the log since the last time.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    fn run(
        &mut self,
        config: &Config,
        few: &FewTables,
        session: &Session,
        mut answer: Option<&Answer>,
    ) -> Result<Option<Wanted>, Refusal> {
        let mut contents = self.supplied.take();
        loop {
            let wanted = match std::mem::replace(&mut self.work, Work::Next) {
                Work::Next => {
                    if self.next == self.nodes.len() {
                        return Ok(None);
                    }
                    self.next += 1;
                    self.begin(config)?;
                    None
                }
                Work::Rule(search) => self.rule(config, few, session, search, answer.take())?,
                Work::Mapping { table, keys } => {
                    self.mapping(config, table, keys, answer.take())?
                }
                Work::Lists(lists) => self.lists(config, lists, contents.take())?,
                Work::Account { user, tag } => self.account(config, user, tag, answer.take())?,
                Work::Forward(found) => self.forward(config, found, contents.take())?,
            };
            if wanted.is_some() {
                return Ok(wanted);
            }
        }
    }

    /// Begins with a node.
    fn begin(&mut self, config: &Config) -> Result<(), Refusal> {
        let Some((index, node)) = self.current() else { return Ok(()) };
        if node.depth >= MAX_DEPTH {
            return Err(Refusal::expansion("too many levels"));
        }
        match &node.item {
            Item::Address(_) => self.work = Work::Rule(Search::new()),
            Item::User(user) => {
                let mapping = self.local_action(config, index).and_then(|action| action.mapping);
                let delimiter = config.smtp.sub_address_delimiter;
                self.work = match mapping.filter(|_| !node.same_user) {
                    Some(Mapping::Alias(table)) => {
                        let keys = aliases::alias_keys(user, delimiter).into_iter();
                        Work::Mapping { table, keys }
                    }
                    Some(Mapping::Virtual(table)) => {
                        let keys = aliases::virtual_keys(user, "", delimiter).into_iter();
                        Work::Mapping { table, keys }
                    }
                    None => account_of(user, delimiter),
                };
            }
            Item::Command(command) => {
                let target = Target::Command(command.clone());
                self.run_or_append(config, index, target)?;
            }
            Item::File(path) => {
                let target = Target::File(path.clone());
                self.run_or_append(config, index, target)?;
            }
            // Values are added without their lists.
            Item::Include(_) => {}
            Item::Error(_) if self.is(config, index, &Method::ForwardOnly) => {
                return Err(Refusal::later("an entry refuses what may only be forwarded"));
            }
            Item::Error(text) => return Err(Refusal::by_entry(text)),
        }
        Ok(())
    }

    /// Goes on searching the rule for an address.
    fn rule(
        &mut self,
        config: &Config,
        few: &FewTables,
        session: &Session,
        mut search: Search,
        answer: Option<&Answer>,
    ) -> Result<Option<Wanted>, Refusal> {
        let Some((index, node)) = self.current() else { return Ok(None) };
        let Item::Address(address) = &node.item else { return Ok(None) };
        let recipient = Recipient { address, internal: self.is_own || node.parent.is_some() };
        let verdict = match search.advance(config, few, session, recipient, answer) {
            Progress::Ask(question) => {
                self.work = Work::Rule(search);
                return Ok(Some(Wanted::Answer(question)));
            }
            Progress::Found(verdict) => verdict,
        };
        let action = match verdict {
            Verdict::Action { action, .. } => action,
            Verdict::Failed => return Err(Refusal::later("a table of the rules failed")),
            Verdict::NoRule => return Err(Refusal::invalid("no rule matches")),
            Verdict::Reject { .. } => return Err(Refusal::invalid("a rule rejects it")),
        };
        let (local, domain) = (address.local.clone(), address.domain.clone());
        if let Some(node) = self.nodes.get_mut(index) {
            node.action = Some(action);
        }
        let Some(local_action) = self.local_action(config, index) else {
            self.relay(index, action);
            return Ok(None);
        };
        if let Some(Mapping::Virtual(table)) = local_action.mapping {
            let delimiter = config.smtp.sub_address_delimiter;
            let keys = aliases::virtual_keys(&local, &domain, delimiter).into_iter();
            self.work = Work::Mapping { table, keys };
            return Ok(None);
        }
        self.add(index, vec![Item::User(local.to_ascii_lowercase())])?;
        Ok(None)
    }

    /// Goes on trying the keys of a mapping.
    fn mapping(
        &mut self,
        config: &Config,
        table: TableId,
        mut keys: vec::IntoIter<String>,
        answer: Option<&Answer>,
    ) -> Result<Option<Wanted>, Refusal> {
        let mut items = match answer {
            None | Some(Answer::Value(None)) => match keys.next() {
                Some(key) => {
                    self.work = Work::Mapping { table, keys };
                    let question = Question::Value { table, service: Service::Alias, key };
                    return Ok(Some(Wanted::Answer(question)));
                }
                None => Vec::new(),
            },
            Some(Answer::Value(Some(value))) => aliases::parse(value)
                .map_err(|_| Refusal::expansion_later("an entry for it is wrong"))?,
            Some(_) => return Err(Refusal::expansion_later("a table of aliases failed")),
        };
        items.sort_unstable();
        self.lists(config, Lists::new(items), None)
    }

    /// Goes on looking up the account of a user.
    fn account(
        &mut self,
        config: &Config,
        user: String,
        tag: Option<String>,
        answer: Option<&Answer>,
    ) -> Result<Option<Wanted>, Refusal> {
        let Some((index, node)) = self.current() else { return Ok(None) };
        if user.is_empty() {
            return Err(Refusal::invalid("the user has no name"));
        }
        let account = match answer {
            None => {
                let table = self.userbase(config, index);
                self.work = Work::Account { user: user.clone(), tag };
                return Ok(Some(Wanted::Answer(Question::Account { table, name: user })));
            }
            Some(Answer::Account(Some(account))) => account.clone(),
            Some(Answer::Account(None)) => return Err(Refusal::invalid("no such user")),
            Some(_) => return Err(Refusal::later("the user could not be looked up")),
        };
        let from_forward = self.nodes.parent(index).is_some_and(|parent| parent.forwarded);
        let is_own = node.same_user && from_forward;
        let deliverer = self.local_action(config, index).and_then(|action| action.user.as_ref());
        let is_for_others = deliverer.is_some_and(|deliverer| *deliverer != user);
        self.nodes.resolve(index, User { name: user.clone(), uid: account.uid });
        let found = Found { user, tag, account };
        if is_own || is_for_others {
            self.deliver_to(config, index, found)?;
        } else {
            self.work = Work::Forward(found);
        }
        Ok(None)
    }

    /// The node that is worked on.
    fn current(&self) -> Option<(usize, &Node)> {
        let index = self.next.checked_sub(1)?;
        self.nodes.get(index).map(|node| (index, node))
    }

    /// The action that decides about a node, if it is local.
    fn local_action<'a>(&self, config: &'a Config, index: usize) -> Option<&'a LocalAction> {
        let action = self.nodes.get(index)?.action?;
        match &config.action(action)?.kind {
            ActionKind::Local(local) => Some(local),
            ActionKind::Relay(_) => None,
        }
    }

    /// Whether this is how the action of a node delivers.
    fn is(&self, config: &Config, index: usize, method: &Method) -> bool {
        self.local_action(config, index).is_some_and(|action| action.method == *method)
    }

    /// Where the users of a node's action are.
    fn userbase(&self, config: &Config, index: usize) -> TableId {
        self.local_action(config, index).map_or(TableId::GETPWNAM, |action| action.userbase)
    }

    fn add(&mut self, parent: usize, items: Vec<Item>) -> Result<(), Refusal> {
        let added = self.nodes.add(parent, items);
        added.map_err(|_| Refusal::expansion_later("it comes to too many recipients"))
    }
}

/// The look-up of a user's account, without the tag.
fn account_of(user: &str, delimiter: char) -> Work {
    let (user, tag) = user.split_once(delimiter).unwrap_or((user, ""));
    Work::Account { user: user.to_owned(), tag: (!tag.is_empty()).then(|| tag.to_owned()) }
}

#[cfg(test)]
mod tests;
