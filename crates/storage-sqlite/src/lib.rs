//! Records and queues in one SQLite file: the embedded default of the toolkit.
//!
//! ```
//! use serde_json::json;
//! use storage_core::{ColumnType, Expect, DriverConfig, Query, QueueStore, RecordStore, TableSchema, fields};
//! use storage_sqlite::SqliteStore;
//!
//! # #[tokio::main]
//! # async fn main() -> storage_core::Result<()> {
//! # let folder = tempfile::tempdir()?;
//! # let url = format!("sqlite:///{}/tasks.db", folder.path().display());
//! let store = SqliteStore::open(&DriverConfig::from_url(&url)).await?;
//! let records = RecordStore::new(std::sync::Arc::new(store.records()));
//! let jobs = TableSchema::builder("jobs").column("status", ColumnType::Text).index("by_status", ["status"]).build()?;
//! records.create_table(&jobs).await?;
//! records.insert(&jobs.name, "a", fields(json!({"status": "ready"}))).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! One thread writes. It takes all batches, sends, receives and acknowledgements that wait for it, does each within one transaction (undoing
//! those that fail, each by itself), commits once, and answers all: many callers share one sync of the disk. A caller that goes away before
//! its turn takes its job back; a job that was begun is finished. So a cancelled future can leave no lock and no transaction behind.
//!
//! Readers have connections of their own and read from snapshots (WAL): they never wait for who writes, nor hold anybody up. A few records by
//! key are read on the caller's own thread, since going to another one and back costs more than the records; everything else is read on a
//! few threads for it.
//!
//! Several processes may use a file at once. Whoever writes takes turns with the others, and notices their changes of tables and their messages.
//!
//! # Durability
//!
//! By default (`synchronous=full`) an answered write survives a power cut. With `normal` a power cut may undo the last commits, with `off`
//! it may damage the file; then [`durable`](storage_core::RecordCapabilities::durable) is not declared. A crash of the program alone undoes nothing in any of them.
//!
//! # Why rusqlite and not sqlx
//!
//! sqlx takes each statement to a thread and back, 15 to 44 µs against the 4 µs that SQLite itself takes. Here a whole group of batches costs
//! one such trip, and a read by key none.
//!
//! # How SQLite is compiled
//!
//! SQLite is compiled along, with `fsync` for want of a better promise about the system. Where `fdatasync` works (Linux, the BSDs) a commit need not wait
//! for the file's times: set `LIBSQLITE3_FLAGS="-DHAVE_FDATASYNC=1 -DSQLITE_DEFAULT_MEMSTATUS=0"` in the environment of the build, or under `[env]` in
//! `.cargo/config.toml`, as this repository does for the command. The second flag spares a lock around each allocation.
//!
//! # In the file
//!
//! A table is a table of that name with the declared columns under their own names and types (see [`storage_sql`]); timestamps, booleans and JSON
//! are text, 0 or 1, and text. Tables that begin with `_storage` are ours. Whatever else is in the file is left alone.

mod backup;
mod catalog;
mod claim;
mod config;
mod connection;
mod database;
mod error;
mod handle;
mod history;
mod jobs;
mod layout;
mod maintenance;
mod messages;
mod news;
mod queue;
mod queues;
mod read;
mod reader;
mod receipts;
mod records;
mod row;
mod session;
mod store;
mod tables;
mod write;
mod writer;

pub use config::{SqliteDriver, Synchronous};
pub use queue::SqliteQueue;
pub use records::SqliteRecords;
pub use store::SqliteStore;
