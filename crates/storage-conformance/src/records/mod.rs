//! Records: what [`RecordBackend`](storage_core::RecordBackend) promises.

pub mod batch;
pub mod concurrency;
pub mod crud;
pub mod expiry;
pub mod filter;
pub mod handles;
pub mod history;
pub mod names;
pub mod numbers;
pub mod order;
pub mod paging;
pub mod schema;
pub mod stale;
pub mod unique;
pub mod values;

pub(crate) mod table;
