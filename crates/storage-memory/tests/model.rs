//! The comparison with the model, run on the model itself: it must agree with itself, or the comparison depends on something that it should not.

use storage_conformance::{DriverHarness, Place, model};
use storage_memory::MemoryDriver;

#[test]
fn the_model_agrees_with_itself() {
    let harness = DriverHarness::new(MemoryDriver, || Ok(Place::unique_name("memory://"))).manual_clock().ephemeral();
    model::compare_with_memory(&harness, 10_000, 1);
}

#[test]
fn the_model_agrees_with_itself_in_real_time() {
    let harness = DriverHarness::new(MemoryDriver, || Ok(Place::unique_name("memory://"))).ephemeral();
    model::compare_with_memory(&harness, 2_000, 2);
}
