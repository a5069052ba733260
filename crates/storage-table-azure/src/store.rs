//! What all operations of a handle share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use storage_core::{BackendInfo, Clock, Error, ErrorKind, OpenFlag, Result, TableName};

use crate::catalogue;
use crate::client::Client;
use crate::config::Settings;
use crate::error::{Refusal, code};
use crate::table::Table;

/// How long it is believed what a table is like.
const BELIEVED: Duration = Duration::from_secs(10);
/// How many tables are remembered.
const MOST_TABLES: usize = 1_000;

/// A handle's state.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) client: Client,
    pub(crate) info: BackendInfo,
    pub(crate) prefix: String,
    pub(crate) clock: Clock,
    pub(crate) open: OpenFlag,
    known: Mutex<HashMap<TableName, (Arc<Table>, Instant)>>,
}

pub(crate) fn no_table(name: &TableName) -> Error {
    Error::not_found(format!("there is no table `{name}`: create it first"))
}

impl Store {
    pub(crate) fn new(settings: &Settings, clock: Clock) -> Result<Self> {
        Ok(Self {
            client: Client::new(settings)?,
            info: BackendInfo::new("azure-table", settings.location.clone()),
            prefix: settings.prefix.clone(),
            clock,
            open: OpenFlag::default(),
            known: Mutex::default(),
        })
    }

    /// The table, as it is or was a moment ago.
    pub(crate) async fn table(&self, name: &TableName) -> Result<Arc<Table>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some((table, since)) = known
            && since.elapsed() < BELIEVED
        {
            return Ok(table);
        }
        let found = catalogue::look_up(self, name).await?.filter(|(table, _)| table.schema.name == *name);
        let (table, _) = found.ok_or_else(|| no_table(name))?;
        Ok(self.remember(table))
    }

    /// Whoever is told of a table's schema writes by it: it must be known here too.
    pub(crate) fn remember(&self, table: Table) -> Arc<Table> {
        let table = Arc::new(table);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_TABLES {
            known.clear();
        }
        known.insert(table.schema.name.clone(), (Arc::clone(&table), Instant::now()));
        table
    }

    pub(crate) fn forget(&self, name: &TableName) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Reads from a table. Where what is there does not fit what it was like a moment ago, once more with what it is like now.
    pub(crate) async fn with_table<T, F>(&self, name: &TableName, call: impl Fn(Arc<Table>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Refusal>>,
    {
        let table = self.table(name).await?;
        match call(Arc::clone(&table)).await {
            Ok(answer) => Ok(answer),
            Err(refusal) => {
                let error = self.told(name, refusal);
                if error.kind() != ErrorKind::Corrupt {
                    return Err(error);
                }
                self.forget(name);
                let now = self.table(name).await?;
                if now.schema == table.schema {
                    return Err(error);
                }
                call(now).await.map_err(|refusal| self.told(name, refusal))
            }
        }
    }

    /// What a refusal says of a table.
    pub(crate) fn told(&self, name: &TableName, refusal: Refusal) -> Error {
        if refusal.is(code::NO_TABLE) {
            self.forget(name);
            return no_table(name);
        }
        refusal.into()
    }
}
