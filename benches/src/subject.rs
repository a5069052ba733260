//! What a measured thing must be able to do: one trait per section.
//!
//! Every trait is async, because the toolkit is, and the harness calls it on a multi-threaded runtime with two workers. Raw
//! baselines are synchronous: they run their whole round on threads of their own and never pay for the runtime.

use std::path::Path;

use anyhow::Result;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use crate::movers::{Job, What};
pub use crate::queue::drive::{Durability, QueueCase, QueueRound};

/// Which side of a comparison a subject is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The toolkit.
    Ours,
    /// The same work written by hand.
    Baseline,
    /// Another library that does the job.
    Peer,
    /// Printed for orientation; no target is measured against it.
    Information,
}

/// A section's subject: a name, a side, and what a reader should know about it.
pub trait Named {
    /// The name in the tables.
    fn name(&self) -> String;
    /// Which side of the comparison it is on.
    fn role(&self) -> Role;
    /// Semantics or settings that differ from the others'; empty when there are none.
    fn note(&self) -> String {
        String::new()
    }
}

/// A queue; see [`crate::queue::drive`] for the workload.
#[async_trait]
pub trait QueueSubject: Named + Send + Sync {
    /// Why the subject can't run the case, if it can't.
    fn unable(&self, _case: &QueueCase) -> Option<String> {
        None
    }
    /// The most messages that a round with batches should have. Rates are compared, so a subject that is slow at them, or
    /// has no call for many at all, is spared the long rounds of the others.
    fn longest_round(&self) -> usize {
        usize::MAX
    }
    /// Runs the workload once, in an empty folder.
    async fn round(&self, dir: &Path, case: &QueueCase) -> Result<QueueRound>;
}

/// A row of the records section, as [`crate::records::row`] makes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The key: text, in the order of creation.
    pub id: String,
    /// A person's name, say.
    pub name: String,
    /// One of a few words.
    pub status: String,
    /// Indexed; 100 rows share a value.
    pub bucket: i64,
    /// A real number.
    pub score: f64,
    /// Microseconds since 1970.
    pub created: i64,
}

/// A table of records on SQLite, key `id`, index on `bucket`, durable at `synchronous=FULL`.
///
/// The harness times the calls that have `all` in their names. They loop over the single ones; a subject that is not async
/// has loops of its own, on a thread.
#[async_trait]
pub trait RecordSubject: Named + Send + Sync {
    /// Creates the table in an empty folder and loads the rows, as fast as the subject can.
    async fn load(&mut self, dir: &Path, rows: &mut (dyn Iterator<Item = Row> + Send)) -> Result<()>;
    /// The row with this key, all fields.
    async fn get(&self, id: &str) -> Result<Option<Row>>;
    /// Every row with this bucket in the order of their keys, all fields.
    async fn query(&self, bucket: i64) -> Result<Vec<Row>>;
    /// Inserts the rows in one transaction; durable on return.
    async fn insert_batch(&self, rows: Vec<Row>) -> Result<()>;
    /// Inserts one row; durable on return. Called from many tasks at once.
    async fn insert_one(&self, row: Row) -> Result<()>;
    /// Rows in the table.
    async fn count(&self) -> Result<u64>;

    /// Gets every key, one after another; answers with the rows that were found and are the ones asked for.
    async fn get_all(&self, ids: Vec<String>) -> Result<usize> {
        let mut found = 0;
        for id in ids {
            found += usize::from(self.get(&id).await?.is_some_and(|row| row.id == id));
        }
        Ok(found)
    }

    /// Queries every bucket, one after another; answers with the number of rows.
    async fn query_all(&self, buckets: Vec<i64>) -> Result<usize> {
        let mut found = 0;
        for bucket in buckets {
            found += self.query(bucket).await?.iter().filter(|row| row.bucket == bucket).count();
        }
        Ok(found)
    }

    /// Inserts the batches, one after another.
    async fn insert_all(&self, batches: Vec<Vec<Row>>) -> Result<()> {
        for rows in batches {
            self.insert_batch(rows).await?;
        }
        Ok(())
    }
}

/// A JSON object with its key.
pub type Document = (String, Map<String, Value>);

/// Records as files: one JSON object each.
#[async_trait]
pub trait FileSubject: Named + Send + Sync {
    /// Prepares an empty folder.
    async fn open(&mut self, dir: &Path) -> Result<()>;
    /// Writes many records, durable or not, as fast as the subject can: preparation, not timed.
    async fn load(&self, records: Vec<Document>) -> Result<()>;
    /// Writes the records one after another, each durable before the next.
    async fn put_all(&self, records: Vec<Document>) -> Result<()>;
    /// Reads and parses the records one after another; answers with the number found.
    async fn get_all(&self, ids: Vec<String>) -> Result<usize>;
}

/// Records in memory.
#[async_trait]
pub trait MemorySubject: Named + Send + Sync {
    /// Takes the records in.
    async fn load(&mut self, records: Vec<Document>) -> Result<()>;
    /// Looks the keys up one after another, each answer a record of its own; answers with the number found.
    async fn get_all(&self, ids: &[String]) -> Result<usize>;
}

/// A store of blobs in a folder.
#[async_trait]
pub trait BlobSubject: Named + Send + Sync {
    /// Opens the store in `dir`, which may hold blobs already.
    async fn open(&mut self, dir: &Path) -> Result<()>;
    /// Stores the file as blob `name`; durable on return.
    async fn upload(&self, from: &Path, name: &str) -> Result<()>;
    /// Writes the blob to the file; durable on return.
    async fn download(&self, name: &str, to: &Path) -> Result<()>;
    /// Stores a small blob; need not be durable.
    async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()>;
    /// Gets every small blob, one after another; answers with the number of bytes.
    async fn get_all(&self, names: Vec<String>) -> Result<usize>;
}

/// What a large copy took, measured in a process of its own.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Transfer {
    /// Seconds until the copy was durable.
    pub seconds: f64,
    /// The process' highest resident memory, in KiB.
    pub peak_kib: u64,
}

/// A program, or a program's part, that moves files between a folder and a store. Each call is made in a process of its own.
#[async_trait]
pub trait MoveSubject: Named + Send + Sync {
    /// Why it can't take part, if it can't.
    fn unable(&self, _what: What, _to_bucket: bool) -> Option<String> {
        None
    }
    /// Whether it is a program of its own, whose memory is not this process'.
    fn is_program(&self) -> bool {
        false
    }
    /// Into the store; on the disk where the place says so.
    async fn upload(&self, job: &Job) -> Result<()>;
    /// Out of the store; on the disk at the end.
    async fn download(&self, job: &Job) -> Result<()>;
}
