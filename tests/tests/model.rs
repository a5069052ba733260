//! Random operations on SQLite, on files and on the memory model side by side: every answer is the same.

use storage_conformance::{DriverHarness, Harness, Place, model};
use storage_fs::FsDriver;
use storage_sqlite::SqliteDriver;

/// Operations per backend; `--soak` does far more, from a seed of the day's choice.
const OPERATIONS: usize = 12_000;
const SOAK_OPERATIONS: usize = 1_000_000;

fn sqlite() -> impl Harness {
    DriverHarness::new(SqliteDriver, || Place::in_folder(|folder| format!("sqlite:///{}/m.db", folder.display()))).manual_clock()
}

fn files() -> impl Harness {
    DriverHarness::new(FsDriver, || Place::in_folder(|folder| format!("fs://{}", folder.join("store").display()))).manual_clock()
}

fn fresh_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

#[test]
fn sqlite_answers_as_the_model_does() {
    model::compare_with_memory(&sqlite(), OPERATIONS, 1);
}

#[test]
fn fs_answers_as_the_model_does() {
    model::compare_with_memory(&files(), OPERATIONS, 2);
}

#[test]
#[ignore = "soak: takes long; run with `cargo xtask test --soak`"]
fn soak_sqlite_answers_as_the_model_does() {
    model::compare_with_memory(&sqlite(), SOAK_OPERATIONS, fresh_seed());
}

#[test]
#[ignore = "soak: takes long; run with `cargo xtask test --soak`"]
fn soak_fs_answers_as_the_model_does() {
    model::compare_with_memory(&files(), SOAK_OPERATIONS, fresh_seed());
}
