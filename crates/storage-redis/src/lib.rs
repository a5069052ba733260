//! Records and queues on Redis: on a single server, behind Sentinel, or in a Cluster.
//!
//! ```no_run
//! use storage_core::{Batch, ColumnType, Driver, DriverConfig, Expect, Fields, NewMessage, QueueSpec, QueueStore, Receive, RecordStore, TableSchema};
//! use storage_redis::RedisDriver;
//!
//! # async fn example() -> storage_core::Result<()> {
//! let config = DriverConfig::from_url("redis://127.0.0.1:6379/0?prefix=shop");
//! let backends = RedisDriver.open(&config).await?;
//! let queues = QueueStore::new(backends.queue.expect("the driver serves queues"));
//! let mail = "mail".parse()?;
//! queues.ensure_queue(&mail, &QueueSpec::default()).await?;
//! let records = RecordStore::new(backends.records.expect("and records"));
//! let orders = "orders".parse()?;
//! records.create_table(&TableSchema::builder("orders").column("cents", ColumnType::Integer).build()?).await?;
//! // Both or none; in a Cluster records and messages go by themselves.
//! let message = NewMessage::new("hello");
//! records.commit(Batch::new().put(&orders, "17", Fields::new(), Expect::Absent).enqueue(&mail, message)).await?;
//! for delivery in queues.receive(&mail, &Receive::up_to(10)).await? {
//!     queues.delete(&mail, &delivery.receipt).await?;
//! }
//! # Ok(()) }
//! ```
//!
//! # How it works
//!
//! Every operation is one script, which the server runs in one step: a message is never half sent, half received or in two places. Scripts take the
//! time from the server, so that the clocks of its clients don't matter. All keys of a queue share a hash tag, so that a Cluster keeps
//! them together, and each script names all keys that it touches. What is due (ends of leases, delays and times to live) is moved by whoever
//! comes next, a thousand messages at a time, so that nobody is kept waiting long.
//!
//! A waiting receive is woken: `send` publishes, and each handle listens on one connection to the queues that it waits for. It knows when
//! the next lease or delay ends, and looks then. Without news for five seconds it looks anyway.
//!
//! A record is a hash, and its table keeps the keys and each index as a sorted set whose order is theirs. A batch is one script: it holds all preconditions and unique values against what is
//! there, and then writes; where it sends messages, it holds the queue's own script. Scripts check that the table is as the program knows it. On a single
//! server and behind Sentinel a batch reaches the whole store, in a Cluster one table, whose keys share a hash tag.
//!
//! Connections are shared by many callers, and come back by themselves. A command whose answer was lost is not sent again: it may have
//! taken effect, and whether it may be repeated is for the caller (or `storage-layers`) to say.
//!
//! The messages of one `send` hold 128 MiB at most, since they go in one script call: all or none.
//!
//! # Durability
//!
//! [`durable`](storage_core::QueueCapabilities::durable) is declared where the server says `appendonly yes`, `appendfsync always` and
//! `no-appendfsync-on-rewrite no`, is alone, and evicts nothing. With `everysec` a power cut loses up to a second of what was accepted, and a replica that takes over (Sentinel,
//! Cluster) may lack what its primary accepted last. Who knows better says so by the option `durable`.
//!
//! # What it needs
//!
//! Redis 6.2 or later. The tests ran on Redis 7.0.15, those of queues on 6.2.5 too (there without TLS), single, behind Sentinel and as a Cluster; Valkey, which
//! speaks the same, was not at hand. `maxmemory-policy noeviction`, else messages may vanish: one whose body alone was evicted becomes a dead
//! letter with the reason `body-lost`. A user with limited rights needs the keys and channels of its prefix and the commands of scripts:
//! `ACL SETUSER app on >PASSWORD ~shop:* resetchannels &shop:* +@all -@dangerous +info +config|get`.

mod address;
mod client;
mod config;
mod connect;
mod durability;
mod error;
mod layout;
mod message;
mod news;
mod queue;
mod records;
mod scripts;
mod values;

pub use config::RedisDriver;
pub use queue::RedisQueue;
pub use records::RedisRecords;
