//! All tables of a configuration, and the questions that they answer.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::file::InvalidEntry;
use super::uses::uses;
use super::{Service, Table, value};
use crate::config::{BuiltIn, Config, TableDecl, TableEntry, TableId, TableKind, TableSource};

/// Keys of this many bytes or more are not looked up.
pub(super) const MAX_KEY: usize = 1024;

/// Something that only a table knows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Question {
    /// Which account has this name; answered with [`Answer::Account`].
    Account {
        /// The userbase.
        table: TableId,
        /// The name, lower-cased.
        name: String,
    },
    /// Whether a key is there; answered with [`Answer::Contains`].
    Contains {
        /// The table.
        table: TableId,
        /// How keys are compared.
        service: Service,
        /// The key.
        key: String,
    },
    /// Which value a key has; answered with [`Answer::Value`].
    Value {
        /// The table.
        table: TableId,
        /// What the value is for.
        service: Service,
        /// The key.
        key: String,
    },
}

/// What a table says. A question that gets an answer of another kind counts as failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The account, if the name exists.
    Account(Option<Account>),
    /// Whether the key is there.
    Contains(bool),
    /// It is not known; always temporary.
    Failed,
    /// The value, if the key is there.
    Value(Option<String>),
}

/// An account that mail can be delivered to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Home directory; may be empty.
    pub home: String,
}

/// The table is not one that is read from a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a table that is read from a file")]
pub struct NotAFile;

/// New text of a table's file was not taken; the old contents stay.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UpdateError {
    /// A line is wrong.
    #[error(transparent)]
    InvalidEntry(#[from] InvalidEntry),
    /// The table has no file.
    #[error(transparent)]
    NotAFile(#[from] NotAFile),
}

/// The contents of all tables.
///
/// They are read by many and replaced one by one: a question is answered from one reading of a
/// table's file, the old or the new.
#[derive(Debug)]
pub struct Tables {
    /// By [`TableId`].
    tables: Vec<Contents>,
    uses: Vec<(TableId, Service)>,
    delimiter: char,
}

#[derive(Debug)]
enum Contents {
    /// The accounts of the system, a map file or a program, which are asked elsewhere.
    Elsewhere {
        /// Whether it knows accounts alone.
        accounts: bool,
    },
    /// A file's entries.
    File {
        /// What the file was when the configuration was read.
        kind: TableKind,
        /// Nothing before it is read.
        table: RwLock<Option<Arc<Table>>>,
    },
    /// Entries that never change.
    Fixed(Arc<Table>),
}

impl Tables {
    /// The tables of `config`. Questions to a table with a file fail until [`Self::update`].
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let tables = config.tables.iter().map(|table| contents(config, table)).collect();
        Self { tables, uses: uses(config), delimiter: config.smtp.sub_address_delimiter }
    }

    /// The tables whose files are needed, with the paths.
    pub fn files(config: &Config) -> impl Iterator<Item = (TableId, &str)> {
        (0..).zip(&config.tables).filter_map(|(index, table)| match &table.source {
            TableSource::File(path) => Some((TableId(index), path.as_str())),
            _ => None,
        })
    }

    /// Replaces the contents of `table` by what the text of its file says. What was a list stays
    /// one, and so does a mapping.
    ///
    /// # Errors
    /// The old contents stay: a line is wrong, or the table has no file.
    pub fn update(&self, table: TableId, text: impl Into<Vec<u8>>) -> Result<(), UpdateError> {
        let Some(Contents::File { kind, table: slot }) = self.tables.get(table.0 as usize) else {
            return Err(NotAFile.into());
        };
        let old = slot.read().unwrap_or_else(PoisonError::into_inner).clone();
        let known = old.map_or(*kind, |old| old.kind());
        let new = Table::read(text.into(), known)?;
        for (_, service) in self.uses.iter().filter(|(used, _)| *used == table) {
            new.prepare(*service);
        }
        *slot.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(new));
        Ok(())
    }

    /// The contents of a table; `None` for one that is not in memory.
    #[must_use]
    pub fn get(&self, table: TableId) -> Option<Arc<Table>> {
        match self.tables.get(table.0 as usize)? {
            Contents::File { table, .. } => {
                table.read().unwrap_or_else(PoisonError::into_inner).clone()
            }
            Contents::Fixed(table) => Some(Arc::clone(table)),
            Contents::Elsewhere { .. } => None,
        }
    }

    /// Whether the configuration asks a table with this service, of those that take preparation:
    /// addresses, regular expressions, keys in turn.
    #[must_use]
    pub fn is_used_for(&self, table: TableId, service: Service) -> bool {
        self.uses.contains(&(table, service))
    }

    /// The entries of a table that is used for regular expressions and that are none.
    #[must_use]
    pub fn invalid_expressions(&self, table: TableId) -> Vec<String> {
        if !self.is_used_for(table, Service::Regex) {
            return Vec::new();
        }
        self.get(table).map_or(Vec::new(), |table| table.invalid_expressions().to_vec())
    }

    /// The answer to a question; `None` when the table is not in memory, but asked elsewhere.
    #[must_use]
    pub fn answer(&self, question: &Question) -> Option<Answer> {
        let key = question.key();
        if key.len() >= MAX_KEY {
            tracing::warn!("warn: lookup key too long: {}", key.escape_debug());
            return Some(Answer::Failed);
        }
        let table = match self.tables.get(question.table().0 as usize) {
            Some(Contents::Elsewhere { accounts: true }) => {
                let account = matches!(question, Question::Account { .. });
                return if account { None } else { Some(Answer::Failed) };
            }
            Some(Contents::Elsewhere { accounts: false }) => return None,
            Some(_) => self.get(question.table()),
            None => None,
        };
        Some(match table {
            Some(table) => question.answer_from(
                |service, key| Ok::<_, Infallible>(table.contains(service, key, self.delimiter)),
                |key| Ok(table.value(key).map(Cow::into_owned)),
            ),
            None => Answer::Failed,
        })
    }
}

impl Question {
    /// The table that is asked.
    #[must_use]
    pub fn table(&self) -> TableId {
        match self {
            Self::Account { table, .. }
            | Self::Contains { table, .. }
            | Self::Value { table, .. } => *table,
        }
    }

    /// The key that it is asked for.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Account { name: key, .. }
            | Self::Contains { key, .. }
            | Self::Value { key, .. } => key,
        }
    }

    /// What a table with lists and values of keys answers. `contains` and `value` look there; what
    /// they cannot tell is a failure.
    pub fn answer_from<E>(
        &self,
        contains: impl FnOnce(Service, &str) -> Result<bool, E>,
        value: impl FnOnce(&str) -> Result<Option<String>, E>,
    ) -> Answer {
        match self {
            Self::Account { name, .. } => match value(name) {
                Ok(Some(text)) => match value::account(&text) {
                    Ok(account) => Answer::Account(Some(account)),
                    Err(_) => Answer::Failed,
                },
                Ok(None) => Answer::Account(None),
                Err(_) => Answer::Failed,
            },
            // Passwords are checked by programs alone.
            Self::Contains { service: Service::Auth, .. } => Answer::Failed,
            Self::Contains { service, key, .. } => {
                contains(*service, key).map_or(Answer::Failed, Answer::Contains)
            }
            Self::Value { key, .. } => value(key).map_or(Answer::Failed, Answer::Value),
        }
    }
}

fn contents(config: &Config, table: &TableDecl) -> Contents {
    let fixed = |entries| Contents::Fixed(Arc::new(Table::new(table.kind, entries)));
    match &table.source {
        TableSource::BuiltIn(which) => fixed(built_in(config, *which)),
        TableSource::Db(_) | TableSource::Program { .. } => Contents::Elsewhere { accounts: false },
        TableSource::File(_) => Contents::File { kind: table.kind, table: RwLock::default() },
        TableSource::Inline(entries) => fixed(entries.clone()),
        TableSource::Users => Contents::Elsewhere { accounts: true },
    }
}

fn built_in(config: &Config, which: BuiltIn) -> Vec<TableEntry> {
    let addresses = || config.local_addresses.iter().map(ToString::to_string);
    let name = config.server_name.clone();
    let keys: Vec<String> = match which {
        BuiltIn::AnyDestination => vec!["*".to_owned()],
        BuiltIn::AnyHost => ["local", "0.0.0.0/0", "::/0"].map(str::to_owned).into(),
        BuiltIn::LocalHost => ["local".to_owned()].into_iter().chain(addresses()).collect(),
        BuiltIn::LocalNames => {
            ["localhost".to_owned(), name].into_iter().chain(addresses()).collect()
        }
    };
    keys.into_iter().map(|key| TableEntry { key, value: None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::good;

    fn tables(text: &str) -> (Config, Tables) {
        let config = good(&format!("{text}\nmatch reject"));
        let tables = Tables::new(&config);
        (config, tables)
    }

    fn contains(table: TableId, service: Service, key: &str) -> Question {
        Question::Contains { table, service, key: key.to_owned() }
    }

    #[test]
    fn built_in_tables_hold_what_this_machine_is() {
        let (_, tables) = tables("");
        let cases = [
            (TableId::LOCALNAMES, Service::Domain, "LOCALHOST", true),
            (TableId::LOCALNAMES, Service::Domain, "mail.example.org", true),
            (TableId::LOCALNAMES, Service::Domain, "127.0.0.1", true),
            (TableId::LOCALNAMES, Service::Domain, "mail", false),
            (TableId::LOCALHOST, Service::Netaddr, "local", true),
            (TableId::LOCALHOST, Service::Netaddr, "[::1]", true),
            (TableId::LOCALHOST, Service::Netaddr, "127.0.0.5", false),
            (TableId::ANYHOST, Service::Netaddr, "192.0.2.1", true),
            (TableId::ANYDESTINATION, Service::Domain, "example.org", true),
            (TableId::ANYDESTINATION, Service::Domain, "", false),
        ];
        for (table, service, key, expected) in cases {
            let answer = tables.answer(&contains(table, service, key));
            assert_eq!(answer, Some(Answer::Contains(expected)), "{table:?} {key}");
        }
    }

    #[test]
    fn accounts_of_the_system_are_asked_for_elsewhere() {
        let (_, tables) = tables("");
        let account = Question::Account { table: TableId::GETPWNAM, name: "root".into() };
        assert_eq!(tables.answer(&account), None);
        let other = contains(TableId::GETPWNAM, Service::String, "root");
        assert_eq!(tables.answer(&other), Some(Answer::Failed));
    }

    #[test]
    fn programs_are_asked_elsewhere() {
        let (config, tables) = tables("table t passwd:/etc/t");
        let table = config.table_named("t").unwrap();
        assert_eq!(tables.answer(&contains(table, Service::Domain, "d")), None);
        let account = Question::Account { table, name: "root".into() };
        assert_eq!(tables.answer(&account), None);
        assert_eq!(tables.update(table, b"d"), Err(UpdateError::NotAFile(NotAFile)));
    }

    #[test]
    fn a_userbase_of_ones_own_answers_with_accounts() {
        let (config, tables) = tables("table u { bob = \"1000:100:/h\", eve = \"x\" }");
        let table = config.table_named("u").unwrap();
        let ask = |name: &str| tables.answer(&Question::Account { table, name: name.to_owned() });
        let bob = Account { uid: 1000, gid: 100, home: "/h".into() };
        assert_eq!(ask("bob"), Some(Answer::Account(Some(bob))));
        assert_eq!(ask("eve"), Some(Answer::Failed));
        assert_eq!(ask("zed"), Some(Answer::Account(None)));
    }

    #[test]
    fn a_file_is_awaited_and_a_bad_one_changes_nothing() {
        let (config, tables) = tables("table t file:/map\ntable i { a }");
        let files: Vec<_> = Tables::files(&config).collect();
        let [(table, "/map")] = files[..] else { panic!("{files:?}") };
        let ask = || Question::Value { table, service: Service::Alias, key: "Root".into() };
        assert_eq!(tables.answer(&ask()), Some(Answer::Failed));
        tables.update(table, b"root: bob\n").unwrap();
        let bob = Some(Answer::Value(Some("bob".into())));
        assert_eq!(tables.answer(&ask()), bob);
        // config case 198
        let wrong = tables.update(table, b"root: eve\nbad:\n").unwrap_err();
        assert_eq!(wrong.to_string(), "2 invalid map entry");
        assert_eq!(tables.answer(&ask()), bob);
        let inline = config.table_named("i").unwrap();
        assert_eq!(tables.update(inline, b"b"), Err(UpdateError::NotAFile(NotAFile)));
    }

    #[test]
    fn a_key_that_is_too_long_is_a_failure() {
        let (_, tables) = tables("");
        let key = "x".repeat(1024);
        let question = contains(TableId::ANYDESTINATION, Service::Domain, &key);
        assert_eq!(tables.answer(&question), Some(Answer::Failed));
    }
}
