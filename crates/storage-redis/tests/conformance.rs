//! The suites, on a single server that is durable and on a Cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::{harness, shared};

mod single {
    use super::*;
    // Nothing listens on port 1.
    storage_conformance::test_records!(harness(shared("XTASK_TEST_REDIS"), "redis://127.0.0.1:1"));
    storage_conformance::test_transactions!(harness(shared("XTASK_TEST_REDIS"), "redis://127.0.0.1:1"));
    storage_conformance::test_queues!(harness(shared("XTASK_TEST_REDIS"), "redis://127.0.0.1:1"));
}

mod cluster {
    use super::*;
    storage_conformance::test_records!(harness(shared("XTASK_TEST_REDIS_CLUSTER"), "redis+cluster://127.0.0.1:1"));
    storage_conformance::test_transactions!(harness(shared("XTASK_TEST_REDIS_CLUSTER"), "redis+cluster://127.0.0.1:1"));
    storage_conformance::test_queues!(harness(shared("XTASK_TEST_REDIS_CLUSTER"), "redis+cluster://127.0.0.1:1"));
}
