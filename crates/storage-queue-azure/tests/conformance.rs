//! Azure Storage Queue against the definition of the traits, on Azurite: as it is opened by default, and with bodies written as text.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

storage_conformance::test_queues!(common::harness(""));

mod text {
    storage_conformance::test_queues!(crate::common::harness("&encoding=text"));
}
