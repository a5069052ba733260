//! RabbitMQ against the definition of the traits, on quorum and on classic queues.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

mod quorum {
    storage_conformance::test_queues!(crate::common::harness(""));
}

mod classic {
    storage_conformance::test_queues!(crate::common::harness("&queue_type=classic"));
}

/// What the broker has is asked for ahead: the promises are the same, but for what is counted and held in vain.
mod ahead {
    storage_conformance::test_queues!(crate::common::harness("&prefetch=100"));
}
