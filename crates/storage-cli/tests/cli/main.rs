//! The command as people and scripts use it: the real binary, in a folder of its own, with a clean environment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod across;
#[cfg(feature = "amqp")]
mod amqp;
mod blobs;
mod check;
mod crash;
mod demo;
mod folders;
mod frame;
#[cfg(all(feature = "amqp", feature = "postgres", feature = "redis", feature = "s3"))]
mod independent;
#[cfg(feature = "nats")]
mod nats;
mod outbox;
#[cfg(feature = "azure-queue")]
mod queue_azure;
mod queues;
mod records;
#[cfg(feature = "redis")]
mod redis;
mod support;
#[cfg(feature = "azure-table")]
mod table_azure;
mod tasks;
mod worker;
