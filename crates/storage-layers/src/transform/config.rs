//! Transforms as configuration, and in their order over a backend.
//!
//! ```text
//! read_only → cache → compression → encryption → cache with `dir` → prefix → mirror → the backend and its copies
//! ```
//!
//! A cache in memory holds plain bytes, so that a hit decrypts nothing. One that keeps files holds what is stored, so that no plain bytes of encrypted blobs get onto a disk. What is encrypted does not shrink, so compression comes first. The path that encryption binds is the one
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

#[cfg(feature = "cache")]
pub use self::kept::CacheConfig;

#[cfg(feature = "cache")]
mod kept {
    use std::num::NonZeroU64;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::transform::{CacheOptions, CachedBlobs, FileOptions};

    /// `[cache]`
    #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct CacheConfig {
        /// How many bytes are kept in memory in all. `None`: 64 MiB.
        pub max_bytes: Option<NonZeroU64>,
        /// Larger blobs are not kept in memory. `None`: 1 MiB.
        pub max_blob_bytes: Option<NonZeroU64>,
        /// For so long a blob is read without asking whether it has changed. `None`: each read asks.
        #[serde(deserialize_with = "duration")]
        pub max_age: Option<Duration>,
        /// The folder in which blobs are kept besides. `None`: they are kept in memory alone.
        pub dir: Option<PathBuf>,
        /// How many MiB the files in it take in all. `None`: 1024.
        pub dir_max_mib: Option<NonZeroU64>,
        /// Larger blobs are not kept in files. `None`: 256, or a quarter of what is kept in all if that is less.
        pub dir_max_blob_mib: Option<NonZeroU64>,
    }

    impl Section for CacheConfig {
        const KEYS: &'static [OptionSpec] = &[
            key("max_bytes", "is how many bytes of memory the cache may hold, at least 1"),
            key("max_blob_bytes", "is how many bytes a blob may have that is kept in memory, at least 1"),
            key(
                "max_age",
                "is a time like \"5s\" (or seconds) for which a cached blob is read without asking whether it has changed",
            ),
            key("dir", "is the path of a folder in which blobs are kept over restarts, in quotes"),
            key("dir_max_mib", "is how many MiB the files in `dir` may take, 1 to 1073741824"),
            key("dir_max_blob_mib", "is how many MiB a blob may have that is kept in `dir`, 1 to 1073741824"),
        ];
    }

    const MIB: u64 = 1 << 20;
    /// A pebibyte.
    const MAX_MIB: u64 = 1 << 30;

    impl CacheConfig {
        fn options(&self) -> CacheOptions {
            let default = CacheOptions::default();
            CacheOptions {
                max_bytes: self.max_bytes.map_or(default.max_bytes, NonZeroU64::get),
                max_blob_bytes: self.max_blob_bytes.map_or(default.max_blob_bytes, NonZeroU64::get),
                max_age: self.max_age,
            }
        }

        /// True where what is kept is what the backend has, compressed and encrypted: a folder holds no plain bytes of blobs that are to be encrypted.
        pub(super) const fn is_behind(&self) -> bool {
            self.dir.is_some()
        }

        pub(super) fn check(&self) -> Result<()> {
            self.files()?;
            let Some(dir) = &self.dir else { return Ok(()) };
            match std::fs::metadata(dir) {
                Ok(found) if !found.is_dir() => {
                    Err(Error::config(format!("`dir` is {}, which is a file: set a folder, which may be missing", dir.display())))
                }
                // Where it can't be used, nothing is kept.
                _ => Ok(()),
            }
        }

        fn files(&self) -> Result<Option<FileOptions>> {
            let Some(dir) = &self.dir else {
                let sized = [("dir_max_mib", self.dir_max_mib), ("dir_max_blob_mib", self.dir_max_blob_mib)];
                return match sized.iter().find(|(_, size)| size.is_some()) {
                    Some((name, _)) => {
                        Err(Error::config(format!("`{name}` is set, but no `dir`: set the folder in which blobs are kept")))
                    }
                    None => Ok(None),
                };
            };
            if dir.as_os_str().is_empty() {
                return Err(Error::config("`dir` is empty: set the path of a folder"));
            }
            let mut options = FileOptions::new(dir);
            options.max_bytes = size("dir_max_mib", self.dir_max_mib)?.unwrap_or(options.max_bytes);
            let most = options.max_blob_bytes.min(options.max_bytes / 4);
            options.max_blob_bytes = size("dir_max_blob_mib", self.dir_max_blob_mib)?.unwrap_or(most);
            if options.max_blob_bytes > options.max_bytes {
                return Err(Error::config(format!(
                    "`dir_max_blob_mib` is {}, more than the {} MiB of `dir_max_mib`: such a blob would not be kept",
                    options.max_blob_bytes / MIB,
                    options.max_bytes / MIB
                )));
            }
            Ok(Some(options))
        }

        pub(super) fn over(&self, inner: Arc<dyn BlobBackend>) -> Result<Arc<dyn BlobBackend>> {
            Ok(Arc::new(match self.files()? {
                Some(files) => CachedBlobs::with_files(inner, self.options(), files),
                None => CachedBlobs::new(inner, self.options()),
            }))
        }
    }

    fn size(name: &str, mib: Option<NonZeroU64>) -> Result<Option<u64>> {
        match mib.map(NonZeroU64::get) {
            Some(mib) if mib > MAX_MIB => Err(Error::config(format!("`{name}` is {mib} MiB: at most {MAX_MIB}, a pebibyte"))),
            mib => Ok(mib.map(|mib| mib * MIB)),
        }
    }

    fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        use serde::de::Error as _;
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Time {
            Seconds(u64),
            Text(String),
        }
        Ok(Some(match Time::deserialize(deserializer)? {
            Time::Seconds(seconds) => Duration::from_secs(seconds),
            Time::Text(text) => humantime::parse_duration(&text).map_err(D::Error::custom)?,
        }))
    }
}

/// The transforms of a backend's blobs. What is `None` is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransformConfig {
    /// Nothing can be written.
    pub read_only: bool,
    /// What is kept in memory, and in files.
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
        #[cfg(feature = "cache")]
        if let Some(cache) = &self.cache {
            cache.check().map_err(within("cache"))?;
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
    #[cfg(feature = "cache")]
    if let Some(cache) = config.cache.as_ref().filter(|cache| cache.is_behind()) {
        stacked = cache.over(stacked).map_err(within("cache"))?;
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
    if let Some(cache) = config.cache.as_ref().filter(|cache| !cache.is_behind()) {
        stacked = cache.over(stacked).map_err(within("cache"))?;
    }
    if config.read_only {
        stacked = Arc::new(ReadOnlyBlobs::new(stacked));
    }
    Ok(stacked)
}

fn within(section: &'static str) -> impl FnOnce(Error) -> Error {
    move |error| Error::config(format!("`{section}`: {}", error.message()))
}
