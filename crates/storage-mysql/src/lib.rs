//! Records and queues on MySQL (8.0 or later) and MariaDB (10.6 or later).
//!
//! ```no_run
//! use serde_json::json;
//! use storage_core::{Batch, ColumnType, DriverConfig, Expect, NewMessage, QueueSpec, QueueStore, RecordStore, TableSchema, fields};
//! use storage_mysql::MysqlStore;
//!
//! # #[tokio::main]
//! # async fn main() -> storage_core::Result<()> {
//! let store = MysqlStore::open(&DriverConfig::from_url("mysql://shop:secret@db.example/shop")).await?;
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
//! **Writes** share transactions. What is asked for while some are under way shares the next one, and its sync of the disk. A transaction locks the records that
//! are spoken of, in the order of their keys, and reads them; then every work is decided here, in its turn, so that one whose precondition fails undoes no other;
//! then what came of it is written, many rows a statement, and committed. What the database alone can say, such as that a unique value is taken, fails the
//! transaction: then each work goes by itself, and if need be write by write, so that an error names its write. Isolation is `READ COMMITTED`, without locks on
//! gaps, with all records locked that are written *or checked*; who checks that a record is *not* there holds a lock that those who insert share. A deadlock or a
//! lock that takes too long is tried again, and is a retryable `Conflict` in the end.
//!
//! **Reads** are one statement; pages that need several have one snapshot for them. Behind each goes the question whether the tables were changed by another
//! process: then it is asked anew. A connection that had ended is replaced by another, once. What may be of a while ago is asked of the replica that `read_url`
//! names; where it is gone, or its tables are others, of the primary.
//!
//! **Tables** change in several steps, each of which the server keeps by itself. What is to be done is noted first; who comes across a table in the middle of a
//! change waits, or finishes it if nobody is at it any longer.
//!
//! **Messages** are leased by `FOR UPDATE SKIP LOCKED`. Who waits in the process that sends is woken at once, others look again and again, ever less often, up to
//! a third of a second.
//!
//! **Time** is the server's, so that all programs agree about leases and expiry: each store compares the clocks when it opens, and every half minute.
//!
//! **A caller that goes away** before its turn takes its work back; what was begun is finished by the task that writes. The connection of a read that nobody waits
//! for any longer is closed. So no transaction stays open, and no connection is lost.
//!
//! # Why mysql_async and not sqlx
//!
//! Both are old, well kept and used by many. A connection of mysql_async whose future was dropped knows that it is in the middle of an answer and is never used
//! again; its RSA, for logins without TLS, is not the crate that has an open advisory (RUSTSEC-2023-0071), which sqlx would bring; and it compiles in half the time.
//!
//! # In the database
//!
//! A table is a table of that name with the declared columns under their own names and types (`longtext`, `bigint`, `double`, `boolean`, `datetime(6)` in UTC,
//! `longblob`; see [`storage_sql`]). The collation is `utf8mb4_0900_bin` (MySQL) or `utf8mb4_nopad_bin` (MariaDB): bytewise, trailing spaces too. JSON is
//! `longtext`, since MySQL's `json` does not keep it as it is. An index has room for 768 characters: a column in one is a `varchar`, and longer texts are refused.
//! Keys of two texts are `varbinary`, for the same reason. Tables that begin with `_storage` are ours; comments say what they hold. Whatever else is there is left
//! alone. Views, grants, and constraints and indexes of your own are fine; change columns by `alter_table` alone.

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

pub use config::MysqlDriver;
pub use queue::MysqlQueue;
pub use records::MysqlRecords;
pub use store::MysqlStore;
