//! Queues, records and blobs on NATS JetStream: work queues, key-value buckets and an object store, which other clients of NATS can read and write.
//!
//! ```no_run
//! use std::sync::Arc;
//! use storage_core::{DriverConfig, NewMessage, QueueSpec, QueueStore, Receive};
//! use storage_nats::NatsStore;
//!
//! # #[tokio::main]
//! # async fn main() -> storage_core::Result<()> {
//! let store = NatsStore::open(&DriverConfig::from_url("nats://127.0.0.1:4222")).await?;
//! let queues = QueueStore::new(Arc::new(store.queue()));
//! let mail = "mail".parse()?;
//! queues.ensure_queue(&mail, &QueueSpec::default()).await?;
//! queues.send(&mail, NewMessage::new("hello").attribute("to", "alice")).await?;
//! for delivery in queues.receive(&mail, &Receive::up_to(10)).await? {
//!     queues.delete(&mail, &delivery.receipt).await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A store has tables and blobs too: [`records`](NatsStore::records), [`blobs`](NatsStore::blobs). All three share one connection, and each is closed by itself.
//!
//! # Queues
//!
//! A queue is a stream with work-queue retention; its parts (what is ready, delayed, dead) have subjects and pull consumers of their own. Sending is
//! publishing, many at once, each acknowledged by the server. Receiving is a pull that waits at the server, which hands a message to one waiting
//! receiver. The server counts the time of a lease: thirty seconds is the consumer's own ack wait, any other length is a negative acknowledgement with
//! that delay, sent and confirmed before the message is handed out. A delete is an acknowledgement, confirmed.
//!
//! - **Receipts** work in the store that received. The server takes an acknowledgement from whoever sends it, so the store keeps the time itself and
//!   refuses what is too late. They don't work across processes, and that is declared.
//! - **The delivery cap** is ours: the server's own would just stop to deliver. A message that used it up becomes a dead letter when it is given back,
//!   or when somebody receives after its last lease.
//! - **Delayed messages** are looked after by whoever receives. Until one is due, the server keeps it.
//! - **Dead letters, delayed and redriven messages** move by a copy, then an acknowledgement. A crash in between makes no second copy.
//! - **Dedup ids** are the server's `Nats-Msg-Id`. It keeps them in memory: at a restart it forgets those of messages that are gone.
//! - **Not atomic.** JetStream 2.9 stores messages one by one. A `send` that is not answered may have sent some of its messages.
//! - **Not here**: priorities (ten consumers for each queue, and a question before each receive, to be exact), a look without taking and exact counts (the
//!   server does not say which of the delivered messages are back), changes of a body.
//!
//! # Records
//!
//! A table is a key-value bucket of its own, a record a key of it, its value a JSON document; the bucket `PREFIX-tables` has a row for each table. A write reads the
//! key, decides, and is stored on condition that its revision is still the same; where it is not, it begins anew.
//!
//! - **One bucket for each table**, rather than one for all: a table is dropped with its stream at once, has its own order of writes, and its bucket holds one kind of
//!   thing for whoever watches it. The bucket's name ends with a mark of the table's life, so that a write to a table that was dropped meets no stream, and never
//!   the table that came after it, whose revisions begin anew. It costs a stream for each table.
//! - **The version is in the document.** A revision is a place in the bucket's stream: it guards the next write, but does not start at 1 and grow by one.
//! - **Conditions in a cluster** are checked by the leader before a message is on its way to the others, so that two at once may both pass (always before 2.9.21; later when
//!   the leader changes). Each write over a revision therefore has the revision as its message id, which is looked for as it is stored: one of the two is a duplicate.
//! - **Atomic within a record.** JetStream 2.9 has no way to store several messages or none. A mark of one message for a whole batch, which readers would have to look for, would
//!   cost each read a second one, and other clients would see half of it.
//! - **A query walks through the bucket**, by a consumer in the server's memory that is gone afterwards: the server keeps no order and no index, but finds a partition by its
//!   subject. What is written meanwhile moves to the stream's end and comes there; the first of two sights counts.
//! - **Deletes** are markers, as other clients write them, since the server decides conditions of writes alone; markers older than a minute are removed by queries. Expired
//!   records are removed by their place in the stream, which is never taken again.
//! - **Not here**: unique columns and messages within batches (they would have to be written with the record), history (a bucket that keeps it has to be
//!   walked through with all of it), backups.
//!
//! # Blobs
//!
//! The object store is named as the prefix is. An object is chunks under a name of their own, and one message that says that they are the object, stored on condition that the
//! message before it is still the last: that is what all modes are decided by, after the last byte. The client library's own object store writes that message
//! without a condition, so this is a small layer of ours over the same format, with the places of some chunks noted for reads of ranges.
//!
//! # Durability
//!
//! An acknowledged message is written to the server's file, so it survives a server that is killed; the file is synced every two minutes, so the
//! last ones may not survive a power cut. [`durable`](storage_core::QueueCapabilities::durable) is therefore not declared, nor is it for records and blobs. The server writes down who has
//! which message ten times a second: after a crash, messages that were leased or deleted in the last moment may come again.
//!
//! # Time
//!
//! Leases are by the server's clock and this machine's monotonic clock. Times to live and delays are reckoned from the server's time of storing on the
//! clock of the machine that receives: the clocks should agree. Records expire by the clocks of the machines that read and write.

mod admin;
mod blobs;
mod client;
mod codec;
mod config;
mod error;
mod later;
mod leases;
mod moves;
mod names;
mod open;
mod pull;
mod queue;
mod receive;
mod records;
mod send;
mod settle;
mod store;
mod stream;

pub use blobs::NatsBlobs;
pub use client::NatsClient;
pub use config::NatsDriver;
pub use queue::NatsQueue;
pub use records::NatsRecords;
pub use store::NatsStore;
