//! What makes a backend fit for production, as backends in front of it: a policy (timeout, retry, circuit breaker, limits), metrics and
//! tracing, and transforms of blobs.
//!
//! ```
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! use std::time::Duration;
//! use storage_core::RecordStore;
//! use storage_layers::guarded::guard;
//! use storage_layers::policy::{Breaker, Policy, Retry, Timeouts};
//! use storage_memory::MemoryStore;
//!
//! let policy = Policy::builder()
//!     .timeouts(Timeouts::calls(Duration::from_secs(5)))
//!     .retry(Retry::default())
//!     .breaker(Breaker::default())
//!     .build()?;
//! let backends = guard(MemoryStore::new().backends(), &policy, Some("records"));
//! let records = backends.records.map(RecordStore::new);
//! # assert!(records.is_some());
//! # Ok::<(), storage_core::Error>(()) })?;
//! # Ok::<(), storage_core::Error>(())
//! ```

pub mod guarded;
pub mod observe;
pub mod policy;
pub mod transform;
