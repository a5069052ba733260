//! Records and queues on PostgreSQL, version 13 or later.
//!
//! ```no_run
//! use serde_json::json;
//! use storage_core::{Batch, ColumnType, DriverConfig, Expect, NewMessage, QueueSpec, QueueStore, RecordStore, TableSchema, fields};
//! use storage_postgres::PostgresStore;
//!
//! # #[tokio::main]
//! # async fn main() -> storage_core::Result<()> {
//! let store = PostgresStore::open(&DriverConfig::from_url("postgres://shop:secret@db.example/shop")).await?;
//! let records = RecordStore::new(std::sync::Arc::new(store.records()));
//! let queues = QueueStore::new(std::sync::Arc::new(store.queue()));
//! let orders = TableSchema::builder("orders").column("cents", ColumnType::Integer).build()?;
//! records.create_table(&orders).await?;
//! let mails = "mails".parse()?;
//! queues.create_queue(&mails, &QueueSpec::default()).await?;
//! // The record and the message, or neither.
//! let batch = Batch::new().put(&orders.name, "a", fields(json!({"cents": 100})), Expect::Absent).enqueue(&mails, NewMessage::new("a"));
//! records.commit(batch).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! **Writes** share transactions. What is asked for while some are under way shares the next one, and its sync of the disk. A transaction takes two trips: the first locks the
//! records that are spoken of, in the order of their keys, and reads them; then every work is decided here, in its turn, so that one whose precondition fails
//! undoes no other; the second writes what came of it, one statement a table and kind of change, and commits. What the database alone can say, such as that a
//! unique value is taken, fails the transaction: then each work goes by itself, and if need be write by write, so that an error names its write. Isolation is
//! `READ COMMITTED` with all records locked that are written *or checked*; who checks that a record is *not* there holds a lock that those who insert share. A deadlock or
//! a collision is tried again, and is a retryable `Conflict` in the end.
//!
//! Works that only add (records that are expected to be absent, messages without dedup ids) take one trip: they are written on the guess that nothing is there and
//! tables and queues are as they were last, which the transaction itself holds against what is there. Where the guess fails, they go the way above. From a hundred
//! rows of a table on these are copied in (`COPY`).
//!
//! **Reads** are one statement; pages that need several have one snapshot for them. Behind each goes, in the same trip, the question whether the tables were changed by
//! another process: then it is asked anew. What may be of a while ago is asked of the replica that `read_url` names; where it is gone, or its tables are others,
//! of the primary.
//!
//! **Messages** are leased by `FOR UPDATE SKIP LOCKED`. Who waits is woken by `LISTEN`/`NOTIFY`, on one connection beside the pool; notices are sent behind the
//! commit, since within it the server would commit those that notify one by one. A program that dies in between has told nobody: who waits looks once a second.
//!
//! **Time** is the server's, so that all programs agree about leases and expiry: each store compares the clocks when it opens, and every half minute.
//!
//! **A caller that goes away** before its turn takes its work back; what was begun is finished by the task that writes. A read that nobody waits for any longer is
//! cancelled on the server and its connection closed. So no transaction stays open, and no connection is lost.
//!
//! # Why tokio-postgres and not sqlx
//!
//! sqlx (0.9) sends a statement and waits for its answer before the next; here a transaction of any size takes two trips, and one that only adds takes one. Who
//! waits for an answer drives the connection himself, so that no other task has to be woken for it.
//!
//! # In the database
//!
//! A table is a table of that name with the declared columns under their own names and types (`text COLLATE "C"`, `bigint`, `double precision`, `boolean`,
//! `timestamptz`, `jsonb`, `bytea`; see [`storage_sql`]). Tables that begin with `_storage` are ours; comments say what they hold. Whatever else is there is left alone.
//! Views, grants, and constraints and indexes of your own are fine; change columns by `alter_table` alone.

mod add;
mod bind;
mod catalog;
mod changes;
mod claim;
mod config;
mod connection;
mod error;
mod history;
mod layout;
mod maintenance;
mod messages;
mod news;
mod plan;
mod pool;
mod queue;
mod queues;
mod read;
mod receipts;
mod records;
mod replica;
mod row;
mod shared;
mod statements;
mod store;
mod tables;
mod tls;
mod write;

pub use config::PostgresDriver;
pub use queue::PostgresQueue;
pub use records::PostgresRecords;
pub use store::PostgresStore;
