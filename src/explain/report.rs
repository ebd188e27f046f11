//! What an explanation holds, as values: printed for people by [`super::text`], for programs as JSON.
//!
//! The JSON form has the names of the fields below. It may gain members.

use serde::Serialize;

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// What was asked, with what was assumed.
    pub session: Facts,
    /// What could not be taken into account; a sentence each.
    pub notes: Vec<String>,
    /// One for each recipient, in the order given.
    pub recipients: Vec<Recipient>,
}

/// The session as rules see it.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// The sender; empty for the null sender.
    pub from: String,
    /// The client's address, `local` for this machine's socket.
    pub src: String,
    /// The client's name.
    pub rdns: Option<String>,
    /// What it says in EHLO; empty if nothing was given.
    pub helo: String,
    /// Who has logged in; empty for local submission.
    pub auth: Option<String>,
    /// Whether the session is encrypted.
    pub tls: bool,
    /// Tag of the listener; empty without one.
    pub tag: String,
}

/// What becomes of one recipient.
#[derive(Debug, Serialize)]
pub struct Recipient {
    /// The address.
    pub recipient: String,
    /// How it was expanded.
    pub tree: Node,
    /// The end of it.
    pub outcome: Outcome,
    /// What is delivered; nothing if the recipient is refused.
    pub deliveries: Vec<Delivery>,
}

/// The end of an expansion.
#[derive(Debug, Serialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub enum Outcome {
    /// The recipient is accepted.
    Accepted {
        /// The reply to RCPT.
        reply: String,
    },
    /// It is refused.
    Refused {
        /// The reply to RCPT.
        reply: String,
        /// Why.
        because: String,
    },
    /// It cannot be told without a server.
    Unknown {
        /// What is missing.
        because: String,
    },
}

/// A user, an address, a command or a file that the recipient came to.
#[derive(Debug, Default, Serialize)]
pub struct Node {
    /// `address`, `user`, `command`, `file`, `include` or `error`.
    pub kind: &'static str,
    /// What it is.
    pub value: String,
    /// For an address: the rules that were tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// For an address: the action of the rule that matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// The tables that were asked about it.
    pub lookups: Vec<Lookup>,
    /// What else is to be said about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Numbers of the deliveries that it leads to by itself.
    pub deliveries: Vec<usize>,
    /// What it stands for.
    pub children: Vec<Node>,
}

/// A search among the rules.
#[derive(Debug, Serialize)]
pub struct Search {
    /// The rules that were looked at, in order.
    pub rules: Vec<TriedRule>,
    /// How it ended, as in the trace `rules`.
    pub trace: String,
}

/// A rule that was looked at.
#[derive(Debug, Serialize)]
pub struct TriedRule {
    /// Its number, from 1.
    pub number: usize,
    /// Where it stands: file, colon, line.
    pub place: String,
    /// The rule as written.
    pub rule: String,
    /// Its criteria as far as they were looked at.
    pub criteria: Vec<TriedCriterion>,
    /// Whether it decides; absent if that is not known.
    pub matches: Option<bool>,
}

/// A criterion that was looked at.
#[derive(Debug, Serialize)]
pub struct TriedCriterion {
    /// The criterion as written.
    pub criterion: String,
    /// Whether it holds; absent if that is not known.
    pub holds: Option<bool>,
    /// Why.
    pub because: String,
    /// The table that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lookup: Option<Lookup>,
}

/// A question to a table, or a file that was read.
#[derive(Clone, Debug, Serialize)]
pub struct Lookup {
    /// The table's name; empty for a file, whose path is the key.
    pub table: String,
    /// The service, which decides how keys are compared.
    pub service: &'static str,
    /// The key.
    pub key: String,
    /// What it said.
    pub answer: String,
}

/// An action by name.
#[derive(Debug, Serialize)]
pub struct Action {
    /// Its name.
    pub name: String,
    /// The action as written.
    pub statement: String,
}

/// One delivery.
#[derive(Debug, Serialize)]
pub struct Delivery {
    /// Its number, from 1.
    pub number: usize,
    /// Name of the action.
    pub action: String,
    /// The address that it is for, after expansion.
    pub destination: String,
    /// Where it goes.
    #[serde(flatten)]
    pub way: Way,
}

/// Where a delivery goes.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Way {
    /// To a user of this machine.
    Local(Local),
    /// To another server.
    Relay(Relay),
}

/// A local delivery.
#[derive(Debug, Serialize)]
pub struct Local {
    /// The recipient's name in the userbase.
    pub user: String,
    /// What followed the delimiter of sub-addresses; empty if nothing did.
    pub subaddress: String,
    /// The account that delivers.
    pub account: String,
    /// `maildir`, `mailbox`, `lmtp`, `file` or `command`; absent if it fails before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'static str>,
    /// The path, server or command line, format specifiers replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// For LMTP: the argument of RCPT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lmtp_recipient: Option<String>,
    /// Why the delivery will fail, or what of it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A delivery to another server.
#[derive(Debug, Serialize)]
pub struct Relay {
    /// Smart hosts in the order of their turns; the domain's exchangers if there are none.
    pub hosts: Vec<String>,
    /// The domain whose exchangers are looked up, without smart hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchangers_of: Option<String>,
    /// Addresses to connect from, in the order of their turns; the system chooses if there are none.
    pub sources: Vec<String>,
    /// The name in EHLO.
    pub helo: String,
    /// The sender that is said; empty for the null sender.
    pub sender: String,
    /// What of it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
