//! The definition of the traits, through every transform and through stacks of them: a transform must not change what the suite sees.

use std::sync::Arc;

use storage_layers::transform::compression::{CompressedBlobs, CompressionOptions};
use storage_layers::transform::encryption::{Algorithm, EncryptedBlobs, EncryptionOptions, Key, Keyring, PlainBlobs};

use storage_layers::transform::mirror::Require;
use storage_layers::transform::{CacheOptions, CachedBlobs, FileOptions, PrefixedBlobs};

use storage_core::{BlobBackend, Secret};
use storage_layers::transform::config::{CacheConfig, CompressionConfig, EncryptionConfig};
use storage_layers::transform::{TransformConfig, stack};

use crate::support::{Counted, Wrap, mirrored, mirrored_below, on_fs, on_memory};

macro_rules! conforms {
    ($($name:ident: $harness:expr;)*) => {
        $(mod $name {
            use super::*;
            storage_conformance::test_blobs!($harness);
        })*
    };
}

fn keys() -> Keyring {
    Keyring::new(Key::new([7; 32]))
}

const ENCRYPTED: Wrap = |inner| Arc::new(EncryptedBlobs::new(inner, keys(), EncryptionOptions::default()));
const ENCRYPTED_BESIDE_PLAIN: Wrap = |inner| {
    let options = EncryptionOptions { algorithm: Algorithm::ChaCha20Poly1305, plain: PlainBlobs::Allow };
    Arc::new(EncryptedBlobs::new(inner, keys(), options))
};
const COMPRESSED: Wrap = |inner| Arc::new(CompressedBlobs::new(inner, CompressionOptions::default()).unwrap());
const COMPRESSED_AND_ENCRYPTED: Wrap = |inner| COMPRESSED(ENCRYPTED(inner));
const PREFIXED: Wrap = |inner| Arc::new(PrefixedBlobs::new(inner, "p/q".parse().unwrap()));
const CACHED: Wrap = |inner| Arc::new(CachedBlobs::new(inner, CacheOptions::default()));
/// Little fits into memory, so that both tiers are at work.
const CACHED_IN_FILES: Wrap = |inner| {
    Arc::new(Counted::in_folder(|folder| {
        let options = CacheOptions { max_blob_bytes: 20, ..CacheOptions::default() };
        Arc::new(CachedBlobs::with_files(inner, options, FileOptions::new(folder)))
    }))
};
/// All of them, as configuration stacks them.
const STACKED: Wrap = |inner| stacked(inner, CacheConfig::default());
const STACKED_WITH_FILES: Wrap = |inner| {
    Arc::new(Counted::in_folder(|folder| {
        let dir = Some(folder.to_owned());
        stacked(inner, CacheConfig { dir, max_blob_bytes: 20.try_into().ok(), ..CacheConfig::default() })
    }))
};

fn stacked(inner: Arc<dyn BlobBackend>, cache: CacheConfig) -> Arc<dyn BlobBackend> {
    let config = TransformConfig {
        cache: Some(cache),
        compression: Some(CompressionConfig::default()),
        encryption: Some(EncryptionConfig { key: Some(Secret::new("07".repeat(32))), ..EncryptionConfig::default() }),
        prefix: Some("p".parse().unwrap()),
        ..TransformConfig::default()
    };
    stack(inner, Vec::new(), &config).unwrap()
}

conforms! {
    stacked_on_memory: on_memory(STACKED);
    stacked_on_fs: on_fs(STACKED);
    stacked_on_a_mirror: mirrored_below(on_memory, STACKED);
    stacked_with_files_on_memory: on_memory(STACKED_WITH_FILES);
    stacked_with_files_on_fs: on_fs(STACKED_WITH_FILES);
    cached_in_files_on_memory: on_memory(CACHED_IN_FILES);
    cached_in_files_on_fs: on_fs(CACHED_IN_FILES);
    cached_on_memory: on_memory(CACHED);
    cached_on_fs: on_fs(CACHED);
    prefixed_on_memory: on_memory(PREFIXED);
    prefixed_on_fs: on_fs(PREFIXED);
    mirrored_on_memory: mirrored(on_memory, Require::All);
    mirrored_on_fs: mirrored(on_fs, Require::Primary);
    compressed_on_memory: on_memory(COMPRESSED);
    compressed_on_fs: on_fs(COMPRESSED);
    compressed_and_encrypted_on_memory: on_memory(COMPRESSED_AND_ENCRYPTED);
    compressed_and_encrypted_on_fs: on_fs(COMPRESSED_AND_ENCRYPTED);
    encrypted_on_memory: on_memory(ENCRYPTED);
    encrypted_on_fs: on_fs(ENCRYPTED);
    encrypted_beside_plain_on_memory: on_memory(ENCRYPTED_BESIDE_PLAIN);
    encrypted_beside_plain_on_fs: on_fs(ENCRYPTED_BESIDE_PLAIN);
}
