//! Azure Table Storage answers as the memory backend does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

#[test]
fn answers_as_the_model_does() {
    storage_conformance::model::compare_with_memory(&common::harness(), 2_000, 20_261_127);
}

#[test]
fn filters_find_what_the_model_finds() {
    storage_conformance::model::compare_filters_with_memory(&common::harness(), 2_000, 20_261_127);
}
