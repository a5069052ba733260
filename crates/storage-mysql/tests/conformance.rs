//! The suites that every backend runs, on both servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

mod mariadb {
    use crate::common::{harness, shared};

    storage_conformance::test_records!(harness(shared()));
    storage_conformance::test_transactions!(harness(shared()));
    storage_conformance::test_queues!(harness(shared()));
}

mod mysql {
    use crate::common::{harness, shared_mysql};

    storage_conformance::test_records!(harness(shared_mysql()));
    storage_conformance::test_transactions!(harness(shared_mysql()));
    storage_conformance::test_queues!(harness(shared_mysql()));
}
