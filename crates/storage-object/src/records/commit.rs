//! Writing one record: read, decide, put back if nobody else has meanwhile.

use std::sync::Arc;
use std::time::Duration;

use storage_core::backoff::Backoff;
use storage_core::{Applied, Batch, Clock, Error, Key, Record, Result, TableName, Version, Write};
use uuid::Uuid;

use super::admin;
use super::objects::{Object, Objects};
use super::table::{Table, Tables};

/// How often a write begins anew because another came first. Each time another one succeeded, so this is the number of those that overtake it.
const MAX_TRIES: u32 = 200;

/// All writes of `batch`, which are about one record, or none.
pub(super) async fn commit(objects: &Objects, tables: &Tables, clock: &Clock, batch: &Batch) -> Result<Vec<Version>> {
    let Some((name, key)) = target(batch)? else { return Ok(Vec::new()) };
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

/// The one record that all writes are about.
fn target(batch: &Batch) -> Result<Option<(&TableName, &Key)>> {
    let mut writes = batch.writes.iter().map(Write::target);
    let Some(first) = writes.next() else { return Ok(None) };
    match first {
        Some(target) if writes.all(|other| other == first) => Ok(Some(target)),
        _ => Err(Error::unsupported("a batch on this backend holds writes of one record alone, and no messages")),
    }
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
        let Outcome { versions, changed, record } = self.decide(current)?;
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

    /// What the writes make of the record that is there.
    fn decide(&self, mut record: Option<Record>) -> Result<Outcome> {
        let now = self.clock.now();
        let (mut versions, mut changed) = (Vec::with_capacity(self.batch.len()), false);
        for (index, write) in self.batch.writes.iter().enumerate() {
            let applied = write.apply(record.as_ref(), now).map_err(|error| error.with_failed_write(index))?;
            versions.push(applied.version());
            match applied {
                Applied::Put(after) => record = Some(after),
                Applied::Deleted(_) => record = None,
                Applied::Unchanged(_) => continue,
            }
            changed = true;
        }
        Ok(Outcome { versions, changed, record })
    }
}

struct Outcome {
    versions: Vec<Version>,
    changed: bool,
    record: Option<Record>,
}
