//! Section `queue`: the queue of `storage-sqlite`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::Connection;
use storage_core::{NewMessage, QueueName, QueueSpec, QueueStore, Receipt, Receive};
use storage_sqlite::SqliteDriver;

use crate::queue::drive::{AsyncQueue, Durability, QueueCase, QueueRound, drive_async, settings};
use crate::subject::{Named, QueueSubject, Role};

/// The toolkit's SQLite queue, and with consumers that receive ahead.
pub fn subjects() -> Vec<Box<dyn QueueSubject>> {
    vec![Box::new(Ours { ahead: false }), Box::new(Ours { ahead: true })]
}

struct Ours {
    /// True: consumers receive the next messages while the last ones are being deleted.
    ahead: bool,
}

impl Named for Ours {
    fn name(&self) -> String {
        if self.ahead { "storage-sqlite, receiving ahead" } else { "storage-sqlite" }.to_owned()
    }

    /// No target is measured by what the other subjects are not asked to do.
    fn role(&self) -> Role {
        if self.ahead { Role::Information } else { Role::Ours }
    }

    fn note(&self) -> String {
        if self.ahead { "a delete and the next receive are under way together; still leased, still at least once" } else { "" }
            .to_owned()
    }
}

#[async_trait]
impl QueueSubject for Ours {
    async fn round(&self, dir: &Path, case: &QueueCase) -> Result<QueueRound> {
        let synchronous = match case.sync {
            Durability::Full => "full",
            Durability::Normal => "normal",
        };
        let options = [("synchronous", synchronous.into())];
        let backends = super::open(&SqliteDriver, &super::sqlite_url(dir), &options).await?;
        let store = QueueStore::new(backends.queue.context("the driver has no queues")?);
        let name = QueueName::new("work")?;
        // As durable as every other one; redelivery and dead letters included, which the raw side does not have.
        store.create_queue(&name, &QueueSpec::default()).await?;
        let queue = Arc::new(Queue { store, name, durability: case.sync, ahead: self.ahead, file: dir.join("ours.db") });
        let round = drive_async(Arc::clone(&queue), *case).await?;
        queue.store.close().await?;
        Ok(round)
    }
}

struct Queue {
    store: QueueStore,
    name: QueueName,
    durability: Durability,
    ahead: bool,
    file: std::path::PathBuf,
}

#[async_trait]
impl AsyncQueue for Queue {
    type Receipt = Receipt;

    fn acks_with_next(&self) -> bool {
        self.ahead
    }

    async fn send(&self, _worker: usize, bodies: &[Bytes]) -> Result<()> {
        let messages = bodies.iter().cloned().map(NewMessage::new).collect();
        self.store.send_all(&self.name, messages).await?;
        Ok(())
    }

    async fn receive(&self, _worker: usize, max: usize) -> Result<Vec<(Receipt, Bytes)>> {
        let request = Receive::up_to(u32::try_from(max)?).visibility(Duration::from_secs(600));
        let deliveries = self.store.receive(&self.name, &request).await?;
        Ok(deliveries.into_iter().map(|delivery| (delivery.receipt, delivery.message.body)).collect())
    }

    async fn delete(&self, _worker: usize, receipts: Vec<Receipt>) -> Result<()> {
        for outcome in self.store.delete_all(&self.name, &receipts).await? {
            outcome?;
        }
        Ok(())
    }

    async fn left(&self) -> Result<u64> {
        let stats = self.store.stats(&self.name).await?;
        let counts = [stats.ready, stats.delayed, stats.leased, stats.dead];
        Ok(counts.iter().filter_map(|count| count.value()).sum())
    }

    /// The journal mode is the file's; the synchronous setting is each connection's, so it is what was asked for.
    async fn settings(&self) -> Result<String> {
        let connection = Connection::open(&self.file)?;
        let journal: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        let synchronous = match self.durability {
            Durability::Full => 2,
            Durability::Normal => 1,
        };
        Ok(settings(&journal, synchronous))
    }
}
