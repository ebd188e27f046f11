//! An explanation for people: a tree, one line a fact.

use super::report::{
    Delivery, Explanation, Facts, Local, Lookup, Node, Outcome, Recipient, Relay, Search, Way,
};

/// Blanks of one step to the right.
const STEP: usize = 2;

/// The whole explanation, each line ended.
#[must_use]
pub fn render(explanation: &Explanation) -> String {
    let mut page = Page::default();
    page.line(0, &session(&explanation.session));
    for note in &explanation.notes {
        page.line(0, &format!("note: {note}"));
    }
    for recipient in &explanation.recipients {
        page.recipient(recipient);
    }
    page.text
}

fn session(facts: &Facts) -> String {
    let mut line = format!("from <{}>", facts.from);
    if facts.src == "local" {
        line.push_str(", submitted on this machine");
    } else {
        line.push_str(&format!(", client {}", facts.src));
        match &facts.rdns {
            Some(name) => line.push_str(&format!(" ({name})")),
            None => line.push_str(" (no name given)"),
        }
    }
    if !facts.helo.is_empty() {
        line.push_str(&format!(", helo {}", facts.helo));
    }
    match facts.auth.as_deref() {
        Some("") | None => {}
        Some(user) => line.push_str(&format!(", logged in as {user}")),
    }
    if facts.tls {
        line.push_str(", encrypted");
    }
    if !facts.tag.is_empty() {
        line.push_str(&format!(", tag {}", facts.tag));
    }
    line
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    /// A line; what would end it early is shown as `?`.
    fn line(&mut self, depth: usize, text: &str) {
        self.text.extend(std::iter::repeat_n(' ', depth * STEP));
        self.text.extend(text.chars().map(|c| if c.is_control() { '?' } else { c }));
        self.text.push('\n');
    }

    fn recipient(&mut self, recipient: &Recipient) {
        self.text.push('\n');
        self.line(0, &format!("to <{}>", recipient.recipient));
        self.node(1, &recipient.tree);
        match &recipient.outcome {
            Outcome::Accepted { reply } => self.line(1, &format!("reply {reply}")),
            Outcome::Refused { reply, because } => {
                self.line(1, &format!("reply {reply}"));
                self.line(1, &format!("because {because}"));
            }
            Outcome::Unknown { because } => self.line(1, &format!("reply not known: {because}")),
        }
        for delivery in &recipient.deliveries {
            self.delivery(delivery);
        }
    }

    fn node(&mut self, depth: usize, node: &Node) {
        self.line(depth, &format!("{} {}", node.kind, node.value));
        let below = depth + 1;
        if let Some(search) = &node.search {
            self.search(below, search);
        }
        if let Some(action) = &node.action {
            self.line(below, &action.statement);
        }
        for lookup in &node.lookups {
            self.line(below, &question(lookup));
        }
        for number in &node.deliveries {
            self.line(below, &format!("delivery {number}"));
        }
        if let Some(note) = &node.note {
            self.line(below, note);
        }
        for child in &node.children {
            self.node(below, child);
        }
    }

    fn search(&mut self, depth: usize, search: &Search) {
        for rule in &search.rules {
            self.line(depth, &format!("rule {}, {}: {}", rule.number, rule.place, rule.rule));
            for criterion in &rule.criteria {
                let holds = match criterion.holds {
                    Some(true) => "yes",
                    Some(false) => "no",
                    None => "not known",
                };
                let (name, because) = (&criterion.criterion, &criterion.because);
                self.line(depth + 1, &format!("{name}: {holds}, {because}"));
            }
        }
        self.line(depth, &search.trace);
    }

    fn delivery(&mut self, delivery: &Delivery) {
        let Delivery { number, action, destination, way } = delivery;
        self.line(1, &format!("delivery {number}: action {action}, to <{destination}>"));
        match way {
            Way::Local(local) => self.local(local),
            Way::Relay(relay) => self.relay(relay),
        }
    }

    fn local(&mut self, local: &Local) {
        let mut who = format!("user {}", local.user);
        if !local.subaddress.is_empty() {
            who.push_str(&format!(", sub-address {}", local.subaddress));
        }
        if local.account != local.user {
            who.push_str(&format!(", delivered by {}", local.account));
        }
        self.line(2, &who);
        if let (Some(method), Some(target)) = (local.method, &local.target) {
            self.line(2, &format!("{method} {target}"));
        }
        if let Some(recipient) = &local.lmtp_recipient {
            self.line(2, &format!("RCPT TO:<{recipient}>"));
        }
        self.problem(local.problem.as_deref());
    }

    fn relay(&mut self, relay: &Relay) {
        if let Some(domain) = &relay.exchangers_of {
            self.line(2, &format!("to the mail exchangers of {domain}"));
        }
        for (word, entries) in [("host", &relay.hosts), ("from address", &relay.sources)] {
            for entry in entries {
                self.line(2, &format!("{word} {entry}"));
            }
        }
        self.line(2, &format!("EHLO {}", relay.helo));
        self.line(2, &format!("MAIL FROM:<{}>", relay.sender));
        self.problem(relay.problem.as_deref());
    }

    fn problem(&mut self, problem: Option<&str>) {
        if let Some(problem) = problem {
            self.line(2, &format!("problem: {problem}"));
        }
    }
}

fn question(lookup: &Lookup) -> String {
    let Lookup { table, service, key, answer } = lookup;
    if table.is_empty() {
        return format!("{service} {key}: {answer}");
    }
    format!("{service} \"{key}\" in {table}: {answer}")
}
