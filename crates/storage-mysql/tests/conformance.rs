//! The suites that every backend runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::harness;

storage_conformance::test_records!(harness());
storage_conformance::test_transactions!(harness());
storage_conformance::test_queues!(harness());
