//! The suites against a real server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::harness;

// Records take the time from the configuration, queues from the server.
storage_conformance::test_records!(harness().manual_clock());
storage_conformance::test_transactions!(harness().manual_clock());
storage_conformance::test_queues!(harness());
storage_conformance::test_blobs!(harness());
