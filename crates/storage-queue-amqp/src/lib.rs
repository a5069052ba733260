//! Queues on RabbitMQ, by AMQP 0-9-1; and, in [`celery`], the tasks of Celery apps on it.
//!
//! ```no_run
//! use storage_core::{Driver as _, DriverConfig, NewMessage, QueueStore, Receive};
//! use storage_queue_amqp::AmqpDriver;
//!
//! # async fn example() -> storage_core::Result<()> {
//! let config = DriverConfig::from_url("amqp://guest:guest@localhost:5672/");
//! let opened = AmqpDriver.open(&config).await?;
//! let queues = QueueStore::new(opened.queue.expect("it opens queues"));
//! let mail = "mail".parse()?;
//! queues.ensure_queue(&mail, &queues.default_spec()).await?;
//! queues.send(&mail, NewMessage::new("hello")).await?;
//! for delivery in queues.receive(&mail, &Receive::up_to(10)).await? {
//!     queues.delete(&mail, &delivery.receipt).await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//!
//! - **Sending** waits for the broker's confirms, all of a call at once. A missing queue is `NotFound`. If the connection breaks in the middle of a call,
//!   a part of its messages may have arrived: `atomic_send` is not declared. A broker that is short of memory or disk makes a call `Throttled`, or
//!   `Timeout` where that happens in the middle.
//! - **Leases** are held by the process that received: its connection is what the broker goes by. A receipt works in that process alone; when the
//!   process or its connection ends, all its messages come back at once. A lease lasts 25 minutes at most, renewals included (`max_lease`): brokers end
//!   what lasts longer, and all leases of the channel with it.
//! - **Deletes** are acknowledgements, which the broker does not answer: after a connection broke, a message that was just deleted may come again.
//! - **Deliveries** are counted by the broker on quorum queues. On classic queues a message that came back is sent anew with its count before it is
//!   delivered, which puts it at the end of the queue. A cancelled receive, and what is fetched ahead (`prefetch`), may count for a delivery that nobody saw.
//! - **Dead letters** are moved by whoever notices: sent to the companion first, and removed when the broker has it. A crash between the two leaves
//!   one letter too many, never one too few. Messages over their time to live are noticed when they are received; the clocks are the machines'.
//! - **Delays** are queues with a time to live, `<queue>.delay.<milliseconds>`, one for each step: a delay is rounded up by at most 3.2 %, and lasts 45
//!   days at most. On classic queues the broker moves what is due without a confirmation: a node that dies at that moment may lose it.
//! - **Priorities** are a matter of classic queues.
//! - **Counts** are estimates: `ready` is the broker's, `leased` this process's. A purge removes what is ready, delayed or leased here; what other
//!   processes have leased stays.
//! - **The list of queues**, and their specs, stand in a stream `storage.catalogue` on the broker, which AMQP has no other place for. Queues that other
//!   programs made can be used, but are not listed, and have no delivery cap.

mod catalogue;
pub mod celery;
mod config;
mod declare;
mod desk;
mod error;
mod link;
mod names;
mod publish;
mod queue;
mod wire;

pub use config::{AmqpDriver, QueueType};
pub use queue::AmqpQueue;
