//! Writing one record: read, decide, put back if nobody else has meanwhile.

use std::time::Duration;

use storage_core::backoff::Backoff;
use storage_core::{AppliedBatch, Batch, Clock, Error, Expect, Key, Result, Version, Write};

use super::tables::{Table, Tables};
use crate::error::Fault;
use crate::store::Inner;
use crate::stream::{self, Held};

/// How often a write begins anew because another came first. Each time another one succeeded, so this is the number of those that overtake it.
const MAX_TRIES: u32 = 200;

/// All writes of `batch`, which are about one record, or none.
pub(super) async fn commit(inner: &Inner, tables: &Tables, clock: &Clock, batch: &Batch) -> Result<Vec<Version>> {
    let Some((name, key)) = batch.one_record()? else { return Ok(Vec::new()) };
    tables.with(inner, name, |table| async move { write(inner, &table, clock, batch, key).await }).await
}

async fn write(inner: &Inner, table: &Table, clock: &Clock, batch: &Batch, key: &Key) -> Result<Vec<Version>, Fault> {
    // Where there is none yet, an insert needs no look.
    let mut blind = matches!(&*batch.writes, [Write::Put { expect: Expect::Absent, .. }]);
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(100));
    for _ in 0..MAX_TRIES {
        let found = if blind { None } else { stream::last(&inner.client, &table.stream, &table.subject(key)).await? };
        if let Some(versions) = attempt(inner, table, clock, batch, key, found).await? {
            return Ok(versions);
        }
        if !std::mem::take(&mut blind) {
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
    let message = format!("others wrote record `{key}` {MAX_TRIES} times while this write waited for its turn: try again later");
    Err(Error::conflict(message).into())
}

/// `None`: somebody else wrote meanwhile.
async fn attempt(
    inner: &Inner,
    table: &Table,
    clock: &Clock,
    batch: &Batch,
    key: &Key,
    found: Option<Held>,
) -> Result<Option<Vec<Version>>, Fault> {
    let over = found.as_ref().map_or(0, |held| held.sequence);
    let there = found.filter(|held| !held.is_marker());
    let current = there.as_ref().map(|held| table.decode(held)).transpose()?;
    let AppliedBatch { versions, changed, record } = batch.apply_to(current, clock.now())?;
    let message = match record {
        _ if !changed => return Ok(Some(versions)),
        Some(record) => table.encode(&record)?,
        // Written and removed within the batch.
        None if there.is_none() => return Ok(Some(versions)),
        None => stream::marker(),
    };
    Ok(stream::put(inner, table.subject(key), message, over).await?.map(|_| versions))
}
