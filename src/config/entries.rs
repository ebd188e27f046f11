//! Entries of tables that are of no use where their table is used: one that no key can ever match, a
//! relay URL that is none. Mail would find that out one day; a warning says it now.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::parser::Parser;
use super::tree::{
    ActionKind, Destination, FilterCondition, FilterKind, Login, RelayAction, Source, Span,
    TableEntry, TableId, TableKind, TableMatch, TableSource,
};
use crate::table::relay_url::{RelayUrl, Scheme};
use crate::table::{Table, file, is_network, value};

/// How many entries of one table are complained about.
const MAX_TOLD: usize = 5;
/// Files of more bytes are not looked through: a check should not need more than the server does.
const MAX_LOOKED_THROUGH: usize = 8 << 20;

/// What an entry of a table must be for its use.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Need {
    /// Its value: an account.
    Account,
    /// Its key: a domain or a pattern for domains.
    Domain,
    /// Its key: a regular expression.
    Expression,
    /// Its key: a mail address or a part of one.
    MailAddress,
    /// Its key: a client's address or network.
    Network,
    /// Its key: an address to connect from.
    SourceAddress,
}

/// Entries that were read so far. Most configurations ask for those of a few tables.
type Known = HashMap<TableId, Rc<[TableEntry]>>;

impl Parser<'_> {
    /// Warns about entries that are of no use.
    pub(super) fn check_entries(&mut self) {
        let mut known = Known::new();
        for (table, need) in self.needs() {
            let entries = self.entries_of(table, &mut known);
            let wrong = unfit(&entries, need);
            self.warn_about_entries(table, need, &wrong);
        }
        let mut relays: Vec<(Span, RelayAction)> = Vec::new();
        for action in &self.config.actions {
            if let ActionKind::Relay(relay) = &action.kind {
                relays.push((action.span, relay.clone()));
            }
        }
        for (span, relay) in relays {
            self.check_smart_hosts(span, &relay, &mut known);
        }
    }

    /// What is needed of which table.
    fn needs(&self) -> BTreeSet<(TableId, Need)> {
        let mut needs = Needs::default();
        for rule in &self.config.rules {
            for test in [&rule.tag, &rule.helo].into_iter().flatten() {
                needs.expressions(test.test);
            }
            for test in [&rule.mail_from, &rule.rcpt_to].into_iter().flatten() {
                needs.keys(test.test, Need::MailAddress);
            }
            match rule.from.test {
                Source::Src(test) => needs.keys(test, Need::Network),
                Source::Name(Some(test)) => needs.keys(test, Need::Domain),
                _ => {}
            }
            if let Destination::Domain(test) = rule.to.test {
                needs.keys(test, Need::Domain);
            }
            if let Some(Login::User(test)) = rule.auth.as_ref().map(|auth| auth.test) {
                needs.expressions(test);
            }
        }
        for filter in &self.config.filters {
            let FilterKind::BuiltIn(filter) = &filter.kind else { continue };
            match filter.condition {
                FilterCondition::Src(test) => needs.keys(test, Need::Network),
                FilterCondition::Rdns(Some(test)) => needs.keys(test, Need::Domain),
                FilterCondition::MailFrom(test) | FilterCondition::RcptTo(test) => {
                    needs.keys(test, Need::MailAddress);
                }
                FilterCondition::Helo(test) | FilterCondition::Auth(Some(test)) => {
                    needs.expressions(test);
                }
                _ => {}
            }
        }
        for action in &self.config.actions {
            match &action.kind {
                ActionKind::Local(local) => needs.add(local.userbase, Need::Account),
                ActionKind::Relay(relay) => {
                    if let Some(table) = relay.source {
                        needs.add(table, Need::SourceAddress);
                    }
                }
            }
        }
        needs.0
    }

    /// The entries of a table that is written here or in a file; none of any other.
    fn entries_of(&mut self, table: TableId, known: &mut Known) -> Rc<[TableEntry]> {
        if let Some(entries) = known.get(&table) {
            return Rc::clone(entries);
        }
        let entries = match self.config.table(table).map(|declared| &declared.source) {
            Some(TableSource::Inline(entries)) => entries.clone(),
            Some(TableSource::File(path)) => {
                // It was good when its table was declared. If it has changed since, the next
                // reading says so.
                let text = self.files.read(path).unwrap_or_default();
                let kind = self.config.table(table).map(|declared| declared.kind);
                match kind {
                    Some(kind) if text.len() <= MAX_LOOKED_THROUGH => entries_in(&text, kind),
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        };
        let entries: Rc<[TableEntry]> = entries.into();
        known.insert(table, Rc::clone(&entries));
        entries
    }

    fn warn_about_entries(&mut self, table: TableId, need: Need, wrong: &[String]) {
        let Some(span) = self.config.table(table).and_then(|declared| declared.span) else {
            return;
        };
        let name = self.table_name(table);
        for entry in wrong.iter().take(MAX_TOLD) {
            let message = match need {
                Need::Account => format!("\"{entry}\" in table \"{name}\" is no account"),
                Need::Domain => format!("\"{entry}\" never matches a domain"),
                Need::Expression => format!("invalid regular expression \"{entry}\" never matches"),
                Need::MailAddress => format!("\"{entry}\" never matches a mail address"),
                Need::Network => format!("\"{entry}\" never matches the address of a client"),
                Need::SourceAddress => format!("\"{entry}\" is no address to connect from"),
            };
            let place = self.place(span);
            let hint = match need {
                Need::Account => "an account is written uid:gid:home",
                Need::Domain => "a domain, or a pattern such as *.example.org, is needed here",
                Need::Expression => "it is taken as a POSIX extended expression",
                Need::MailAddress => "user@domain, @domain or user is needed here",
                Need::Network | Need::SourceAddress => "names are not looked up here",
            };
            self.diagnostics.push(super::Diagnostic::warning(place, message).with_hint(hint));
        }
        if let Some(more) = wrong.len().checked_sub(MAX_TOLD).filter(|more| *more > 0) {
            self.warning(span, &format!("{more} more entries of table \"{name}\" are like this"));
        }
    }

    /// Warns about what fails when mail is sent to a smart host.
    fn check_smart_hosts(&mut self, span: Span, relay: &RelayAction, known: &mut Known) {
        let entries = match (relay.host, relay.domain) {
            (Some(table), _) | (None, Some(table)) => self.entries_of(table, known),
            (None, None) => return,
        };
        let urls = entries.iter().map(|entry| entry.value.as_deref().unwrap_or(&entry.key));
        let wrong = urls.filter_map(|url| Some((url, trouble(url, relay)?)));
        let told: Vec<(String, &str)> =
            wrong.take(MAX_TOLD).map(|(url, trouble)| (url.to_owned(), trouble)).collect();
        for (url, trouble) in told {
            self.warning(span, &format!("relay host \"{url}\": {trouble}"));
        }
    }
}

/// What is needed of which table, noted once.
#[derive(Debug, Default)]
struct Needs(BTreeSet<(TableId, Need)>);

impl Needs {
    fn add(&mut self, table: TableId, need: Need) {
        self.0.insert((table, need));
    }

    /// The keys of a table are needed as `need`, or as expressions.
    fn keys(&mut self, test: TableMatch, need: Need) {
        self.add(test.table, if test.regex { Need::Expression } else { need });
    }

    /// The keys of a table are needed as expressions or as any text.
    fn expressions(&mut self, test: TableMatch) {
        if test.regex {
            self.add(test.table, Need::Expression);
        }
    }
}

/// What is said about the entries that do not fit.
fn unfit(entries: &[TableEntry], need: Need) -> Vec<String> {
    if need == Need::Expression {
        let kind = super::TableKind::List;
        return Table::new(kind, entries.to_vec()).invalid_expressions().to_vec();
    }
    let text = |entry: &TableEntry| match need {
        Need::Account => entry.value.clone().unwrap_or_default(),
        _ => entry.key.clone(),
    };
    let wrong = |text: &String| match need {
        Need::Account => value::account(text).is_err(),
        Need::Domain => text.contains(['@', ' ', '\t']),
        Need::MailAddress => text.contains([' ', '\t']),
        Need::Network => !is_client(text),
        Need::SourceAddress => value::source(text).is_err(),
        Need::Expression => false,
    };
    entries.iter().map(text).filter(wrong).collect()
}

/// Whether an entry can be found by the address of a client: a network, an address with the name
/// of its interface, or `local` for what comes from this machine.
fn is_client(entry: &str) -> bool {
    let scoped = || {
        let inside = entry.strip_prefix('[')?.strip_suffix(']')?;
        let (address, interface) = inside.split_once('%')?;
        Some(is_network(address) && !interface.is_empty())
    };
    entry.eq_ignore_ascii_case("local") || is_network(entry) || scoped().unwrap_or(false)
}

/// Why nothing can be sent to this smart host.
fn trouble(url: &str, relay: &RelayAction) -> Option<&'static str> {
    let Ok(url) = RelayUrl::parse(url) else {
        return Some("not a relay URL, mail for it will wait");
    };
    let plain = matches!(url.scheme, Scheme::Lmtp | Scheme::SmtpNoTls);
    if url.label.is_some() && relay.auth.is_none() {
        return Some("has a label, but the action has no auth, mail for it will wait");
    }
    if relay.tls.is_some() && plain {
        return Some("is never encrypted, but the action says tls, mail for it will wait");
    }
    None
}
/// The entries of a file, without what is no text.
fn entries_in(text: &[u8], kind: TableKind) -> Vec<TableEntry> {
    let words = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    file::Reader::new(text, kind)
        .flatten()
        .filter_map(|entry| {
            Some(TableEntry { key: words(entry.key)?, value: entry.value.and_then(words) })
        })
        .collect()
}
