//! The nodes of an expansion: what a recipient stands for, and what that stands for, each with where
//! it came from.

use std::collections::HashSet;

use super::{Address, Item};
use crate::config::ActionId;

/// How many nodes one recipient may come to.
const MAX_NODES: usize = 10_000;

/// One thing that the recipient stands for.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) item: Item,
    /// 0 for the recipient itself.
    pub(super) depth: u8,
    pub(super) parent: Option<usize>,
    /// The nearest address at or above it.
    pub(super) address: usize,
    /// The action that decides about it; known once a rule matched.
    pub(super) action: Option<ActionId>,
    /// Whether it is a user that an entry for the same user named.
    pub(super) same_user: bool,
    /// The account, once it was found: an alias is none.
    pub(super) user: Option<User>,
    /// Whether its `.forward` has been asked for.
    pub(super) forwarded: bool,
}

/// The account of a user.
#[derive(Clone, Debug)]
pub(super) struct User {
    /// Its name in the userbase, without a tag.
    pub(super) name: String,
    pub(super) uid: u32,
}

/// There are more than a recipient may come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct TooMany;

/// All nodes of a recipient, in the order in which they are worked on.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    /// Those that are not known to be accounts yet.
    known: HashSet<Known>,
}

/// What makes two nodes the same: it is enough to expand one of them.
#[derive(Debug, Eq, Hash, PartialEq)]
struct Known {
    item: Item,
    address: usize,
    user: Option<usize>,
    same_user: bool,
}

impl Nodes {
    /// The recipient alone.
    pub(super) fn new(recipient: Address) -> Self {
        let root = Node {
            item: Item::Address(recipient),
            depth: 0,
            parent: None,
            address: 0,
            action: None,
            same_user: false,
            user: None,
            forwarded: false,
        };
        Self { nodes: vec![root], known: HashSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Node> {
        self.nodes.get(index)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Node> {
        self.nodes.get_mut(index)
    }

    /// The node that a node came from.
    pub(super) fn parent(&self, index: usize) -> Option<&Node> {
        self.nodes.get(self.nodes.get(index)?.parent?)
    }

    /// The address that led to a node.
    pub(super) fn destination(&self, index: usize) -> Address {
        let address = self.nodes.get(index).and_then(|node| self.nodes.get(node.address));
        match address.map(|node| &node.item) {
            Some(Item::Address(address)) => address.clone(),
            _ => Address::default(),
        }
    }

    /// Notes the account of a node. The same user named from now on is another node, so that
    /// `.forward` files that name each other are a loop and not a delivery to one of them.
    pub(super) fn resolve(&mut self, index: usize, user: User) {
        let Some(node) = self.nodes.get_mut(index) else { return };
        node.user = Some(user);
        let (item, address, same_user) = (node.item.clone(), node.address, node.same_user);
        self.known.remove(&Known { item, address, user: None, same_user });
    }

    /// Adds what a node stands for, in this order, without what is already there.
    pub(super) fn add(&mut self, parent: usize, items: Vec<Item>) -> Result<(), TooMany> {
        let Some(from) = self.nodes.get(parent) else { return Ok(()) };
        let (depth, action, above) = (from.depth + 1, from.action, from.address);
        // Once the account is known, its name is without the tag.
        let named = match (&from.user, &from.item) {
            (Some(user), _) => Some(user.name.clone()),
            (None, Item::User(name)) => Some(name.clone()),
            _ => None,
        };
        let nearest = self.nearest_user(parent);
        for item in items {
            let same_user = matches!(&item, Item::User(name) if Some(name) == named.as_ref());
            let runs = matches!(item, Item::Command(_) | Item::File(_));
            let user = if runs { nearest } else { None };
            if !self.known.insert(Known { item: item.clone(), address: above, user, same_user }) {
                continue;
            }
            if self.nodes.len() >= MAX_NODES {
                return Err(TooMany);
            }
            let is_address = matches!(item, Item::Address(_));
            self.nodes.push(Node {
                item,
                depth,
                parent: Some(parent),
                address: if is_address { self.nodes.len() } else { above },
                action: action.filter(|_| !is_address),
                same_user,
                user: None,
                forwarded: false,
            });
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
}
