//! Queues on NATS JetStream, as work queues that other clients of NATS can read and write.
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
//! # How it works
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
//! # Durability
//!
//! An acknowledged message is written to the server's file, so it survives a server that is killed; the file is synced every two minutes, so the
//! last ones may not survive a power cut. [`durable`](storage_core::QueueCapabilities::durable) is therefore not declared. The server writes down who has
//! which message ten times a second: after a crash, messages that were leased or deleted in the last moment may come again.
//!
//! # Time
//!
//! Leases are by the server's clock and this machine's monotonic clock. Times to live and delays are reckoned from the server's time of storing on the
//! clock of the machine that receives: the clocks should agree.

mod admin;
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

pub use client::NatsClient;
pub use config::NatsDriver;
pub use queue::NatsQueue;
pub use records::NatsRecords;
pub use store::NatsStore;
