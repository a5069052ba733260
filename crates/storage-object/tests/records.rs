//! Records on blobs against the definition of the traits, on the blobs of other crates; on services `conformance` runs the suites. And against the
//! model, on all.

#![allow(clippy::expect_used, reason = "tests")]

mod common;

use std::path::Path;

use async_trait::async_trait;
use common::services;
use storage_conformance::{DriverHarness, Harness, Place};
use storage_core::{Backends, DriverConfig, Result};
use storage_fs::FsDriver;
use storage_memory::MemoryDriver;
use storage_object::records;

/// A store whose records are on its blobs.
struct OnBlobs<H>(H);

#[async_trait]
impl<H: Harness> Harness for OnBlobs<H> {
    async fn unavailable(&self) -> Option<String> {
        self.0.unavailable().await
    }

    async fn place(&self) -> Result<Place> {
        self.0.place().await
    }

    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        let Backends { blobs, .. } = self.0.open(config).await?;
        blobs.map_or_else(|| Ok(Backends::default()), |blobs| records::serve(blobs, config))
    }

    fn takes_manual_clock(&self) -> bool {
        // Records take the time from the configuration, whatever the blobs do.
        true
    }

    fn survives_close(&self) -> bool {
        self.0.survives_close()
    }

    async fn broken_place(&self) -> Result<Option<Place>> {
        self.0.broken_place().await
    }
}

/// Compares with the model.
fn agree(harness: &dyn Harness, operations: usize) {
    storage_conformance::model::compare_with_memory(harness, operations, 1);
}

/// The suites and the model on the blobs of a harness.
macro_rules! test_on {
    ($name:ident, $operations:expr, $harness:expr) => {
        mod $name {
            use super::*;

            storage_conformance::test_records!(OnBlobs($harness));
            storage_conformance::test_transactions!(OnBlobs($harness));

            #[test]
            fn agrees_with_the_model() {
                agree(&OnBlobs($harness), $operations);
            }
        }
    };
}

fn folder(path: &Path) -> String {
    format!("file://{}/store?fsync=false", path.display())
}

test_on!(memory, 8_000, {
    // Memory can't be out of reach: what comes nearest is a name that is not to be had.
    let broken = || Ok(Place::url("memory://#1"));
    DriverHarness::new(MemoryDriver, || Ok(Place::unique_name("memory://"))).ephemeral().broken(broken)
});
test_on!(
    fs,
    2_000,
    DriverHarness::new(FsDriver, || Place::in_folder(folder)).broken(|| Ok(Place::url("file:///dev/null/store")))
);

/// Each operation is a few requests: fewer of them than where it is none.
const ON_A_SERVICE: usize = 400;

#[test]
fn seaweedfs_agrees_with_the_model() {
    agree(&services::seaweedfs(), ON_A_SERVICE);
}

#[test]
fn moto_agrees_with_the_model() {
    agree(&services::moto(), ON_A_SERVICE);
}

#[test]
fn azurite_agrees_with_the_model() {
    agree(&services::azurite(), ON_A_SERVICE);
}
