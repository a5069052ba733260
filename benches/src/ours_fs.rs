//! TO FILL IN when `storage-fs` has landed: the toolkit's side of section `fs`.
//!
//! Add `storage-fs = { path = "../crates/storage-fs" }` to `Cargo.toml`, write a struct that implements
//! [`Named`](crate::subject::Named) with `Role::Ours` and [`FileSubject`], and answer with it from [`subject`].

use crate::subject::FileSubject;

/// The toolkit's records as files, once there is one.
pub fn subject() -> Option<Box<dyn FileSubject>> {
    None
}
