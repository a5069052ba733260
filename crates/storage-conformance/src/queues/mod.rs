//! Queues: what [`QueueBackend`](storage_core::QueueBackend) and the [`Consumer`](storage_core::Consumer) on top of it promise.

pub mod admin;
pub mod consumer;
pub mod content;
pub mod dead_letter;
pub mod dedup;
pub mod delay;
pub mod handles;
pub mod lease;
pub mod order;
pub mod receive;
pub mod renewal;
pub mod ttl;
pub mod update;

pub(crate) mod fixture;
