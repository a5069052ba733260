//! Backends of blobs in front of another: compression, encryption, mirror, prefix, read-only, cache.

mod body;
#[cfg(feature = "cache")]
mod cache;
#[cfg(feature = "zstd")]
pub mod compression;
#[cfg(feature = "encryption")]
pub mod encryption;
pub mod mirror;
mod peek;
mod prefix;
mod read_only;
mod wrap;

#[cfg(feature = "cache")]
pub use cache::{CacheOptions, CachedBlobs};
pub use prefix::PrefixedBlobs;
pub use read_only::ReadOnlyBlobs;
