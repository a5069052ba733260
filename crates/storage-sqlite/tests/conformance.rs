//! The suites that every backend runs.

use storage_conformance::{DriverHarness, Harness, Place};
use storage_sqlite::SqliteDriver;

fn harness() -> impl Harness {
    DriverHarness::new(SqliteDriver, || Place::in_folder(|folder| format!("sqlite:///{}/c.db", folder.display())))
        .broken(|| Ok(Place::url("sqlite:////proc/no-such-folder/c.db")))
        .manual_clock()
}

storage_conformance::test_records!(harness());
storage_conformance::test_transactions!(harness());
storage_conformance::test_queues!(harness());
