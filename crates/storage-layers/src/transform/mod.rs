//! Backends of blobs in front of another: compression, encryption, mirror, prefix, read-only, cache.
//!
//! Each is a [`BlobBackend`](storage_core::BlobBackend) over another and passes the conformance suite of blobs, so that they stack in front of anything.
//! [`stack`] puts them in their order by configuration.
//!
//! Compression and encryption are self-describing: what was written before, with another level or an older key, stays readable.
//!
//! ```
//! # #[cfg(all(feature = "encryption", feature = "zstd"))]
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! use std::sync::Arc;
//! use storage_core::BlobStore;
//! use storage_layers::transform::compression::{CompressedBlobs, CompressionOptions};
//! use storage_layers::transform::encryption::{EncryptedBlobs, EncryptionOptions, Key, Keyring};
//! use storage_memory::MemoryStore;
//!
//! let backend = MemoryStore::new().backends().blobs.expect("memory has blobs");
//! let keys = Keyring::new(Key::generate()?);
//! let encrypted = Arc::new(EncryptedBlobs::new(backend.clone(), keys, EncryptionOptions::default()));
//! let blobs = BlobStore::new(Arc::new(CompressedBlobs::new(encrypted, CompressionOptions::default())?));
//!
//! let path = "letters/1.txt".parse()?;
//! blobs.put(&path, "dear reader, ".repeat(100)).await?;
//! assert_eq!(blobs.get_range(&path, 0..11).await?, "dear reader");
//! let stored = BlobStore::new(backend).get(&path).await?;
//! assert!(stored.len() < 300 && !stored.windows(4).any(|bytes| bytes == b"dear"));
//! # Ok::<(), storage_core::Error>(()) })?;
//! # Ok::<(), storage_core::Error>(())
//! ```

#[cfg(any(feature = "encryption", feature = "zstd"))]
mod body;
#[cfg(feature = "zstd")]
pub mod compression;
pub mod config;
#[cfg(feature = "encryption")]
pub mod encryption;
pub mod mirror;
#[cfg(any(feature = "encryption", feature = "zstd"))]
mod peek;
mod prefix;
mod read_only;
mod wrap;

pub use config::{TransformConfig, stack};
pub use prefix::PrefixedBlobs;
pub use read_only::ReadOnlyBlobs;
#[cfg(feature = "cache")]
pub use storage_cache::{CacheOptions, CachedBlobs, FileOptions};
