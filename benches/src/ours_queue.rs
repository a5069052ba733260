//! TO FILL IN when `storage-sqlite` has landed: the toolkit's side of section `queue`.
//!
//! Add `storage-sqlite = { path = "../crates/storage-sqlite" }` to `Cargo.toml`, write a struct that implements
//! [`Named`](crate::subject::Named) with `Role::Ours` and [`QueueSubject`], and answer with it from [`subject`].

use crate::subject::QueueSubject;

/// The toolkit's SQLite queue, once there is one.
pub fn subject() -> Option<Box<dyn QueueSubject>> {
    None
}
