//! What is done every now and then by every open store: removing what has expired, and comparing the clocks.

use storage_core::Result;

use crate::bind::Param;
use crate::catalog::{self, Entry};
use crate::connection::Connection;
use crate::error::OrExplain as _;
use crate::shared::Shared;

/// How many rows one step removes.
const STEP: i64 = 500;
/// How many steps one round takes in a table at most.
const STEPS: usize = 20;

/// Does it, once.
pub(crate) async fn round(shared: &Shared) -> Result<()> {
    let lent = shared.lend().await?;
    let done = shared.in_time(sweep_all(shared, &lent)).await?;
    lent.done(done)
}

async fn sweep_all(shared: &Shared, connection: &Connection) -> Result<()> {
    shared.adjust(connection).await?;
    let tables = catalog::get(&shared.catalog, connection).await?;
    for entry in tables.all() {
        sweep(shared, connection, entry).await?;
    }
    let forget = "DELETE FROM _storage_dedup WHERE ctid = ANY (ARRAY(SELECT ctid FROM _storage_dedup WHERE until <= $1 LIMIT $2 FOR UPDATE \
                  SKIP LOCKED))";
    connection.execute(forget, vec![Param::time(shared.time.now()), STEP.into()]).await.or_explain()?;
    Ok(())
}

/// Removes what has expired of a table, step by step. Answers how many.
pub(crate) async fn sweep(shared: &Shared, connection: &Connection, entry: &Entry) -> Result<u64> {
    let mut removed = 0;
    for _ in 0..STEPS {
        let step = connection.execute(&entry.sql.sweep, vec![Param::time(shared.time.now()), STEP.into()]).await;
        let step = match step {
            // A table may be gone by now; the next round knows.
            Err(error) if crate::error::is_about_schema(&error) => return Ok(removed),
            step => step.or_explain()?,
        };
        removed += step;
        if step < STEP.unsigned_abs() {
            break;
        }
    }
    Ok(removed)
}
