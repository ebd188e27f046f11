//! The files of an expansion: lists that values include, and `.forward` files.
//!
//! What is in them comes from outside ([`Expansion::supply`]); what follows from it is decided here.

use std::vec;

use super::super::aliases::Item;
use super::super::lines;
use super::{Expansion, Note, Refusal, Wanted, Work, account_of};
use crate::config::{Config, TableId};
use crate::ipc::message::reader::ForwardFile;
use crate::table::Account;

/// How many nodes a recipient may have come to when a `.forward` has added to them.
const MAX_FORWARDED: usize = 100;

/// A file that is needed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reading {
    /// The `.forward` of a user.
    Forward {
        /// Where the user was found.
        userbase: TableId,
        /// The user's name there.
        name: String,
        /// Whose file it is and where.
        account: Account,
    },
    /// A list that an alias includes.
    Include {
        /// Its absolute path.
        path: String,
    },
}

/// What was read, for a [`Reading`] of the same kind; anything else counts as failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Contents {
    /// A user's `.forward`.
    Forward(ForwardFile),
    /// An included list.
    Include(IncludedList),
}

/// What an included list is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum IncludedList {
    /// It is not known, for this reason: temporary.
    Failed(String),
    /// It cannot be opened, for this reason: it counts as not there.
    Missing(String),
    /// Its text.
    Text(Vec<u8>),
    /// It is larger than [`INCLUDED_LIST`](crate::model::limits::INCLUDED_LIST): temporary.
    TooLarge,
}

/// An account that was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) user: String,
    pub(super) tag: Option<String>,
    pub(super) account: Account,
}

/// A value that includes lists.
#[derive(Debug)]
pub(super) struct Lists {
    /// What is left of the value.
    items: vec::IntoIter<Item>,
    /// The list that is being read.
    reading: Option<String>,
    /// What the value stands for so far.
    found: Vec<Item>,
    /// Items that count, with each list that could be opened: a value without any is as good as none.
    count: usize,
}

impl Lists {
    /// For a value with these items; they are added in this order.
    pub(super) fn new(items: Vec<Item>) -> Self {
        Self { items: items.into_iter(), reading: None, found: Vec::new(), count: 0 }
    }
}

impl Expansion {
    /// Goes on reading the lists of a value, and adds what it stands for.
    pub(super) fn lists(
        &mut self,
        config: &Config,
        mut lists: Lists,
        contents: Option<Contents>,
    ) -> Result<Option<Wanted>, Refusal> {
        if let Some(path) = lists.reading.take() {
            let Some(contents) = contents else { return Ok(Some(self.read_list(lists, path))) };
            if let Some(items) = self.list(&path, contents)? {
                lists.count += 1;
                lists.found.extend(items);
            }
        }
        while let Some(item) = lists.items.next() {
            if let Item::Include(path) = item {
                return Ok(Some(self.read_list(lists, path)));
            }
            lists.count += 1;
            lists.found.push(item);
        }
        let Some((index, node)) = self.current() else { return Ok(None) };
        if lists.count > 0 {
            self.add(index, lists.found)?;
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

    fn read_list(&mut self, lists: Lists, path: String) -> Wanted {
        self.work = Work::Lists(Lists { reading: Some(path.clone()), ..lists });
        Wanted::Contents(Reading::Include { path })
    }

    /// The items of a list; `None` for one that cannot be opened.
    fn list(&mut self, path: &str, contents: Contents) -> Result<Option<Vec<Item>>, Refusal> {
        let failed = Refusal::expansion_later("a list that it includes could not be read");
        match contents {
            Contents::Include(IncludedList::Text(text)) => {
                let (items, wrong) = lines::included(&text);
                for bad in wrong {
                    self.warn(format!("include file {path}: {bad} is no list of recipients"));
                }
                Ok(Some(items))
            }
            Contents::Include(IncludedList::Missing(reason)) => {
                self.warn(format!("failed to open include file \"{path}\". ({reason})"));
                Ok(None)
            }
            Contents::Include(IncludedList::TooLarge) => {
                self.warn(format!("include file {path} is too large"));
                Err(failed)
            }
            Contents::Include(IncludedList::Failed(reason)) => {
                self.warn(format!("include file {path}: {reason}"));
                Err(failed)
            }
            Contents::Forward(_) => Err(failed),
        }
    }

    /// Goes on with what a user's `.forward` says.
    pub(super) fn forward(
        &mut self,
        config: &Config,
        found: Found,
        contents: Option<Contents>,
    ) -> Result<Option<Wanted>, Refusal> {
        let Some((index, _)) = self.current() else { return Ok(None) };
        let Some(contents) = contents else {
            let reading = Reading::Forward {
                userbase: self.userbase(config, index),
                name: found.user.clone(),
                account: found.account.clone(),
            };
            self.work = Work::Forward(found);
            return Ok(Some(Wanted::Contents(reading)));
        };
        if let Some(node) = self.nodes.get_mut(index) {
            node.forwarded = true;
        }
        let items = self.forward_items(&found, contents)?;
        let before = self.nodes.len();
        self.add(index, items)?;
        if self.nodes.len() == before {
            self.deliver_to(config, index, found)?;
        } else if self.nodes.len() > MAX_FORWARDED {
            self.inform("forward file expanded too many nodes", &found);
            return Err(Refusal::expansion_later("a .forward comes to too many recipients"));
        }
        Ok(None)
    }

    /// What a `.forward` names; nothing, if there is none.
    fn forward_items(&mut self, of: &Found, contents: Contents) -> Result<Vec<Item>, Refusal> {
        let text = match contents {
            Contents::Forward(ForwardFile::Absent) => return Ok(Vec::new()),
            Contents::Forward(ForwardFile::Text(text)) => text.0,
            Contents::Forward(ForwardFile::TooLarge) => {
                self.inform("forward file exceeds max size", of);
                return Err(Refusal::expansion_later("the .forward is too large"));
            }
            Contents::Forward(ForwardFile::Refused(reason)) => {
                self.warn(format!("smtpd: {reason}"));
                return Err(Refusal::expansion("the .forward may not be used"));
            }
            Contents::Forward(ForwardFile::Failed(reason)) => {
                self.warn(format!("smtpd: {reason}"));
                return Err(Refusal::expansion_later("the .forward could not be read"));
            }
            Contents::Include(_) => {
                return Err(Refusal::expansion_later("the .forward could not be read"));
            }
        };
        if text.is_empty() {
            self.inform("forward file is empty", of);
        }
        lines::forward(&text).map_err(|bad| {
            self.inform(&format!("parse error in forward file: {bad}"), of);
            Refusal::expansion_later("the .forward is wrong")
        })
    }

    fn inform(&mut self, what: &str, of: &Found) {
        self.notes.push(Note::Info(format!("{what} (user {})", of.user)));
    }

    fn warn(&mut self, text: String) {
        self.notes.push(Note::Warning(text));
    }
}
