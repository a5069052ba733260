//! What a policy makes of failures: a fault injector over the memory backend, on paused time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod blobs;
mod chain;
mod faulty;
mod once;
mod queues;
mod world;
