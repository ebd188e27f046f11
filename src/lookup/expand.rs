//! What a recipient comes to: deliveries, or the reply that refuses it.
//!
//! An address falls under a rule; its action may look it up in aliases or virtual recipients, whose
//! values name more users, addresses, commands and files, and so on. An [`Expansion`] asks tables
//! and does not know where they are: it stops with a [`Question`] and goes on with the answer. One
//! branch that fails refuses the whole recipient. `.forward` files and included lists are not read
//! yet; a list that is included is a temporary failure.
//!
//! Limits: 10 levels, 10,000 nodes a recipient.
//!
//! Source: aliases(5), smtpd.conf(5).

use std::collections::HashSet;
use std::fmt;
use std::vec;

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::aliases::{self, Item};
use super::rules::{Progress, Recipient, Search, Session, Verdict};
use crate::config::{ActionId, ActionKind, Config, LocalAction, Mapping, TableId};
use crate::table::{Answer, Question, Service};

/// The depth at which an expansion is a loop.
const MAX_DEPTH: u8 = 10;
/// How many nodes one recipient may come to.
const MAX_NODES: usize = 10_000;

/// One delivery that a recipient came to.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Delivery {
    /// What to do.
    pub action: ActionId,
    /// The address that led here: the recipient itself or one that it was expanded to.
    pub destination: Address,
    /// Where it goes.
    pub kind: DeliveryKind,
}

/// Where a delivery goes.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum DeliveryKind {
    /// To a user of this machine.
    Local {
        /// The user's name in the action's userbase, lower-cased, without a tag.
        user: String,
        /// What stood after the delimiter, lower-cased.
        tag: Option<String>,
        /// How it is delivered.
        target: Target,
    },
    /// To another server.
    Relay,
}

/// How a message is delivered to a user.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Target {
    /// By this shell command, with format specifiers, instead of the action's method.
    Command(String),
    /// Into this file.
    File(String),
    /// By the action's method.
    Method,
}

/// A recipient is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Refusal {
    reply: String,
    because: &'static str,
}

/// What an expansion has come to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// A table must answer first.
    Ask(Question),
    /// It has ended.
    Done(Result<Vec<Delivery>, Refusal>),
}

/// The expansion of one recipient.
#[derive(Debug)]
pub struct Expansion {
    nodes: Vec<Node>,
    /// The node that is worked on next.
    next: usize,
    known: HashSet<Known>,
    deliveries: Vec<Delivery>,
    delivered: HashSet<Delivered>,
    work: Work,
    /// The account that commands and files of aliases belong to.
    daemon_user: String,
    /// The node that each delivery was noted for.
    origins: Vec<usize>,
}

#[derive(Debug)]
struct Node {
    item: Item,
    depth: u8,
    parent: Option<usize>,
    /// The nearest address at or above it.
    address: usize,
    /// The action that decides about it; known once a rule matched.
    action: Option<ActionId>,
    /// Whether it is a user that an entry for the same user named.
    same_user: bool,
}

/// What makes two nodes the same: it is enough to expand one of them.
#[derive(Debug, Eq, Hash, PartialEq)]
struct Known {
    item: Item,
    address: usize,
    user: Option<usize>,
    same_user: bool,
}

/// What makes two deliveries the same: one of them is made.
#[derive(Debug, Eq, Hash, PartialEq)]
enum Delivered {
    Local(ActionId, String, Target),
    Relay(ActionId, Address),
}

/// A node as others see it.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    /// What it names.
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
    /// Keys of a mapping are being tried.
    Mapping { table: TableId, keys: vec::IntoIter<String> },
    /// Nothing: the next node's turn.
    Next,
    /// A rule is being searched for.
    Rule(Search),
}

impl Expansion {
    /// The expansion of `recipient`, as the client gave it.
    ///
    /// Commands and files that aliases name belong to `daemon_user`.
    #[must_use]
    pub fn new(recipient: Address, daemon_user: &str) -> Self {
        let root = Node {
            item: Item::Address(recipient),
            depth: 0,
            parent: None,
            address: 0,
            action: None,
            same_user: false,
        };
        Self {
            nodes: vec![root],
            next: 0,
            known: HashSet::new(),
            deliveries: Vec::new(),
            delivered: HashSet::new(),
            work: Work::Next,
            daemon_user: daemon_user.to_owned(),
            origins: Vec::new(),
        }
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

    /// Goes on: with no answer at first, then with the answer to what was asked. `config` and
    /// `session` must be the same each time.
    pub fn advance(&mut self, config: &Config, session: &Session, answer: Option<&Answer>) -> Step {
        match self.run(config, session, answer) {
            Ok(Some(question)) => Step::Ask(question),
            Ok(None) if self.deliveries.is_empty() => {
                Step::Done(Err(Refusal::expansion("nothing is left of it")))
            }
            Ok(None) => Step::Done(Ok(std::mem::take(&mut self.deliveries))),
            Err(refusal) => Step::Done(Err(refusal)),
        }
    }

    fn run(
        &mut self,
        config: &Config,
        session: &Session,
        mut answer: Option<&Answer>,
    ) -> Result<Option<Question>, Refusal> {
        loop {
            let question = match std::mem::replace(&mut self.work, Work::Next) {
                Work::Next => {
                    if self.next == self.nodes.len() {
                        return Ok(None);
                    }
                    self.next += 1;
                    self.begin(config)?;
                    None
                }
                Work::Rule(search) => self.rule(config, session, search, answer.take())?,
                Work::Mapping { table, keys } => {
                    self.mapping(config, table, keys, answer.take())?
                }
                Work::Account { user, tag } => self.account(config, user, tag, answer.take())?,
            };
            if question.is_some() {
                return Ok(question);
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
                self.deliver(index, self.daemon_user.clone(), None, target);
            }
            Item::File(path) => {
                let target = Target::File(path.clone());
                self.deliver(index, self.daemon_user.clone(), None, target);
            }
            Item::Include(_) => {
                return Err(Refusal::expansion_later("included lists are not supported yet"));
            }
            Item::Error(text) => {
                return Err(Refusal { reply: text.clone(), because: "an entry refuses it" });
            }
        }
        Ok(())
    }

    /// Goes on searching the rule for an address.
    fn rule(
        &mut self,
        config: &Config,
        session: &Session,
        mut search: Search,
        answer: Option<&Answer>,
    ) -> Result<Option<Question>, Refusal> {
        let Some((index, node)) = self.current() else { return Ok(None) };
        let Item::Address(address) = &node.item else { return Ok(None) };
        let recipient = Recipient { address, internal: node.parent.is_some() };
        let verdict = match search.advance(config, session, recipient, answer) {
            Progress::Ask(question) => {
                self.work = Work::Rule(search);
                return Ok(Some(question));
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
    ) -> Result<Option<Question>, Refusal> {
        let Some((index, node)) = self.current() else { return Ok(None) };
        let items = match answer {
            None | Some(Answer::Value(None)) => match keys.next() {
                Some(key) => {
                    self.work = Work::Mapping { table, keys };
                    return Ok(Some(Question::Value { table, service: Service::Alias, key }));
                }
                None => Vec::new(),
            },
            Some(Answer::Value(Some(value))) => aliases::parse(value)
                .map_err(|_| Refusal::expansion_later("an entry for it is wrong"))?,
            Some(_) => return Err(Refusal::expansion_later("a table of aliases failed")),
        };
        if !items.is_empty() {
            self.add(index, items)?;
            return Ok(None);
        }
        match &node.item {
            Item::User(user) => {
                self.work = account_of(user, config.smtp.sub_address_delimiter);
                Ok(None)
            }
            _ => Err(Refusal::expansion("there is no entry for it")),
        }
    }

    /// Goes on looking up the account of a user.
    fn account(
        &mut self,
        config: &Config,
        user: String,
        tag: Option<String>,
        answer: Option<&Answer>,
    ) -> Result<Option<Question>, Refusal> {
        let Some((index, _)) = self.current() else { return Ok(None) };
        if user.is_empty() {
            return Err(Refusal::invalid("the user has no name"));
        }
        match answer {
            None => {
                let userbase = self.local_action(config, index).map(|action| action.userbase);
                let table = userbase.unwrap_or(TableId::GETPWNAM);
                self.work = Work::Account { user: user.clone(), tag };
                Ok(Some(Question::Account { table, name: user }))
            }
            Some(Answer::Account(Some(_))) => {
                self.deliver(index, user, tag, Target::Method);
                Ok(None)
            }
            Some(Answer::Account(None)) => Err(Refusal::invalid("no such user")),
            Some(_) => Err(Refusal::later("the user could not be looked up")),
        }
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

    /// Adds what a node stands for, without what is already there.
    fn add(&mut self, parent: usize, mut items: Vec<Item>) -> Result<(), Refusal> {
        items.sort_unstable();
        let Some(from) = self.nodes.get(parent) else { return Ok(()) };
        let (depth, action, above) = (from.depth + 1, from.action, from.address);
        let parent_item = from.item.clone();
        for item in items {
            let same_user = matches!(item, Item::User(_)) && item == parent_item;
            let runs = matches!(item, Item::Command(_) | Item::File(_));
            let known = Known {
                item: item.clone(),
                address: above,
                user: if runs { self.nearest_user(parent) } else { None },
                same_user,
            };
            if !self.known.insert(known) {
                continue;
            }
            if self.nodes.len() == MAX_NODES {
                return Err(Refusal::expansion_later("it comes to too many recipients"));
            }
            let is_address = matches!(item, Item::Address(_));
            let address = if is_address { self.nodes.len() } else { above };
            let action = action.filter(|_| !is_address);
            let parent = Some(parent);
            self.nodes.push(Node { item, depth, parent, address, action, same_user });
        }
        Ok(())
    }

    fn nearest_user(&self, mut index: usize) -> Option<usize> {
        loop {
            let node = self.nodes.get(index)?;
            if matches!(node.item, Item::User(_)) {
                return Some(index);
            }
            index = node.parent?;
        }
    }

    /// Notes a local delivery, once for each user, action and way.
    fn deliver(&mut self, index: usize, user: String, tag: Option<String>, target: Target) {
        let Some(action) = self.nodes.get(index).and_then(|node| node.action) else { return };
        if self.delivered.insert(Delivered::Local(action, user.clone(), target.clone())) {
            let destination = self.destination(index);
            let kind = DeliveryKind::Local { user, tag, target };
            self.origins.push(index);
            self.deliveries.push(Delivery { action, destination, kind });
        }
    }

    /// Notes a delivery to another server, once for each address and action.
    fn relay(&mut self, index: usize, action: ActionId) {
        let destination = self.destination(index);
        if self.delivered.insert(Delivered::Relay(action, destination.clone())) {
            self.origins.push(index);
            self.deliveries.push(Delivery { action, destination, kind: DeliveryKind::Relay });
        }
    }

    /// The address that led to a node.
    fn destination(&self, index: usize) -> Address {
        let address = self.nodes.get(index).and_then(|node| self.nodes.get(node.address));
        match address.map(|node| &node.item) {
            Some(Item::Address(address)) => address.clone(),
            _ => Address::default(),
        }
    }
}

/// The look-up of a user's account, without the tag.
fn account_of(user: &str, delimiter: char) -> Work {
    let (user, tag) = user.split_once(delimiter).unwrap_or((user, ""));
    Work::Account { user: user.to_owned(), tag: (!tag.is_empty()).then(|| tag.to_owned()) }
}

impl Refusal {
    fn invalid(because: &'static str) -> Self {
        Self { reply: "550 Invalid recipient".to_owned(), because }
    }

    fn later(because: &'static str) -> Self {
        Self { reply: "451 Temporary failure".to_owned(), because }
    }

    fn expansion(because: &'static str) -> Self {
        Self { reply: "524 5.2.4 Mailing list expansion problem".to_owned(), because }
    }

    fn expansion_later(because: &'static str) -> Self {
        Self { reply: "424 4.2.4 Mailing list expansion problem".to_owned(), because }
    }

    /// The reply to RCPT, without the address that is added to it.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.reply
    }

    /// The reply to RCPT for `recipient`, as the client gave it.
    #[must_use]
    pub fn reply(&self, recipient: &Address) -> String {
        format!("{}: <{recipient}>", self.reply)
    }

    /// Whether the client may try again.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.reply.starts_with('4')
    }

    /// Why, for the log.
    #[must_use]
    pub fn because(&self) -> &'static str {
        self.because
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reply, self.because)
    }
}

#[cfg(test)]
mod tests;
