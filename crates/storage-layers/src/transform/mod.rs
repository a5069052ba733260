//! Backends of blobs in front of another: compression, encryption, mirror, prefix, read-only, cache.

mod body;
#[cfg(feature = "zstd")]
pub mod compression;
#[cfg(feature = "encryption")]
pub mod encryption;
mod peek;
mod wrap;
