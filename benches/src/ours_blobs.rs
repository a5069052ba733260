//! TO FILL IN when `storage-fs` has landed: the toolkit's side of section `blobs`.
//!
//! Add `storage-fs = { path = "../crates/storage-fs" }` to `Cargo.toml`, write a struct that implements
//! [`Named`](crate::subject::Named) with `Role::Ours` and [`BlobSubject`], and answer with it from [`subject`].

use crate::subject::BlobSubject;

/// The toolkit's blobs in a folder, once there is one.
pub fn subject() -> Option<Box<dyn BlobSubject>> {
    None
}
