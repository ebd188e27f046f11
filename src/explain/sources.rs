//! Where answers come from without a server: file tables as this caller may read them, accounts as
//! the system tells them, and nothing else. What would need a program or the network is not asked.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use platform::fd::OPEN_NONBLOCK;

use crate::config::{Config, TableId, TableSource};
use crate::ipc::message::reader::ForwardFile;
use crate::lookup::expand::{Contents, IncludedList, Reading};
use crate::model::limits::INCLUDED_LIST;
use crate::parent::configured_file;
use crate::table::{Account, Answer, Question, Tables};
use crate::worker::forward;

/// Looks an account of the system up.
pub type Accounts<'a> = &'a dyn Fn(&str) -> io::Result<Option<Account>>;

/// What can be known here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Known {
    /// The answer that the server would get.
    Answer(Answer),
    /// The server would know; why it is not known here.
    Unknown(String),
}

/// Tables and accounts.
pub struct Sources<'a> {
    tables: Tables,
    /// Tables whose files this caller cannot read, with the reason.
    unread: Vec<(TableId, String)>,
    /// Tables that only a server asks.
    outside: Vec<TableId>,
    accounts: Accounts<'a>,
}

impl<'a> Sources<'a> {
    /// The tables of `config`, their files read with `read`.
    pub fn new(
        config: &Config,
        mut read: impl FnMut(&str) -> io::Result<Vec<u8>>,
        accounts: Accounts<'a>,
    ) -> Self {
        let tables = Tables::new(config);
        let mut unread = Vec::new();
        for (id, path) in Tables::files(config) {
            let taken = read(path)
                .map_err(|error| error.to_string())
                .and_then(|text| tables.update(id, text).map_err(|error| error.to_string()));
            if let Err(reason) = taken {
                unread.push((id, format!("{path}: {reason}")));
            }
        }
        let outside = (0..)
            .map(TableId)
            .zip(&config.tables)
            .filter(|(_, table)| !is_here(&table.source))
            .map(|(id, _)| id)
            .collect();
        Self { tables, unread, outside, accounts }
    }

    /// What could not be read, with the reason; a line each.
    pub fn complaints(&self) -> impl Iterator<Item = String> {
        self.unread.iter().map(|(_, reason)| format!("cannot be read: {reason}"))
    }

    /// The entries of a list that is used in turn, in that order.
    #[must_use]
    pub fn in_turn(&self, table: TableId) -> Vec<String> {
        let Some(table) = self.tables.get(table) else { return Vec::new() };
        (0..table.len()).filter_map(|turn| table.in_turn(turn)).collect()
    }

    /// The answer to `question`.
    #[must_use]
    pub fn answer(&self, question: &Question) -> Known {
        let table = question.table();
        if let Some((_, reason)) = self.unread.iter().find(|(id, _)| *id == table) {
            return Known::Unknown(format!("the table cannot be read: {reason}"));
        }
        if self.outside.contains(&table) {
            return Known::Unknown("the table is not asked: only a server does that".to_owned());
        }
        match (self.tables.answer(question), question) {
            (Some(answer), _) => Known::Answer(answer),
            (None, Question::Account { name, .. }) => Known::Answer(self.account(name)),
            (None, _) => Known::Unknown("it is not asked: only a server does that".to_owned()),
        }
    }

    /// What a file of a user or a list says, as this caller may read it; why it is not known.
    ///
    /// # Errors
    /// Why only the server knows, which reads with the rights of the user.
    pub fn read(&self, reading: &Reading) -> Result<Contents, String> {
        match reading {
            Reading::Forward { account, .. } if account.home.is_empty() => {
                Ok(Contents::Forward(ForwardFile::Absent))
            }
            Reading::Forward { account, .. } => {
                let home = Path::new(&account.home);
                // As its owner the server may look where this caller may not.
                let opened = OpenOptions::new()
                    .read(true)
                    .custom_flags(OPEN_NONBLOCK)
                    .open(home.join(".forward"));
                match opened {
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        Err(format!("{}/.forward: {error}", account.home))
                    }
                    _ => Ok(Contents::Forward(forward::read(home, account.uid))),
                }
            }
            Reading::Include { path } => match configured_file(path.as_ref()) {
                Ok(text) if text.len() > INCLUDED_LIST => {
                    Ok(Contents::Include(IncludedList::TooLarge))
                }
                Ok(text) => Ok(Contents::Include(IncludedList::Text(text))),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    Err(format!("{path}: {error}"))
                }
                Err(error) => Ok(Contents::Include(IncludedList::Missing(error.to_string()))),
            },
        }
    }

    /// The account of the system with this name.
    #[must_use]
    pub fn account(&self, name: &str) -> Answer {
        (self.accounts)(name).map_or(Answer::Failed, Answer::Account)
    }
}

/// Whether what a table holds is in the configuration, in a text file, or known to the system.
fn is_here(source: &TableSource) -> bool {
    matches!(
        source,
        TableSource::BuiltIn(_)
            | TableSource::File(_)
            | TableSource::Inline(_)
            | TableSource::Users
    )
}
