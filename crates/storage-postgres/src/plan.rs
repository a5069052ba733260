//! Reading, under locks, what a group of works needs to know.

use std::collections::BTreeSet;

use crate::row::Row;
use storage_core::{Key, Result, TableName};
use storage_sql::row;
use storage_sql::server::{self, Ground, read_queue};

use crate::bind::Param;
use crate::catalog::{Catalog, GENERATION, generation};
use crate::connection::{Connection, Step};
use crate::error::PgResult;
use crate::queues::FIND_MANY;
use crate::row::Columns;
use crate::statements::Statements;

pub(crate) type Plan<'w> = server::Plan<'w, Statements>;
type Need<'w> = server::Need<'w, Statements>;

/// Begins the transaction, locks and reads, in one trip. `None`: the tables have changed meanwhile.
pub(crate) async fn begin<'w>(
    plan: &Plan<'w>,
    connection: &Connection,
    catalog: &Catalog,
    now: chrono::DateTime<chrono::Utc>,
) -> PgResult<Result<Option<Ground<'w>>>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    for need in plan.tables.values() {
        if need.entry.has_unique() {
            // Their values are free.
            steps.push((connection.prepare(&need.entry.sql.delete_expired).await?, vec![Param::time(now)]));
        }
        steps.push(lock(need, connection, &need.keys).await?);
    }
    let names = plan.queues.iter().map(|name| storage_sql::SqlValue::Text(name.as_str().into())).collect();
    if !plan.queues.is_empty() {
        steps.push((connection.prepare(&FIND_MANY.into()).await?, vec![Param::Many(names)]));
        let ids = "SELECT nextval('_storage_message_ids') FROM generate_series(1, $1::bigint)";
        let count = i64::try_from(plan.messages).unwrap_or(i64::MAX);
        steps.push((connection.prepare(&ids.into()).await?, vec![count.into()]));
    }
    // Behind the locks: from here on nobody changes these tables.
    steps.push((connection.prepare(&GENERATION.into()).await?, Vec::new()));
    let answers = connection.pipeline("BEGIN", steps, "").await.map_err(|(_, error)| error)?;
    Ok(ground(plan, catalog, answers))
}

fn ground<'w>(plan: &Plan<'w>, catalog: &Catalog, mut answers: Vec<Vec<Row>>) -> Result<Option<Ground<'w>>> {
    if !catalog.is_current(generation(&answers.pop().unwrap_or_default())?) {
        return Ok(None);
    }
    let (mut ground, mut answers) = (plan.nothing(), answers.into_iter());
    for (table, need) in &plan.tables {
        if need.entry.has_unique() {
            answers.next();
        }
        ground.take(table, need, &answers.next().unwrap_or_default())?;
    }
    for found in answers.next().unwrap_or_default() {
        let (name, queue) = read_queue(&found)?;
        ground.queues.insert(name, queue);
    }
    let ids = answers.next().unwrap_or_default();
    ground.ids = ids.iter().rev().filter_map(|found| row::integer(found, 0).transpose()).collect::<Result<_>>()?;
    Ok(Some(ground))
}

/// Looks again for records that are not there and have to stay away until the end of the transaction: nobody inserts any from here on.
pub(crate) async fn hold_absences<'w>(
    plan: &Plan<'w>,
    connection: &Connection,
    schema: &str,
    ground: &mut Ground<'w>,
) -> PgResult<Result<()>> {
    for (table, missing) in plan.absences(ground) {
        let Some(need) = plan.tables.get(table) else { continue };
        let alone = connection.prepare(&"SELECT pg_advisory_xact_lock($1)".into()).await?;
        let steps = vec![(alone, vec![absence(schema, table).into()]), lock(need, connection, &missing).await?];
        let answers = connection.pipeline("", steps, "").await.map_err(|(_, error)| error)?;
        if let Err(error) = ground.take(table, need, answers.last().map_or(&[], Vec::as_slice)) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

async fn lock<'a>(need: &Need<'_>, connection: &Connection, keys: &BTreeSet<&'a Key>) -> PgResult<Step<'a>> {
    let sql = if need.whole { &need.entry.sql.lock } else { &need.entry.sql.lock_versions };
    Ok((connection.prepare(sql).await?, Columns::of_keys(need.entry.schema(), keys.iter().copied())))
}

/// The advisory lock on what is not in a table: who inserts has a share of it, who relies on an absence has it alone.
pub(crate) fn absence(schema: &str, table: &TableName) -> i64 {
    storage_core::fnv1a(&[b"storage absence", schema.as_bytes(), table.as_str().as_bytes()]).cast_signed()
}
