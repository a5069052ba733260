//! The executable definition of the storage traits: suites that any backend, ours or a stranger's, runs.
//!
//! A backend crate's `tests/conformance.rs` is this, with one macro for each component that it has:
//!
//! ```
//! use storage_conformance::{DriverHarness, Harness, Place};
//! use storage_memory::MemoryDriver;
//!
//! fn harness() -> impl Harness {
//!     DriverHarness::new(MemoryDriver, || Ok(Place::unique_name("memory://"))).manual_clock()
//! }
//!
//! storage_conformance::test_records!(harness());
//! storage_conformance::test_transactions!(harness());
//! storage_conformance::test_queues!(harness());
//! storage_conformance::test_blobs!(harness());
//! # fn main() {}
//! ```
//!
//! A cache runs `test_caches!` with a [harness](caches::CacheHarness) of its own.
//!
//! Each case becomes a test of its own, `records::put_then_get` and so on. A case about a capability that the backend does not declare
//! checks that it is refused instead. A case that can't run for want of something [`skip`]s, and says why.
//!
//! What tests of backends on servers need beside the suites is here too: a [network that breaks](proxy), a [count of requests](requests),
//! [certificates], a [server](server::OwnServer) that is killed, [load], and [replicas](replica).
//!
//! Cases that wait pass time on a manual clock where the [`Harness`] offers one, and wait for short real times otherwise. They assert
//! order and "not before", never that something was quick: they hold on a slow and busy machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate runs inside tests")]
#![allow(clippy::missing_errors_doc, reason = "a case fails where its promise is broken: there is no more to say")]

pub mod blobs;
pub mod caches;
pub mod certificates;
mod check;
mod declared;
mod harness;
pub mod load;
pub mod model;
mod names;
mod opened;
pub mod proxy;
pub mod queues;
pub mod records;
#[cfg(unix)]
pub mod replica;
pub mod requests;
mod run;
#[cfg(unix)]
pub mod server;
mod suites;
pub mod transactions;

pub use harness::{DriverHarness, Harness, LayeredHarness, Place, process_mark};
pub use run::{CacheCase, Case, CaseResult, Failure, Flavor, run, run_caches, skip};
