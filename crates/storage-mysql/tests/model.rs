//! The same random operations on MariaDB or MySQL and on the memory backend.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::{harness, shared, shared_mysql};
use storage_conformance::model;

#[test]
fn mariadb_answers_as_the_model_does() {
    model::compare_with_memory(&harness(shared()), 3_000, 21);
}

#[test]
fn mysql_answers_as_the_model_does() {
    model::compare_with_memory(&harness(shared_mysql()), 1_500, 22);
}
