//! Records, queues and blobs as plain files under one folder.
//!
//! No server and no database: everything can be read, copied and versioned with the tools for files. Several processes may work on one
//! folder; each may be killed at any moment without half a batch being seen by anybody.
//!
//! ```text
//! <root>/records/<table>/<key>.json    one file a record
//! <root>/queues/<queue>/ready/…        one file a message
//! <root>/blobs/<path>                  the user's files as they are; what a person puts there is a blob too
//! <root>/_storage/…                    format, lock, journal, attributes of blobs, backups: ours
//! ```
//!
//! Every change of records and queues goes through a journal: it is written there first, many callers' changes with one sync, and then
//! to its files, which take their places by renames. Reading one record takes no lock and no more than the file itself. A process that dies
//! between the journal and the files leaves the rest to whoever writes next; after a power cut the journal brings the files up to date.
//!
//! What to know:
//!
//! - Use a local disk: the locks between processes are advisory ones, which network file systems keep badly.
//! - A record's file may be edited, added or removed by hand while nobody writes it; unique values are then not checked. Damaged files are told of
//!   by name, and the others go on working.
//! - Filters and orders other than the key's read the whole table, in bounded memory. Names of messages, not the messages, are in memory
//!   while a process works with their queue.
//! - What has expired is invisible at once; its file is removed within minutes.
//! - Symbolic links below `blobs` are not followed. On file systems without an atomic exchange of two names (those of other systems than Linux),
//!   a path that is a blob already can't have blobs below it; the other order works everywhere. Where letter case does not distinguish files,
//!   it does not distinguish blobs.
//! - Copy a store by [`backup`](storage_core::RecordBackend::backup), or by any means while nobody has it open.
//!
//! ```
//! use serde_json::json;
//! use storage_core::{Batch, Clock, Expect, RecordBackend, TableSchema, Version, fields};
//! use storage_fs::{FsOptions, FsStore};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(async {
//! let folder = tempfile::tempdir()?;
//! let store = FsStore::open(folder.path(), FsOptions::default(), Clock::system()).await?;
//! let records = store.records();
//! records.create_table(&TableSchema::builder("notes").keep_undeclared().build()?).await?;
//! let notes = "notes".parse()?;
//! let versions = records.commit(Batch::new().put(&notes, "a", fields(json!({"text": "hello"})), Expect::Absent)).await?;
//! assert_eq!(versions, [Version::FIRST]);
//! assert!(folder.path().join("records/notes/a.json").exists());
//! # Ok::<(), storage_core::Error>(())
//! # }).unwrap();
//! ```

mod backup;
mod base;
mod blobs;
mod cached;
mod commit;
mod config;
mod crash;
#[cfg(test)]
mod crash_tests;
mod file;
mod flush;
mod group;
mod journal;
mod lane;
mod lock;
mod names;
mod queue;
mod records;
mod state;
mod store;
mod sweep;

pub use blobs::FsBlobs;
pub use config::{FsDriver, FsOptions};
pub use queue::FsQueue;
pub use records::FsRecords;
pub use store::FsStore;
