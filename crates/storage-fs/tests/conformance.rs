//! The file system backend against the definition of the traits.

use storage_conformance::{DriverHarness, Harness, Place};
use storage_fs::FsDriver;

fn harness() -> impl Harness {
    DriverHarness::new(FsDriver, || Place::in_folder(|folder| format!("fs://{}", folder.join("store").display())))
        .broken(|| {
            Place::in_folder(|folder| {
                let file = folder.join("file");
                // Where this fails, there is no folder to open either, and the case finds what it looks for.
                let _ = std::fs::write(&file, "not a folder");
                format!("fs://{}", file.display())
            })
        })
        .manual_clock()
}

storage_conformance::test_records!(harness());
storage_conformance::test_transactions!(harness());
storage_conformance::test_queues!(harness());
storage_conformance::test_blobs!(harness());
