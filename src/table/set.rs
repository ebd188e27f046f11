//! All tables of a configuration, and the questions that they answer.

use serde::{Deserialize, Serialize};

use super::file::{self, InvalidEntry};
use super::{Service, Table, value};
use crate::config::{BuiltIn, Config, TableDecl, TableEntry, TableId, TableKind, TableSource};

/// Keys of this many bytes or more are not looked up.
const MAX_KEY: usize = 1024;

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
#[derive(Debug)]
pub struct Tables {
    /// By [`TableId`].
    tables: Vec<Contents>,
    delimiter: char,
}

#[derive(Debug)]
enum Contents {
    /// The accounts of the system, which are asked for elsewhere.
    Accounts,
    /// A file that has not been read yet.
    Awaited(TableKind),
    /// A file's entries.
    File(Table),
    /// Entries that never change.
    Fixed(Table),
    /// What a map file or a program holds: every question fails here.
    Outside,
}

impl Tables {
    /// The tables of `config`. Questions to a table with a file fail until [`Self::update`].
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let tables = config.tables.iter().map(|table| contents(config, table)).collect();
        Self { tables, delimiter: config.smtp.sub_address_delimiter }
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
    pub fn update(&mut self, table: TableId, text: &[u8]) -> Result<(), UpdateError> {
        let slot = self.tables.get_mut(table.0 as usize).ok_or(NotAFile)?;
        let known = match slot {
            Contents::Awaited(kind) => *kind,
            Contents::File(old) => old.kind(),
            Contents::Accounts | Contents::Fixed(_) | Contents::Outside => {
                return Err(NotAFile.into());
            }
        };
        let new = file::parse(text, known)?;
        *slot = Contents::File(Table::new(new.kind, new.entries));
        Ok(())
    }

    /// The contents of a table; `None` for one that is not in memory.
    #[must_use]
    pub fn get(&self, table: TableId) -> Option<&Table> {
        match self.tables.get(table.0 as usize)? {
            Contents::File(table) | Contents::Fixed(table) => Some(table),
            Contents::Accounts | Contents::Awaited(_) | Contents::Outside => None,
        }
    }

    /// The answer to a question; `None` when it is for the accounts of the system.
    #[must_use]
    pub fn answer(&self, question: &Question) -> Option<Answer> {
        let (id, key) = match question {
            Question::Account { table, name } => (table, name),
            Question::Contains { table, key, .. } | Question::Value { table, key, .. } => {
                (table, key)
            }
        };
        let table = match self.tables.get(id.0 as usize) {
            Some(Contents::File(table) | Contents::Fixed(table)) => table,
            Some(Contents::Accounts) => {
                let account = matches!(question, Question::Account { .. });
                return if account { None } else { Some(Answer::Failed) };
            }
            Some(Contents::Awaited(_) | Contents::Outside) | None => return Some(Answer::Failed),
        };
        if key.len() >= MAX_KEY {
            return Some(Answer::Failed);
        }
        Some(match question {
            Question::Account { .. } => match table.value(key).map(value::account) {
                Some(Ok(account)) => Answer::Account(Some(account)),
                Some(Err(_)) => Answer::Failed,
                None => Answer::Account(None),
            },
            Question::Contains { service, .. } => {
                Answer::Contains(table.contains(*service, key, self.delimiter))
            }
            Question::Value { .. } => Answer::Value(table.value(key).map(str::to_owned)),
        })
    }
}

fn contents(config: &Config, table: &TableDecl) -> Contents {
    match &table.source {
        TableSource::BuiltIn(which) => {
            Contents::Fixed(Table::new(table.kind, built_in(config, *which)))
        }
        TableSource::Db(_) | TableSource::Program { .. } => Contents::Outside,
        TableSource::File(_) => Contents::Awaited(table.kind),
        TableSource::Inline(entries) => Contents::Fixed(Table::new(table.kind, entries.clone())),
        TableSource::Users => Contents::Accounts,
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
        let (config, mut tables) = tables("table t file:/map\ntable i { a }");
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
