//! What is done every now and then by every open store: removing what has expired, and comparing the clocks.

use mysql_async::Value;
use storage_core::Result;

use crate::catalog::{self, Entry};
use crate::connection::Connection;
use crate::error::{OrExplain as _, is_about_schema, is_collision};
use crate::row::moment;
use crate::shared::Shared;
use crate::tables;

/// How many rows one step removes.
const STEP: u64 = 500;
/// How many steps one round takes in a table at most.
const STEPS: usize = 20;

/// Does it, once.
pub(crate) async fn round(shared: &Shared) -> Result<()> {
    let lent = shared.lend().await?;
    let done = shared.in_time(sweep_all(shared, &lent)).await?;
    shared.done(lent, done)
}

async fn sweep_all(shared: &Shared, connection: &Connection) -> Result<()> {
    shared.adjust(connection).await?;
    let tables = catalog::reload(&shared.catalog, connection).await?;
    if tables.changing().next().is_some() {
        tables::finish_left(shared, connection).await?;
    }
    for entry in tables.all() {
        sweep(shared, connection, entry).await?;
    }
    let forget = "DELETE FROM _storage_dedup WHERE until <= ? LIMIT ?";
    steps(shared, connection, forget).await.map(drop)
}

/// Removes what has expired of a table, step by step. Answers how many.
pub(crate) async fn sweep(shared: &Shared, connection: &Connection, entry: &Entry) -> Result<u64> {
    steps(shared, connection, &entry.sql.sweep).await
}

async fn steps(shared: &Shared, connection: &Connection, delete: &str) -> Result<u64> {
    let mut removed = 0;
    for _ in 0..STEPS {
        let step = connection.execute(delete, vec![moment(shared.time.now()), Value::UInt(STEP)]).await;
        let step = match step {
            // A table may be gone by now, and others may hold what is to be removed: the next round knows.
            Err(error) if is_about_schema(&error) || is_collision(&error) => return Ok(removed),
            step => step.or_explain()?,
        };
        removed += step;
        if step < STEP {
            break;
        }
    }
    Ok(removed)
}
