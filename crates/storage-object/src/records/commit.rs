//! Writing one record: read, decide, put back if nobody else has meanwhile.

use std::sync::Arc;
use std::time::Duration;

use storage_core::backoff::Backoff;
use storage_core::{AppliedBatch, Batch, Clock, Error, Key, Result, TableName, Version};
use uuid::Uuid;

use super::admin;
use super::objects::{Object, Objects};
use super::table::{Table, Tables};

/// How often a write begins anew because another came first. Each time another one succeeded, so this is the number of those that overtake it.
const MAX_TRIES: u32 = 200;

/// All writes of `batch`, which are about one record, or none.
pub(super) async fn commit(objects: &Objects, tables: &Tables, clock: &Clock, batch: &Batch) -> Result<Vec<Version>> {
    let Some((name, key)) = batch.one_record()? else { return Ok(Vec::new()) };
    let mut commit = Commit { objects, tables, clock, batch, name, key, mark: Uuid::new_v4(), sent: None };
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(100));
    for _ in 0..MAX_TRIES {
        match commit.attempt().await? {
            Some(versions) => return Ok(versions),
            None => tokio::time::sleep(backoff.next_delay()).await,
        }
    }
    Err(Error::conflict(format!(
        "others wrote record `{key}` {MAX_TRIES} times while this write waited for its turn: try again later"
    )))
}

struct Commit<'a> {
    objects: &'a Objects,
    tables: &'a Tables,
    clock: &'a Clock,
    batch: &'a Batch,
    name: &'a TableName,
    key: &'a Key,
    /// Written with the record, so that this commit knows its own write again.
    mark: Uuid,
    /// What the attempt before answers, should it turn out to have written.
    sent: Option<Vec<Version>>,
}

impl Commit<'_> {
    /// `None`: somebody else wrote meanwhile.
    async fn attempt(&mut self) -> Result<Option<Vec<Version>>> {
        let (table, found) = self.read().await?;
        let path = table.path(self.key);
        let current = found.as_ref().map(|found| table.decode(self.objects, &path, &found.bytes)).transpose()?;
        let (current, mark) = current.unzip();
        if let Some(versions) = self.sent.take().filter(|_| mark.flatten() == Some(self.mark)) {
            // A layer below repeated a put whose answer was lost, and took our own object for another's.
            return Ok(Some(versions));
        }
        let AppliedBatch { versions, changed, record } = self.batch.apply_to(current, self.clock.now())?;
        let done = match (record, found) {
            _ if !changed => true,
            (Some(record), found) => {
                if record.expires_at.is_some() && !table.object.expiring {
                    admin::expect_expiry(self.objects, self.name).await?;
                }
                let bytes = table.encode(&record, self.mark)?;
                self.sent = Some(versions.clone());
                self.objects
                    .put(&path, bytes, found.as_ref().map(|found| &found.etag))
                    .await
                    .map_err(Error::of_unanswered_write)?
            }
            (None, Some(found)) => self.objects.delete(&path, &found.etag).await.map_err(Error::of_unanswered_write)?,
            // Written and removed within the batch.
            (None, None) => true,
        };
        Ok(done.then_some(versions))
    }

    /// The table and the record's object, read side by side where it is known from before where that is.
    async fn read(&self) -> Result<(Arc<Table>, Option<Object>)> {
        let load = self.tables.load(self.objects, self.name);
        let Some(guess) = self.tables.guess(self.name) else {
            let table = load.await?;
            let found = self.objects.get(&table.path(self.key)).await?;
            return Ok((table, found));
        };
        let path = guess.path(self.key);
        let (table, found) = futures::join!(load, self.objects.get(&path));
        let table = table?;
        let now = table.path(self.key);
        Ok((table, if now == path { found? } else { self.objects.get(&now).await? }))
    }
}
