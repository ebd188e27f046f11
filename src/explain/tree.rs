//! The expansion of one recipient, told node by node.
//!
//! The expansion itself is that of the server ([`crate::lookup::expand`]): its questions are
//! answered from [`Sources`], and its nodes are read when it has ended.

use super::report::{Action, Lookup, Node, Outcome};
use super::search::{self, lookup, said};
use super::sources::{Known, Sources};
use crate::config::Config;
use crate::ipc::blob::Blob;
use crate::ipc::message::reader::ForwardFile;
use crate::lookup::address::Address;
use crate::lookup::aliases::Item;
use crate::lookup::expand::{
    Contents, Delivery, Expansion, IncludedList, NodeView, Reading, Refusal, Step,
};
use crate::lookup::rules::Session;
use crate::model::Mailbox;
use crate::table::few::FewTables;
use crate::table::{Answer, Question};

/// The reply to RCPT for a recipient that is accepted.
const ACCEPTED: &str = "250 2.1.5 Destination address valid: Recipient ok";

/// What an expansion came to.
pub struct Expanded {
    /// The recipient and what it stands for.
    pub tree: Node,
    /// How it ended.
    pub outcome: Outcome,
    /// The deliveries, in order; none unless it is accepted.
    pub deliveries: Vec<Delivery>,
}

/// Expands `recipient`. Commands and files of aliases belong to `daemon_user`.
pub fn explain(
    config: &Config,
    session: &Session,
    sources: &Sources<'_>,
    recipient: &Mailbox,
    daemon_user: &str,
) -> Expanded {
    let address = Address::new(recipient.local(), recipient.domain());
    let few = FewTables::new(config);
    let mut expansion = Expansion::new(address.clone(), daemon_user);
    let mut lookups: Vec<(usize, Lookup)> = Vec::new();
    let mut answer: Option<Answer> = None;
    let end = loop {
        let question = match expansion.advance(config, &few, session, answer.as_ref()) {
            Step::Done(result) => break result.map_err(End::Refused),
            Step::Ask(question) => question,
            Step::Read(reading) => match sources.read(&reading) {
                Ok(contents) => {
                    lookups.push((expansion.position(), file(&reading, &contents)));
                    expansion.supply(contents);
                    answer = None;
                    continue;
                }
                Err(because) => break Err(End::Unknown(because)),
            },
        };
        // What rules ask is told with the rules.
        let of_node = !matches!(question, Question::Contains { .. });
        let known = sources.answer(&question);
        if of_node {
            let words = match &known {
                Known::Answer(answer) => said(answer),
                Known::Unknown(because) => format!("not known: {because}"),
            };
            lookups.push((expansion.position(), lookup(config, &question, words)));
        }
        match known {
            Known::Answer(known) => answer = Some(known),
            Known::Unknown(because) => break Err(End::Unknown(because)),
        }
    };
    let mut builder = Builder { config, session, sources, lookups, note: None, origins: &[] };
    let (outcome, deliveries) = match end {
        Ok(deliveries) => {
            builder.origins = expansion.origins();
            (Outcome::Accepted { reply: ACCEPTED.to_owned() }, deliveries)
        }
        Err(End::Refused(refusal)) => {
            builder.note = Some((expansion.position(), format!("refused: {}", refusal.because())));
            let because = refusal.because().to_owned();
            (Outcome::Refused { reply: refusal.reply(&address), because }, Vec::new())
        }
        Err(End::Unknown(because)) => {
            builder.note = Some((expansion.position(), "what follows is not known".to_owned()));
            (Outcome::Unknown { because }, Vec::new())
        }
    };
    let accepted = matches!(outcome, Outcome::Accepted { .. });
    let views: Vec<NodeView<'_>> = expansion.nodes().collect();
    Expanded { tree: builder.tree(&views, accepted), outcome, deliveries }
}

/// A file that was read, told as a question.
fn file(reading: &Reading, contents: &Contents) -> Lookup {
    let (service, key) = match reading {
        Reading::Forward { account, .. } => ("forward", format!("{}/.forward", account.home)),
        Reading::Include { path } => ("include", path.clone()),
    };
    let answer = match contents {
        Contents::Forward(ForwardFile::Absent) => "none".to_owned(),
        Contents::Forward(ForwardFile::Failed(reason) | ForwardFile::Refused(reason))
        | Contents::Include(IncludedList::Failed(reason) | IncludedList::Missing(reason)) => {
            reason.clone()
        }
        Contents::Forward(ForwardFile::TooLarge) | Contents::Include(IncludedList::TooLarge) => {
            "too large".to_owned()
        }
        Contents::Forward(ForwardFile::Text(Blob(text)))
        | Contents::Include(IncludedList::Text(text)) => format!("{} bytes", text.len()),
    };
    Lookup { table: String::new(), service, key, answer }
}

enum End {
    Refused(Refusal),
    Unknown(String),
}

/// Makes a tree of nodes in a row.
struct Builder<'a> {
    config: &'a Config,
    session: &'a Session,
    sources: &'a Sources<'a>,
    lookups: Vec<(usize, Lookup)>,
    /// What is to be said about the node where the expansion ended.
    note: Option<(usize, String)>,
    origins: &'a [usize],
}

impl Builder<'_> {
    fn tree(&self, views: &[NodeView<'_>], accepted: bool) -> Node {
        let mut nodes: Vec<Option<Node>> = Vec::with_capacity(views.len());
        for (index, view) in views.iter().enumerate() {
            nodes.push(Some(self.node(index, view)));
        }
        let mut root = Node::default();
        // Children come after their parents: from the end, each is complete when its turn comes.
        for (index, view) in views.iter().enumerate().rev() {
            let Some(mut node) = nodes.get_mut(index).and_then(Option::take) else { continue };
            node.children.reverse();
            let leaf = node.children.is_empty() && node.deliveries.is_empty();
            let delivers = node.kind != "include" && node.kind != "error";
            if accepted && leaf && delivers && node.note.is_none() {
                node.note = Some("the same delivery is there already".to_owned());
            }
            match view.parent.and_then(|parent| nodes.get_mut(parent)) {
                Some(Some(parent)) => parent.children.push(node),
                _ => root = node,
            }
        }
        root
    }

    fn node(&self, index: usize, view: &NodeView<'_>) -> Node {
        let (kind, value) = words(view.item);
        let mut node = Node { kind, value, ..Node::default() };
        if !view.begun {
            node.note = Some("not looked at any more".to_owned());
            return node;
        }
        if let Item::Address(address) = view.item {
            let internal = view.parent.is_some();
            let (config, session) = (self.config, self.session);
            node.search = Some(search::explain(config, session, self.sources, address, internal));
            let action = view.action.and_then(|id| self.config.action(id));
            node.action = action.map(|action| Action {
                name: action.name.clone(),
                statement: self.config.action_statement(action),
            });
        }
        let mine = self.lookups.iter().filter(|(at, _)| *at == index);
        node.lookups = mine.map(|(_, lookup)| lookup.clone()).collect();
        node.note = self.note.as_ref().filter(|(at, _)| *at == index).map(|(_, n)| n.clone());
        let numbers = (1..).zip(self.origins).filter(|(_, origin)| **origin == index);
        node.deliveries = numbers.map(|(number, _)| number).collect();
        node
    }
}

fn words(item: &Item) -> (&'static str, String) {
    match item {
        Item::Address(address) => ("address", address.to_string()),
        Item::Command(command) => ("command", command.clone()),
        Item::Error(text) => ("error", text.clone()),
        Item::File(path) => ("file", path.clone()),
        Item::Include(path) => ("include", path.clone()),
        Item::User(user) => ("user", user.clone()),
    }
}
