//! Transforms of blobs: against the definition of the traits, and each against what it promises itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod cache;
mod cache_files;
mod compression;
mod conformance;
mod encryption;
mod mirror;
mod read_only;
mod soak;
mod support;
