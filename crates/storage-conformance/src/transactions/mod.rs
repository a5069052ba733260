//! Transactions: what [`RecordStore::transaction`](storage_core::RecordStore::transaction) makes of a backend's atomic batches, and messages
//! within batches.

pub mod bank;
pub mod isolation;
pub mod outbox;
pub mod rollback;

pub(crate) mod fixture;
