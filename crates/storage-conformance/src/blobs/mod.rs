//! Blobs: what [`BlobBackend`](storage_core::BlobBackend) promises.

pub mod attributes;
pub mod conditional;
pub mod copy;
pub mod get;
pub mod handles;
pub mod list;
pub mod names;
pub mod put;

pub(crate) mod fixture;
