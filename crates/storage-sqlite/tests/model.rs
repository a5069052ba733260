//! The same random operations on SQLite and on the memory backend.

use storage_conformance::{DriverHarness, Place, model};
use storage_sqlite::SqliteDriver;

fn harness() -> DriverHarness<SqliteDriver> {
    // What is compared is answers, not what survives a power cut.
    DriverHarness::new(SqliteDriver, || Place::in_folder(|f| format!("sqlite:///{}/m.db?synchronous=off", f.display())))
}

#[test]
fn answers_as_the_model_does() {
    model::compare_with_memory(&harness().manual_clock(), 5_000, 11);
}

#[test]
fn answers_as_the_model_does_in_real_time() {
    model::compare_with_memory(&harness(), 1_500, 12);
}

#[test]
fn filters_find_what_the_model_finds() {
    model::compare_filters_with_memory(&harness(), 2_000, 13);
}
