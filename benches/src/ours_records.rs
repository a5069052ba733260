//! TO FILL IN when `storage-sqlite` has landed: the toolkit's side of section `records`.
//!
//! Add `storage-sqlite = { path = "../crates/storage-sqlite" }` to `Cargo.toml`, write a struct that implements
//! [`Named`](crate::subject::Named) with `Role::Ours` and [`RecordSubject`], and answer with it from [`subject`].

use crate::subject::RecordSubject;

/// The toolkit's SQLite records, once there is one.
pub fn subject() -> Option<Box<dyn RecordSubject>> {
    None
}
