//! Queues on Azure Storage Queue, by the official client.
//!
//! ```no_run
//! use std::sync::Arc;
//! use storage_core::{DriverConfig, NewMessage, QueueStore, Receive};
//! use storage_queue_azure::AzureQueue;
//!
//! # async fn example() -> storage_core::Result<()> {
//! let config = DriverConfig::from_url("azure-queue://acme?identity=managed");
//! let queues = QueueStore::new(Arc::new(AzureQueue::open(&config)?));
//! let mail = "mail".parse()?;
//! queues.ensure_queue(&mail, &queues.default_spec()).await?;
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
//! The service leases messages, counts how often it gave each out, and has no idea of caps, dead letters or attributes. These are made here:
//!
//! - **A message** that is a body and nothing else is that body in base64 (or as it is, with `encoding=text`). One with attributes, a content type or a time to
//!   live is an envelope, which is base64 as well: `storage-message/1 {"attributes":{…}}`, a line end, the body. What is neither is read as a body of text.
//!   All are sent to live for ever: by default the service would drop them after a week.
//! - **A lease** is the service's, in whole seconds: a visibility is rounded up, 7 days at most. Receipts work in any process; but to make a dead letter, or to
//!   change a part of a message that has more than a body, what is in it must be known, and the service shows nobody a message by its id. The handle that
//!   received it knows. Another one gives it back for a moment and looks at the first 32: if it is not among them, that is `Unsupported`.
//! - **Dead letters**, by the cap, by the time to live or by a consumer, are made by whoever receives or gives back. The message is first rewritten with the reason
//!   where it is, then copied to the companion `q-dead`, then removed: a crash leaves one letter too many, never one too few.
//! - **Sending, receiving and deleting** many is many requests at once, as many as `concurrency` says. The service has no batches, so a send is not atomic.
//!   The order is about that of sending, and not declared.
//! - **Waiting** is asking again: soon after a message, every second (`poll_ms`) of a queue that stays empty.
//! - **Counts** are estimates. The service does not tell delayed from leased ones; a look shows 32 messages at most.
//! - **Large bodies** (48 KiB and more, attributes included) are refused, or go into blobs (option `spill`, [`AzureQueue::with_spill`]).
//! - **Not here**: priorities, dedup ids, wake-ups.
//!
//! Times to live are reckoned by the clocks of the machines that send and receive: they should agree.

mod admin;
mod client;
mod config;
mod dense;
mod error;
mod held;
mod moves;
mod names;
mod queue;
mod receipt;
mod receive;
mod send;
mod spill;
mod store;
mod text;

pub use config::AzureQueueDriver;
pub use queue::AzureQueue;
