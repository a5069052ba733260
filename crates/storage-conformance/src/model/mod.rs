//! Random operations on a backend and on the memory backend side by side, every answer compared.
//!
//! A backend crate calls [`compare_with_memory`] from a test of its own:
//!
//! ```no_run
//! # use storage_conformance::{DriverHarness, Harness, Place};
//! # use storage_memory::MemoryDriver;
//! # fn harness() -> impl Harness { DriverHarness::new(MemoryDriver, || Ok(Place::unique_name("memory://"))) }
//! #[test]
//! fn agrees_with_the_model() {
//!     storage_conformance::model::compare_with_memory(&harness(), 10_000, 1);
//! }
//! ```
//!
//! [`compare_filters_with_memory`] does the same with filters alone, over more records and all types of columns.
//!
//! What the backend does not declare, the model refuses too. A difference is shrunk to the shortest sequence that shows it. Time is moved by hand where the harness takes a manual clock; else nothing that
//! depends on time is tried.

mod filters;
mod limited;
mod op;
mod side;
mod side_queue;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use storage_core::Clock;
use storage_memory::MemoryStore;

use self::op::Op;
use self::side::Side;
use crate::Harness;

/// How many operations one store sees at most: long enough for states to build up, short enough to be read.
const LONGEST: usize = 80;

/// Runs about `operations` random operations, derived from `seed`, in sequences of up to 80 on fresh stores.
///
/// Records and transactions always; queues and messages within batches too, where the backend has them.
///
/// # Panics
/// Where an answer differs, with the shortest sequence found that shows it.
pub fn compare_with_memory(harness: &dyn Harness, operations: usize, seed: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    if let Some(reason) = runtime.block_on(harness.unavailable()) {
        return crate::skip(&reason);
    }
    let cases = u32::try_from(operations.div_ceil(LONGEST / 2)).unwrap_or(u32::MAX);
    let config = Config { cases, max_shrink_iters: 3_000, failure_persistence: None, ..Config::default() };
    let mut runner = runner(config, seed);
    let outcome = runner.run(&op::sequence(LONGEST), |ops| runtime.block_on(compare(harness, &ops)).map_err(TestCaseError::fail));
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(difference, ops)) => {
            let listed: Vec<String> = ops.iter().enumerate().map(|(n, op)| format!("{n:3} {op:?}")).collect();
            panic!("seed {seed}: the backend and the model differ\n{difference}\nafter:\n{}", listed.join("\n"));
        }
        Err(abort) => panic!("seed {seed}: {abort}"),
    }
}

fn runner(config: Config, seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// Asks a store of random records as many random queries as `filters` says, derived from `seed`: counts, and all pages, in all kinds of orders.
///
/// # Panics
/// Where an answer differs from the memory backend's.
pub fn compare_filters_with_memory(harness: &dyn Harness, filters: usize, seed: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    if let Some(reason) = runtime.block_on(harness.unavailable()) {
        return crate::skip(&reason);
    }
    let mut runner = runner(Config::default(), seed);
    if let Err(difference) = runtime.block_on(filters::compare(harness, filters, &mut runner)) {
        panic!("seed {seed}: the backend and the model differ\n{difference}");
    }
}

async fn compare(harness: &dyn Harness, ops: &[Op]) -> Result<(), String> {
    let clock = if harness.takes_manual_clock() { Clock::manual() } else { Clock::system() };
    let mut place = harness.place().await.map_err(|e| e.to_string())?;
    place.config.clock = clock.clone();
    let backends = harness.open(&place.config).await.map_err(|e| e.to_string())?;
    let model = MemoryStore::with_clock(clock.clone()).backends();
    let mut theirs = Side::new(backends, clock.clone()).await.map_err(|e| e.to_string())?;
    let mut ours = Side::new(theirs.limit(model), clock.clone()).await.map_err(|e| e.to_string())?;
    ours.take_schemas_of(&theirs).await.map_err(|e| e.to_string())?;
    for (n, op) in ops.iter().enumerate() {
        match op {
            Op::Advance(by) => clock.advance(*by),
            Op::Reopen if harness.survives_close() => {
                theirs.close().await.map_err(|e| format!("{n} close: {e}"))?;
                let again = harness.open(&place.config).await.map_err(|e| format!("{n} open again: {e}"))?;
                theirs.reopened(again);
            }
            Op::Reopen => {}
            op => {
                let (found, expected) = (theirs.perform(op).await, ours.perform(op).await);
                if found != expected {
                    return Err(format!("operation {n}, {op:?}\n  model:   {expected}\n  backend: {found}"));
                }
            }
        }
    }
    let (expected, found) = (ours.whole().await, theirs.whole().await);
    if found != expected {
        return Err(format!("what is there in the end\n  model:   {expected}\n  backend: {found}"));
    }
    Ok(())
}
