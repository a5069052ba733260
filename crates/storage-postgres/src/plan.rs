//! What a group of works needs to know before it can be done: records, locked, and queues.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use storage_core::{Error, Key, QueueName, Record, Result, TableName, Version, Write};
use tokio_postgres::Row;

use crate::bind::Param;
use crate::catalog::{Catalog, Entry, GENERATION};
use crate::commit::Work;
use crate::connection::{Connection, Step};
use crate::error::{OrExplain as _, PgResult};
use crate::queues::{self, Queue};
use crate::row::{self, Columns};

/// A record by table and key.
pub(crate) type Place<'w> = (&'w TableName, &'w Key);

/// What is known of a record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// True where there is a row, expired or not.
    pub(crate) is_row: bool,
    /// The record in it; without fields, where nobody needs them.
    pub(crate) record: Option<Record>,
}

/// The records of one table.
struct Need<'w> {
    entry: Arc<Entry>,
    keys: BTreeSet<&'w Key>,
    /// True where fields are needed too.
    whole: bool,
    /// Keys that somebody checks for absence, perhaps.
    checked: BTreeSet<&'w Key>,
}

/// What is needed.
#[derive(Default)]
pub(crate) struct Plan<'w> {
    tables: BTreeMap<&'w TableName, Need<'w>>,
    queues: BTreeSet<&'w QueueName>,
    messages: usize,
    writes: usize,
}

/// What was found.
#[derive(Default)]
pub(crate) struct Ground<'w> {
    pub(crate) records: HashMap<Place<'w>, Known>,
    pub(crate) queues: HashMap<QueueName, Queue>,
    /// Ids for messages, the next one last.
    pub(crate) ids: Vec<i64>,
}

impl<'w> Plan<'w> {
    pub(crate) fn new(catalog: &Catalog, works: &[&'w Work]) -> Self {
        let mut plan = Self::default();
        for work in works {
            match work {
                Work::Send(queue, messages) => plan.queue(queue, messages.len()),
                Work::Batch(writes) => writes.iter().for_each(|write| plan.write(catalog, write)),
            }
        }
        plan
    }

    fn queue(&mut self, queue: &'w QueueName, messages: usize) {
        self.queues.insert(queue);
        self.messages += messages;
    }

    fn write(&mut self, catalog: &Catalog, write: &'w Write) {
        self.writes += 1;
        if let Write::Enqueue { queue, .. } = write {
            return self.queue(queue, 1);
        }
        let Some((table, key)) = write.target() else { return };
        // What is wrong with table or key is found when its turn comes.
        let Ok(entry) = catalog.table(table) else { return };
        if entry.schema().check_key(key).is_err() {
            return;
        }
        let need = self.tables.entry(table).or_insert_with(|| Need {
            entry: Arc::clone(entry),
            keys: BTreeSet::new(),
            whole: false,
            checked: BTreeSet::new(),
        });
        need.keys.insert(key);
        need.whole |= matches!(write, Write::Merge { .. });
        if matches!(write, Write::Check { .. }) {
            need.checked.insert(key);
        }
    }

    /// Begins the transaction, locks and reads, in one trip. `None`: the tables have changed meanwhile.
    pub(crate) async fn begin(
        &self,
        connection: &Connection,
        catalog: &Catalog,
        now: chrono::DateTime<chrono::Utc>,
    ) -> PgResult<Result<Option<Ground<'w>>>> {
        let mut steps: Vec<Step<'_>> = Vec::new();
        for need in self.tables.values() {
            if need.entry.has_unique() {
                // Their values are free.
                steps.push((connection.prepare(&need.entry.sql.delete_expired).await?, vec![Param::time(now)]));
            }
            steps.push(need.lock(connection, &need.keys).await?);
        }
        let names = self.queues.iter().map(|name| storage_sql::SqlValue::Text(name.as_str().into())).collect();
        if !self.queues.is_empty() {
            steps.push((connection.prepare(&queues::FIND_MANY.into()).await?, vec![Param::Many(names)]));
            let ids = "SELECT nextval('_storage_message_ids') FROM generate_series(1, $1::bigint)";
            let count = i64::try_from(self.messages).unwrap_or(i64::MAX);
            steps.push((connection.prepare(&ids.into()).await?, vec![count.into()]));
        }
        // Behind the locks: from here on nobody changes these tables.
        steps.push((connection.prepare(&GENERATION.into()).await?, Vec::new()));
        let answers = connection.pipeline("BEGIN", steps, "").await.map_err(|(_, error)| error)?;
        Ok(self.ground(catalog, answers))
    }

    fn ground(&self, catalog: &Catalog, mut answers: Vec<Vec<Row>>) -> Result<Option<Ground<'w>>> {
        let generation = answers.pop().unwrap_or_default();
        if !catalog.is_current(&generation)? {
            return Ok(None);
        }
        let (mut ground, mut answers) = (Ground::default(), answers.into_iter());
        for (table, need) in &self.tables {
            if need.entry.has_unique() {
                answers.next();
            }
            for key in &need.keys {
                ground.records.insert((table, key), Known::default());
            }
            ground.take(table, need, &answers.next().unwrap_or_default())?;
        }
        for row in answers.next().unwrap_or_default() {
            let (name, queue) = queues::read(&row)?;
            ground.queues.insert(name, queue);
        }
        let ids = answers.next().unwrap_or_default();
        ground.ids = ids.iter().rev().map(|row| row.try_get(0).or_explain()).collect::<Result<_>>()?;
        Ok(Some(ground))
    }

    /// Looks again for records that are not there and have to stay away until the end of the transaction: nobody inserts any from here on.
    pub(crate) async fn hold_absences(
        &self,
        connection: &Connection,
        schema: &str,
        ground: &mut Ground<'w>,
    ) -> PgResult<Result<()>> {
        if self.writes < 2 {
            return Ok(Ok(()));
        }
        for (table, need) in &self.tables {
            let is_missing = |key: &&&Key| ground.records.get(&(*table, **key)).is_none_or(|known| !known.is_row);
            let missing: BTreeSet<&Key> = need.checked.iter().filter(is_missing).copied().collect();
            if missing.is_empty() {
                continue;
            }
            let lock = connection.prepare(&"SELECT pg_advisory_xact_lock($1)".into()).await?;
            let steps = vec![(lock, vec![absence(schema, table).into()]), need.lock(connection, &missing).await?];
            let answers = connection.pipeline("", steps, "").await.map_err(|(_, error)| error)?;
            if let Err(error) = ground.take(table, need, answers.last().map_or(&[], Vec::as_slice)) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }
}

impl<'w> Need<'w> {
    async fn lock<'a>(&self, connection: &Connection, keys: &BTreeSet<&'a Key>) -> PgResult<Step<'a>> {
        let sql = if self.whole { &self.entry.sql.lock } else { &self.entry.sql.lock_versions };
        Ok((connection.prepare(sql).await?, Columns::of_keys(self.entry.schema(), keys.iter().copied())))
    }
}

impl<'w> Ground<'w> {
    fn take(&mut self, table: &'w TableName, need: &Need<'w>, rows: &[Row]) -> Result<()> {
        for found in rows {
            let record = if need.whole { row::read(found, need.entry.schema())? } else { outline(found, need)? };
            let key = need.keys.get(&record.key).copied();
            let key = key.ok_or_else(|| Error::internal("the server answered with a record that was not asked for"))?;
            self.records.insert((table, key), Known { is_row: true, record: Some(record) });
        }
        Ok(())
    }
}

/// A record without its fields.
fn outline(found: &Row, need: &Need<'_>) -> Result<Record> {
    let (key, at) = row::key(found, need.entry.schema())?;
    let (version, expires_at): (Version, _) = (row::version(found, at)?, row::time(found, at + 1)?);
    Ok(Record { key, version, updated_at: chrono::DateTime::UNIX_EPOCH, expires_at, fields: storage_core::Fields::new() })
}

/// The advisory lock on what is not in a table: who inserts has a share of it, who relies on an absence has it alone.
pub(crate) fn absence(schema: &str, table: &TableName) -> i64 {
    storage_core::fnv1a(&[b"storage absence", schema.as_bytes(), table.as_str().as_bytes()]).cast_signed()
}
