//! Records, queues and blobs behind one set of traits.
//!
//! Two words carry the architecture. A **backend** is what a backend crate implements: [`RecordBackend`], [`QueueBackend`],
//! [`BlobBackend`], small traits without retries or conveniences. A **store** is what an application holds: [`RecordStore`],
//! [`QueueStore`], [`BlobStore`], cheap-to-clone structs over an `Arc<dyn …Backend>` in which every shared behaviour is written once.
//!
//! ```
//! use storage_core::{Batch, Expect, Filter, Query, fields};
//! use serde_json::json;
//!
//! let accounts = "accounts".parse()?;
//! let batch = Batch::new().put(&accounts, "alice", fields(json!({"cents": 50})), Expect::Absent);
//! let query = Query::table("accounts")?.filter(Filter::ge("cents", 10)?).descending("cents")?;
//! # let _ = (batch, query);
//! # Ok::<(), storage_core::Error>(())
//! ```

mod backend;
pub mod backoff;
mod batch;
pub mod blob;
mod blob_store;
mod cache;
mod capability;
pub mod clock;
mod consumer;
pub mod document;
mod driver;
mod engine;
pub mod entity;
mod error;
mod filter;
#[cfg(feature = "filter-text")]
mod filter_text;
mod fnv;
mod foreign;
mod key;
pub mod message;
mod name;
mod open_flag;
pub mod outbox;
mod query;
mod queue_store;
mod record;
mod record_store;
mod schema;
mod secret;
mod transaction;
mod transfer;
pub mod value;

pub use backend::{BlobBackend, QueueBackend, RecordBackend};
pub use batch::{Applied, AppliedBatch, Atomicity, Batch, Expect, MAX_BATCH, Write, merge};
pub use blob::{
    BlobAttributes, BlobBody, BlobContent, BlobEntry, BlobMeta, BlobPath, BlobRead, ByteRange, ByteStream, ETag, GetOptions,
    ListOptions, PutMode, PutOptions, SignedAccess,
};
pub use blob_store::BlobStore;
pub use cache::{
    Cache, CacheCapabilities, CacheStats, Cached, Look, MAX_CACHE_KEY, RemovalCause, Removals, SetOptions, check_cache_key,
};
pub use capability::{BackendInfo, BlobCapabilities, QueueCapabilities, RecordCapabilities, require};
pub use clock::Clock;
pub use consumer::{Consumer, ConsumerOptions, ConsumerReport, Outcome};
pub use driver::{Backends, Driver, DriverConfig, OptionSpec, Surfaces, url_scheme};
pub use engine::Engine;
pub use entity::{BytesValue, ColumnValue, Entity, KeyValue, Repository};
pub use error::{Error, ErrorKind, Result, ResultExt};
pub use filter::{Filter, MAX_FILTER_DEPTH, MAX_FILTER_TERMS};
pub use fnv::fnv1a;
pub use foreign::{Arrival, CallEnd, CallNews, ForeignTasks, KeyedValues, TaskCall, ValuesDriver};
pub use key::{Key, KeyPart, MAX_KEY_LEN};
pub use message::{
    Attributes, Count, Delivery, Message, MessageId, MessageUpdate, NewMessage, QueueSpec, QueueStats, Receipt, Receive, Sent,
};
pub use name::{ColumnName, IndexName, MAX_NAME_LEN, QueueName, TableName};
pub use open_flag::OpenFlag;
pub use query::{Cursor, Direction, MAX_ORDER, MAX_PAGE, Order, Page, PageBuilder, PageToken, Query};
pub use queue_store::{Queue, QueueStore, Received};
pub use record::{Fields, Record, Version, fields, part_value};
pub use record_store::RecordStore;
pub use schema::{
    Column, ColumnRef, ColumnType, History, Index, KeyColumn, KeyType, MAX_COLUMNS, MAX_INDEXES, RESERVED_TABLE_PREFIX,
    SchemaBuilder, SchemaChange, TableSchema, Undeclared,
};
pub use secret::Secret;
/// Derives [`Entity`](trait@Entity) for a struct: see [`storage_macros`].
#[cfg(feature = "derive")]
pub use storage_macros::Entity;
pub use transaction::{MAX_ATTEMPTS, Transaction};
pub use transfer::{EachFn, FileAction, FileDone, PathFilter, Progress, ProgressFn, Skip, TransferOptions, TransferReport};

/// The candidate that `name` was probably meant to be: the likest by Jaro-Winkler, if that is alike enough or at most one slip away.
#[must_use]
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let likeness = |candidate: &str| {
        let candidate = candidate.to_lowercase();
        let one_slip = name.len() > 2 && strsim::osa_distance(&name, &candidate) <= 1;
        strsim::jaro_winkler(&name, &candidate).max(if one_slip { 0.9 } else { 0.0 })
    };
    candidates
        .into_iter()
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}
