//! Reading, under locks, what a group of works needs to know.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use mysql_async::Value;
use storage_core::{Key, Result, TableName};
use storage_sql::server::{self, Ground, read_queue};

use crate::connection::Connection;
use crate::error::MyResult;
use crate::row::{Row, key_values, moment, text};
use crate::statements::{MAX_KEYS, Statements, fill, list};

pub(crate) type Plan<'w> = server::Plan<'w, Statements>;
type Need<'w> = server::Need<'w, Statements>;

/// Locks and reads, within a transaction.
pub(crate) async fn lock<'w>(plan: &Plan<'w>, connection: &Connection, now: DateTime<Utc>) -> MyResult<Result<Ground<'w>>> {
    let mut ground = plan.nothing();
    for (table, need) in &plan.tables {
        if need.entry.has_unique() {
            // Their values are free.
            connection.execute(&need.entry.sql.delete_expired, vec![moment(now)]).await?;
        }
        if let Err(error) = ground.take(table, need, &records(need, connection, &need.keys).await?) {
            return Ok(Err(error));
        }
    }
    for found in queues(plan, connection).await? {
        match read_queue(&found) {
            Ok((name, queue)) => drop(ground.queues.insert(name, queue)),
            Err(error) => return Ok(Err(error)),
        }
    }
    // The server numbers messages as they are written: until then these do.
    ground.ids = (1..=i64::try_from(plan.messages).unwrap_or(i64::MAX)).map(|n| -n).collect();
    Ok(Ok(ground))
}

/// The queues, which nobody removes until the end of the transaction.
async fn queues(plan: &Plan<'_>, connection: &Connection) -> MyResult<Vec<Row>> {
    let mut names: Vec<Value> = plan.queues.iter().map(|name| text(name.as_str())).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let count = fill(&mut names, 1);
    let select = "SELECT name, id, max_deliveries, dedup_window FROM _storage_queues WHERE name IN";
    connection.query(&format!("{select} {} ORDER BY id LOCK IN SHARE MODE", list("?", count)), names).await
}

/// The rows of these keys, locked in the order of the keys.
async fn records(need: &Need<'_>, connection: &Connection, keys: &BTreeSet<&Key>) -> MyResult<Vec<Row>> {
    let (sql, mut rows) = (&need.entry.sql, Vec::new());
    let keys: Vec<&Key> = keys.iter().copied().collect();
    for keys in keys.chunks(MAX_KEYS) {
        let mut values = key_values(keys.iter().copied());
        let count = fill(&mut values, sql.parts());
        rows.extend(connection.query(&sql.lock(count, need.whole), values).await?);
    }
    Ok(rows)
}

/// Looks again for records that are not there and have to stay away until the end of the transaction: nobody inserts any from here on.
pub(crate) async fn hold_absences<'w>(plan: &Plan<'w>, connection: &Connection, ground: &mut Ground<'w>) -> MyResult<Result<()>> {
    for (table, missing) in plan.absences(ground) {
        let Some(need) = plan.tables.get(table) else { continue };
        connection.query(&absence("FOR UPDATE"), vec![text(table.as_str())]).await?;
        if let Err(error) = ground.take(table, need, &records(need, connection, &missing).await?) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// Who inserts has a share of this lock on what is not in a table; who relies on an absence has it alone.
fn absence(how: &str) -> String {
    format!("SELECT 1 FROM _storage_tables WHERE name = ? {how}")
}

/// Takes a share of the lock on what is not in the table.
pub(crate) async fn share_absences(connection: &Connection, table: &TableName) -> MyResult<()> {
    connection.query(&absence("LOCK IN SHARE MODE"), vec![text(table.as_str())]).await.map(drop)
}
