//! Azure Table Storage against the definition of the traits, on Azurite.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

storage_conformance::test_records!(common::harness());
storage_conformance::test_transactions!(common::harness());
