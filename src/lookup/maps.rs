//! Map files (`db:` tables), which the parent opens and this role reads.
//!
//! A map may be replaced at any time: makemap(8) writes another file and gives it the old one's name.
//! Before a look-up the parent is asked whether the name still means the same file, at most once a
//! second; in between the open map answers. A map that cannot be opened fails its questions, always
//! temporarily, until it can.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Config, TableId, TableSource};
use crate::ipc::message::parent::{FileVersion, MapAnswer, ParentToRole, RoleToParent};
use crate::process::ParentLink;
use crate::table::map::{MapError, ReadOnly, conversion};
use crate::table::{Answer, Map, Question, Service, Tables};

/// How long it is believed that a file is the same.
const FRESH: Duration = Duration::from_secs(1);
/// How many keys of a map are used in turn.
const MAX_TURNS: usize = 1000;

/// The maps of a configuration.
#[derive(Debug)]
pub struct Maps {
    parent: ParentLink,
    delimiter: char,
    tables: Arc<Tables>,
    maps: HashMap<TableId, Slot>,
}

#[derive(Debug)]
struct Slot {
    path: String,
    state: Mutex<State>,
    /// Held by who asks the parent: the others wait for what it finds.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    looked: Option<Instant>,
    version: Option<FileVersion>,
    map: Option<Arc<Map>>,
}

impl Maps {
    /// The maps of `config`, none open yet. `tables` know what they are used for.
    #[must_use]
    pub fn new(parent: &ParentLink, config: &Config, tables: &Arc<Tables>) -> Self {
        let maps = (0..).zip(&config.tables).filter_map(|(index, table)| match &table.source {
            TableSource::Db(path) => Some((
                TableId(index),
                Slot {
                    path: path.clone(),
                    state: Mutex::default(),
                    looking: tokio::sync::Mutex::default(),
                },
            )),
            _ => None,
        });
        let delimiter = config.smtp.sub_address_delimiter;
        let tables = Arc::clone(tables);
        Self { parent: parent.clone(), delimiter, tables, maps: maps.collect() }
    }

    /// Opens all of them; those that cannot be opened fail their questions.
    pub async fn open(&self) {
        for table in self.maps.keys() {
            // Why not is in the log.
            let _open = self.current(*table).await;
        }
    }

    /// The answer, if the file need not be looked at again for it; `None` also for other tables.
    #[must_use]
    pub fn known(&self, question: &Question) -> Option<Answer> {
        let map = self.maps.get(&question.table())?.fresh()?;
        Some(self.answer(map.as_deref(), question))
    }

    /// The answer.
    pub async fn ask(&self, question: &Question) -> Answer {
        let map = self.current(question.table()).await;
        self.answer(map.as_deref(), question)
    }

    /// The keys of a map in the order in which they are used in turn; `None` if it cannot be read.
    pub async fn keys(&self, table: TableId) -> Option<Vec<String>> {
        let map = self.current(table).await?;
        let mut keys = Vec::new();
        let read = map.each(|key, _| {
            keys.push(key.to_owned());
            keys.len() < MAX_TURNS
        });
        read.is_ok().then_some(keys)
    }

    /// The map of a table as it is now; `None` if it cannot be read, or is no map.
    pub async fn open_now(&self, table: TableId) -> Option<Arc<Map>> {
        self.current(table).await
    }

    /// Opens a map again, whether it has changed or not. The old one stays if that fails.
    ///
    /// # Errors
    /// The file cannot be opened or is no map, in words.
    pub async fn reopen(&self, table: TableId) -> Result<(), String> {
        let slot = self.maps.get(&table).ok_or("not a map file")?;
        let _looking = slot.looking.lock().await;
        let (map, version) = match self.open_map(table, None).await? {
            Some(opened) => opened,
            None => return Err("the parent did not open it".to_owned()),
        };
        slot.put(Some(Arc::new(map)), Some(version));
        Ok(())
    }

    fn answer(&self, map: Option<&Map>, question: &Question) -> Answer {
        let Some(map) = map else { return Answer::Failed };
        let failed = |error: MapError| {
            let path = self.maps.get(&question.table()).map_or("", |slot| slot.path.as_str());
            tracing::warn!("warn: lookup: {path}: {error}");
        };
        question.answer_from(
            |service, key| map.contains(service, key, self.delimiter).map_err(failed),
            |key| map.value(key).map_err(failed),
        )
    }

    /// The map as the file is now; `None` when there is none that can be read.
    async fn current(&self, table: TableId) -> Option<Arc<Map>> {
        let slot = self.maps.get(&table)?;
        if let Some(map) = slot.fresh() {
            return map;
        }
        let _looking = slot.looking.lock().await;
        // Somebody else has looked meanwhile.
        if let Some(map) = slot.fresh() {
            return map;
        }
        let (known, is_first) = {
            let state = slot.state();
            (state.version, state.looked.is_none())
        };
        match self.open_map(table, known).await {
            Ok(Some((map, version))) => slot.put(Some(Arc::new(map)), Some(version)),
            Ok(None) => slot.state().looked = Some(Instant::now()),
            Err(reason) => {
                // Said once, not every second.
                if known.is_some() || is_first {
                    tracing::warn!("warn: lookup: {}: {reason}", slot.path);
                }
                slot.put(None, None);
            }
        }
        slot.state().map.clone()
    }

    /// Has the parent open the file, unless it is still the `known` one.
    async fn open_map(
        &self,
        table: TableId,
        known: Option<FileVersion>,
    ) -> Result<Option<(Map, FileVersion)>, String> {
        let request = RoleToParent::OpenMap { table: table.0, known };
        match self.parent.request(&request, None).await {
            Ok((ParentToRole::Map(MapAnswer::Same), _)) => Ok(None),
            Ok((ParentToRole::Map(MapAnswer::Opened(version)), Some(descriptor))) => {
                let file = File::from(descriptor);
                let map = self.open_file(table, file);
                Ok(Some((map.map_err(|error| self.explain(table, &error))?, version)))
            }
            Ok((ParentToRole::Map(MapAnswer::Failed(error)), _)) => Err(error),
            Ok(_) => Err("the parent did not answer the question".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn open_file(&self, table: TableId, file: File) -> Result<Map, MapError> {
        let length = file.metadata()?.len();
        let map = Map::open(ReadOnly::new(file, length))?;
        if self.tables.is_used_for(table, Service::Regex) {
            let path = self.maps.get(&table).map_or("", |slot| slot.path.as_str());
            for pattern in map.invalid_expressions()? {
                warn_about_expression(path, &pattern);
            }
        }
        Ok(map)
    }

    fn explain(&self, table: TableId, error: &MapError) -> String {
        match (error, self.maps.get(&table)) {
            (MapError::Berkeley, Some(slot)) => format!("{error}: {}", conversion(&slot.path)),
            _ => error.to_string(),
        }
    }
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is open, if the file was looked at a moment ago.
    fn fresh(&self) -> Option<Option<Arc<Map>>> {
        let state = self.state();
        state.looked.is_some_and(|looked| looked.elapsed() < FRESH).then(|| state.map.clone())
    }

    fn put(&self, map: Option<Arc<Map>>, version: Option<FileVersion>) {
        *self.state() = State { looked: Some(Instant::now()), version, map };
    }
}

/// Says that an entry used as a regular expression is none.
pub fn warn_about_expression(path: &str, pattern: &str) {
    let pattern = pattern.escape_debug();
    tracing::warn!("warn: {path}: invalid regular expression \"{pattern}\" never matches");
}
