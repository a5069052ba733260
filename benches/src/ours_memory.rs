//! TO FILL IN when `storage-memory` has landed: the toolkit's side of section `memory`.
//!
//! Add `storage-memory = { path = "../crates/storage-memory" }` to `Cargo.toml`, write a struct that implements
//! [`Named`](crate::subject::Named) with `Role::Ours` and [`MemorySubject`], and answer with it from [`subject`].

use crate::subject::MemorySubject;

/// The toolkit's records in memory, once there is one.
pub fn subject() -> Option<Box<dyn MemorySubject>> {
    None
}
