//! Records, queues and blobs in memory.
//!
//! For tests, for caches, and as the reference model that every other backend is compared with: plain maps behind short locks,
//! with every capability of the traits but durability. What one process holds ends with it.
//!
//! ```
//! use serde_json::json;
//! use storage_core::{Batch, Expect, TableSchema, RecordBackend, Version, fields};
//! use storage_memory::MemoryStore;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # runtime.block_on(async {
//! let records = MemoryStore::new().records();
//! records.create_table(&TableSchema::builder("notes").keep_undeclared().build()?).await?;
//! let notes = "notes".parse()?;
//! let versions = records.commit(Batch::new().put(&notes, "a", fields(json!({"text": "hello"})), Expect::Absent)).await?;
//! assert_eq!(versions, [Version::FIRST]);
//! # Ok::<(), storage_core::Error>(())
//! # }).unwrap();
//! ```

mod blobs;
mod config;
mod lane;
mod queue;
mod queues;
mod records;
mod store;
mod table;

pub use blobs::MemoryBlobs;
pub use config::MemoryDriver;
pub use queue::MemoryQueue;
pub use records::MemoryRecords;
pub use store::MemoryStore;
