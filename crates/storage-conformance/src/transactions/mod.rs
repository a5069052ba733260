//! Transactions: what [`RecordStore::transaction`](storage_core::RecordStore::transaction) makes of a backend's atomic batches, and messages
//! within batches; and schedulers, whose leases are built of such batches.

pub mod bank;
pub mod isolation;
pub mod outbox;
pub mod rollback;
pub mod schedulers;

pub(crate) mod fixture;
