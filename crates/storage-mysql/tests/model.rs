//! The same random operations on PostgreSQL and on the memory backend.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use storage_conformance::model;

#[test]
fn answers_as_the_model_does() {
    model::compare_with_memory(&common::harness(), 3_000, 21);
}
