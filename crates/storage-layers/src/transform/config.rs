//! Transforms as configuration, and in their order over a backend.
//!
//! ```text
//! read_only → cache → compression → encryption → prefix → mirror → the backend and its copies
//! ```
//!
//! The cache holds plain bytes, so that a hit decrypts nothing. What is encrypted does not shrink, so compression comes first. The path that encryption binds is the one
//! without the prefix: data may move to another. Copies hold encrypted bytes, so a place that is not trusted can be one.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use storage_core::{BlobBackend, BlobPath, Error, OptionSpec, Result};

use super::mirror::{Mirror, Require};
use super::{PrefixedBlobs, ReadOnlyBlobs};

/// A table of configuration.
pub trait Section: DeserializeOwned {
    /// Its keys, and what each is.
    const KEYS: &'static [OptionSpec];
}

const fn key(name: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, help }
}

/// `[compression]`
#[cfg(feature = "zstd")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompressionConfig {
    /// zstd's level. `None`: 3.
    pub level: Option<i32>,
}

#[cfg(feature = "zstd")]
impl Section for CompressionConfig {
    const KEYS: &'static [OptionSpec] = &[key("level", "is zstd's level, 1 (fastest) to 22 (smallest)")];
}

#[cfg(feature = "encryption")]
pub use self::keys::{EncryptionConfig, KeyConfig};

#[cfg(feature = "encryption")]
mod keys {
    use std::io::Read as _;
    use std::path::PathBuf;

    use storage_core::Secret;

    use super::*;
    use crate::transform::encryption::{Algorithm, EncryptionOptions, Key, Keyring, PlainBlobs};

    /// A key file is no longer than this.
    const MAX_FILE: u64 = 4096;

    /// Where a key is: one of `key` and `key_file`.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct KeyConfig {
        /// The key, in base64 or hexadecimal.
        pub key: Option<Secret>,
        /// A file that holds it so.
        pub key_file: Option<PathBuf>,
        /// The id that blobs name it by. `None`: its fingerprint.
        pub key_id: Option<String>,
    }

    impl Section for KeyConfig {
        const KEYS: &'static [OptionSpec] = &[
            key("key", "is a key of 32 bytes, in base64 or hexadecimal"),
            key("key_file", "is the path of a file that holds a key of 32 bytes, in base64 or hexadecimal"),
            key("key_id", "is the id that blobs name the key by: 1 to 32 printable ASCII characters without spaces"),
        ];
    }

    impl KeyConfig {
        fn load(&self) -> Result<Key> {
            let loaded = match (&self.key, &self.key_file) {
                (Some(key), None) => Key::parse(key)?,
                (None, Some(file)) => {
                    let fail = |e: std::io::Error| Error::config(format!("key file {}: can't be read: {e}", file.display()));
                    let mut text = String::new();
                    std::fs::File::open(file).and_then(|opened| opened.take(MAX_FILE).read_to_string(&mut text)).map_err(fail)?;
                    Key::parse(&Secret::new(text))
                        .map_err(|e| Error::config(format!("key file {}: {}", file.display(), e.message())))?
                }
                (Some(_), Some(_)) => return Err(Error::config("a key is set both as it is and by `key_file`: keep one")),
                (None, None) => return Err(Error::config("a key is missing: set `key_env` or `key_file`")),
            };
            match &self.key_id {
                Some(id) => loaded.with_id(id),
                None => Ok(loaded),
            }
        }
    }

    /// `[encryption]`
    #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct EncryptionConfig {
        /// See [`KeyConfig::key`].
        pub key: Option<Secret>,
        /// See [`KeyConfig::key_file`].
        pub key_file: Option<PathBuf>,
        /// See [`KeyConfig::key_id`].
        pub key_id: Option<String>,
        /// Keys that old blobs are encrypted with.
        pub previous: Vec<KeyConfig>,
        /// The cipher of new blobs.
        pub algorithm: Algorithm,
        /// What becomes of blobs that are not encrypted.
        pub plain: PlainBlobs,
    }

    impl Section for EncryptionConfig {
        const KEYS: &'static [OptionSpec] = &[
            KeyConfig::KEYS[0],
            KeyConfig::KEYS[1],
            KeyConfig::KEYS[2],
            key("previous", "is a list of tables with `key_env` or `key_file`: the keys of old blobs"),
            key("algorithm", "is \"aes-256-gcm\" or \"chacha20-poly1305\""),
            key("plain", "is \"refuse\" or \"allow\": what becomes of blobs that are not encrypted"),
        ];
    }

    impl EncryptionConfig {
        /// Reads the keys.
        ///
        /// # Errors
        /// [`Config`](storage_core::ErrorKind::Config): a key is missing, set twice, or not one; a file can't be read.
        pub fn keyring(&self) -> Result<Keyring> {
            let current = KeyConfig { key: self.key.clone(), key_file: self.key_file.clone(), key_id: self.key_id.clone() };
            self.previous.iter().try_fold(Keyring::new(current.load()?), |ring, key| {
                let loaded = key.load().map_err(|e| Error::config(format!("`previous`: {}", e.message())))?;
                ring.with_previous(loaded)
            })
        }

        pub(super) const fn options(&self) -> EncryptionOptions {
            EncryptionOptions { algorithm: self.algorithm, plain: self.plain }
        }
    }
}

/// `[mirror]`, without the places of the copies, which whoever reads it opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MirrorConfig {
    /// How many copies a write must reach.
    pub require: Require,
}

impl Section for MirrorConfig {
    const KEYS: &'static [OptionSpec] =
        &[key("require", "is \"all\", \"primary\", or how many copies a write must reach, the primary being one")];
}

/// `[cache]`
#[cfg(feature = "cache")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// How many bytes are kept in all. `None`: 64 MiB.
    pub max_bytes: Option<u64>,
    /// Larger blobs are not kept. `None`: 1 MiB.
    pub max_blob_bytes: Option<u64>,
    /// For so long a blob is read without asking whether it has changed. `None`: each read asks.
    #[serde(deserialize_with = "duration")]
    pub max_age: Option<std::time::Duration>,
}

#[cfg(feature = "cache")]
impl Section for CacheConfig {
    const KEYS: &'static [OptionSpec] = &[
        key("max_bytes", "is how many bytes of memory the cache may hold"),
        key("max_blob_bytes", "is how many bytes a blob may have that the cache keeps"),
        key(
            "max_age",
            "is a time like \"5s\" (or seconds) for which a cached blob is read without asking whether it has changed",
        ),
    ];
}

#[cfg(feature = "cache")]
fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<std::time::Duration>, D::Error> {
    use serde::de::Error as _;
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Time {
        Seconds(u64),
        Text(String),
    }
    Ok(Some(match Time::deserialize(deserializer)? {
        Time::Seconds(seconds) => std::time::Duration::from_secs(seconds),
        Time::Text(text) => humantime::parse_duration(&text).map_err(D::Error::custom)?,
    }))
}

/// The transforms of a backend's blobs. What is `None` is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransformConfig {
    /// Nothing can be written.
    pub read_only: bool,
    /// What is kept in memory.
    #[cfg(feature = "cache")]
    pub cache: Option<CacheConfig>,
    /// How blobs are compressed.
    #[cfg(feature = "zstd")]
    pub compression: Option<CompressionConfig>,
    /// How blobs are encrypted.
    #[cfg(feature = "encryption")]
    pub encryption: Option<EncryptionConfig>,
    /// Only the blobs below this path.
    pub prefix: Option<BlobPath>,
    /// How copies are kept.
    pub mirror: Option<MirrorConfig>,
}

impl TransformConfig {
    /// True where nothing is to be put in front.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks, and reads the keys, without any backend; `copies` is how many a mirror has besides the primary.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config), as [`stack`] has them.
    pub fn check(&self, copies: usize) -> Result<()> {
        #[cfg(feature = "encryption")]
        if let Some(encryption) = &self.encryption {
            encryption.keyring().map_err(within("encryption"))?;
        }
        #[cfg(feature = "zstd")]
        if let Some(level) = self.compression.and_then(|compression| compression.level) {
            super::compression::check_level(level).map_err(within("compression"))?;
        }
        match &self.mirror {
            Some(mirror) => mirror.require.check(copies + 1).map_err(within("mirror")),
            None => Ok(()),
        }
    }
}

/// Puts the transforms in front of `backend`, in their order. `copies` are the places of the mirror but the first, which is `backend`.
///
/// # Errors
/// [`Config`](storage_core::ErrorKind::Config), naming the section: a key can't be read, a level is not one, a mirror of one place; copies without a mirror.
pub fn stack(
    backend: Arc<dyn BlobBackend>,
    copies: Vec<Arc<dyn BlobBackend>>,
    config: &TransformConfig,
) -> Result<Arc<dyn BlobBackend>> {
    let mut stacked = backend;
    match &config.mirror {
        Some(mirror) => stacked = Arc::new(Mirror::new(stacked, copies, mirror.require).map_err(within("mirror"))?),
        None if copies.is_empty() => {}
        None => return Err(Error::config("there are copies, but no `mirror`")),
    }
    if let Some(prefix) = &config.prefix {
        stacked = Arc::new(PrefixedBlobs::new(stacked, prefix.clone()));
    }
    #[cfg(feature = "encryption")]
    if let Some(encryption) = &config.encryption {
        let keys = encryption.keyring().map_err(within("encryption"))?;
        stacked = Arc::new(super::encryption::EncryptedBlobs::new(stacked, keys, encryption.options()));
    }
    #[cfg(feature = "zstd")]
    if let Some(compression) = &config.compression {
        use super::compression::{CompressedBlobs, CompressionOptions};
        let default = CompressionOptions::default();
        let options = CompressionOptions { level: compression.level.unwrap_or(default.level) };
        stacked = Arc::new(CompressedBlobs::new(stacked, options).map_err(within("compression"))?);
    }
    #[cfg(feature = "cache")]
    if let Some(cache) = &config.cache {
        let default = super::CacheOptions::default();
        let options = super::CacheOptions {
            max_bytes: cache.max_bytes.unwrap_or(default.max_bytes),
            max_blob_bytes: cache.max_blob_bytes.unwrap_or(default.max_blob_bytes),
            max_age: cache.max_age,
        };
        stacked = Arc::new(super::CachedBlobs::new(stacked, options));
    }
    if config.read_only {
        stacked = Arc::new(ReadOnlyBlobs::new(stacked));
    }
    Ok(stacked)
}

fn within(section: &'static str) -> impl FnOnce(Error) -> Error {
    move |error| Error::config(format!("`{section}`: {}", error.message()))
}
