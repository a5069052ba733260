//! [`EncryptedBlobs`]: blobs that only holders of a key can read or make.
//!
//! # Construction
//!
//! Nothing here is invented. The blob is cut into chunks of 64 KiB, which are encrypted with an AEAD (AES-256-GCM or ChaCha20-Poly1305, of `ring`) in the
//! STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár: *Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance*, CRYPTO 2015), as
//! in the [age](https://age-encryption.org/v1) format: the nonce is the number of the chunk and whether it is the last. Each write draws a salt of 32
//! random bytes; HKDF-SHA256 (RFC 5869) makes of it and the configured key a key for this write alone, so that no nonce is used twice under one key.
//! The header and the blob's path are the associated data of each chunk.
//!
//! # What it protects
//!
//! Whoever reads the stored bytes learns nothing of the content. Whoever changes them is found out by the read: flipped bits; chunks left out, moved, doubled, taken
//! from another blob; a blob cut short or made longer; another header; a blob put under another path. Such a read is
//! [`Corrupt`](storage_core::ErrorKind::Corrupt), and hands out no byte of a chunk before its tag was checked.
//!
//! What it does not protect: paths, sizes, times and attributes are readable, and those but the path can be changed unnoticed. An older state of a blob put
//! back in its place (a rollback) is a good blob, and so is a blob removed. A read of a part proves that part; that the blob is as long as its size says
//! is proven by a read that reaches its end. Listings and `head` compute sizes and prove nothing.

mod chunks;
mod header;
mod key;
mod layout;
mod rotate;
#[cfg(test)]
mod speed;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use ring::aead;
use serde::{Deserialize, Serialize};
use storage_core::{
    BackendInfo, BlobBackend, BlobBody, BlobCapabilities, BlobContent, BlobEntry, BlobMeta, BlobPath, BlobRead, ByteRange,
    ByteStream, ETag, Engine, Error, ErrorKind, GetOptions, ListOptions, PutMode, PutOptions, Result, Secret,
};

use self::chunks::{Cipher, Opening, Sealing};
use self::header::Header;
pub use self::key::{Key, Keyring};
use self::layout::{CHUNK, HEADER, chunk_start};
pub use self::rotate::{RotationOptions, RotationReport};
use super::body::{Incoming, Plain, empty, slice};
use super::peek::look_at_each;
use super::wrap;

/// Blobs up to this size are encrypted in one go.
const AT_ONCE: u64 = 1 << 20;
/// How often a read begins anew where the blob was replaced between its header and its chunks.
const ATTEMPTS: usize = 100;

/// The cipher that new blobs are encrypted with. Old ones say theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// AES-256 in Galois/counter mode: the fastest where the processor has instructions for it, as servers have.
    #[default]
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305: the fastest where it has none.
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl Algorithm {
    const fn code(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    const fn of_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    fn aead(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }
}

/// What becomes of blobs that are not encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlainBlobs {
    /// They are [`Corrupt`](ErrorKind::Corrupt): nobody can slip one in.
    #[default]
    Refuse,
    /// They are read as they are, for the time until [`rotate`](EncryptedBlobs::rotate) has encrypted them. Until then, whoever can write the stored bytes can
    /// replace an encrypted blob by a plain one. `head` reads the header of the blob, and listings those of all blobs they show.
    Allow,
}

/// How blobs are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncryptionOptions {
    /// The cipher of new blobs.
    pub algorithm: Algorithm,
    /// What becomes of blobs that are not encrypted.
    pub plain: PlainBlobs,
}

/// The blobs of another backend, encrypted. See the [module](self).
///
/// A copy is decrypted and encrypted anew, since the path is bound: it costs a read and a write. Parts of a blob are read and decrypted by whole chunks of
/// 64 KiB; a part that does not begin in the first chunk takes two reads, the header's and its own.
#[derive(Clone, Debug)]
pub struct EncryptedBlobs {
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    inner: Arc<dyn BlobBackend>,
    keys: Keyring,
    options: EncryptionOptions,
    info: BackendInfo,
    capabilities: BlobCapabilities,
}

impl EncryptedBlobs {
    /// Encrypts the blobs of `inner`.
    pub fn new(inner: Arc<dyn BlobBackend>, keys: Keyring, options: EncryptionOptions) -> Self {
        let info = wrap::info(&*inner, "encryption");
        let declared = inner.capabilities().clone();
        let max_blob_bytes = layout::max_plain(declared.max_blob_bytes);
        let capabilities = BlobCapabilities { signed_url: false, max_blob_bytes, ..declared };
        Self { core: Arc::new(Core { inner, keys, options, info, capabilities }) }
    }

    fn explain<'a>(&'a self, operation: &'static str, path: &'a BlobPath) -> impl FnOnce(Error) -> Error + 'a {
        wrap::explain(&self.core.info, operation, path)
    }
}

impl Core {
    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        let Plain { stream, size } = Plain::of(body).await?;
        let key = self.keys.current();
        let header = Header::new(key, self.options.algorithm)?;
        let sealing = Sealing::new(stream, &header, Cipher::new(key, &header, path)?);
        let size = size.map(layout::stored_size);
        let body = match size.filter(|size| *size <= AT_ONCE).and_then(|size| usize::try_from(size).ok()) {
            Some(size) => BlobBody::Bytes(sealing.collect(size).await?),
            None => BlobBody::Stream { stream: sealing.into_stream(), size },
        };
        self.with_plain_size(self.inner.put(path, body, options).await?)
    }

    /// `meta` with the size of the blob in place of what it takes.
    fn with_plain_size(&self, meta: BlobMeta) -> Result<BlobMeta> {
        let size = layout::plain_size(meta.size).ok_or_else(|| {
            let problem = format!(
                "{} bytes are not the size of an encrypted blob: it was cut, or not written through this encryption",
                meta.size
            );
            Error::corrupt(problem).with_subject(format_args!("blob `{}`", meta.path)).with_backend(&self.info)
        })?;
        Ok(BlobMeta { size, ..meta })
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        for _ in 0..ATTEMPTS {
            if let Some(read) = self.try_get(path, options).await? {
                return Ok(read);
            }
        }
        Err(Error::unavailable("the blob is replaced faster than it can be read"))
    }

    /// One attempt. `None`: the blob was replaced between two reads of it.
    async fn try_get(&self, path: &BlobPath, options: &GetOptions) -> Result<Option<BlobRead>> {
        let first = first_range(options.range.as_ref());
        let asked = GetOptions { range: first.clone(), if_match: options.if_match.clone() };
        let read = self.inner.get(path, &asked).await?;
        let stored = read.meta.clone();
        let mut source = Incoming::of(read);
        let header = source.up_to(HEADER).await?;
        if self.options.plain == PlainBlobs::Allow && !Header::is_at_start_of(&header) {
            return self.get_plain(path, options, stored, source.into_stream(header)).await;
        }
        let header = Header::parse(&header)?;
        let cipher = Cipher::new(self.keys.key(header.key_id())?, &header, path)?;
        let meta = self.with_plain_size(stored)?;
        let range = options.range.as_ref().unwrap_or(&ByteRange::From(0)).resolve(meta.size)?;
        if range.is_empty() && meta.size > 0 {
            return Ok(Some(BlobRead { meta, range, content: BlobContent::Stream(empty()) }));
        }
        let chunks = range.start / CHUNK as u64..layout::chunks(range.end);
        if first == Some(header_only()) {
            let again =
                GetOptions::default().range(chunk_start(chunks.start)..chunk_start(chunks.end)).if_match(meta.etag.clone());
            match self.inner.get(path, &again).await {
                Ok(read) if is_same(&read.meta, &meta) => source = Incoming::of(read),
                Ok(_) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Conflict && options.if_match.is_none() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let from = chunks.start * CHUNK as u64;
        let opened = Opening::new(source, cipher, meta.size, chunks).into_stream();
        Ok(Some(self.read(meta, range, from, opened)))
    }

    /// The part `range` of a blob, of which `stream` brings the bytes from `from` on.
    fn read(&self, meta: BlobMeta, range: Range<u64>, from: u64, stream: ByteStream) -> BlobRead {
        let (path, info) = (meta.path.clone(), self.info.clone());
        // An empty blob has a chunk to open all the same.
        let cut = if range.is_empty() { stream } else { slice(stream, range.start - from, range.end - range.start) };
        let explained = cut.map_err(move |error| wrap::explain(&info, "blobs.get", &path)(error));
        BlobRead { meta, range, content: BlobContent::Stream(explained.boxed()) }
    }

    /// Reads a blob that is not encrypted, of which the first read has brought `meta` and, unless it was of the header alone, `stream`.
    async fn get_plain(
        &self,
        path: &BlobPath,
        options: &GetOptions,
        meta: BlobMeta,
        stream: ByteStream,
    ) -> Result<Option<BlobRead>> {
        let range = options.range.as_ref().unwrap_or(&ByteRange::From(0)).resolve(meta.size)?;
        if first_range(options.range.as_ref()) != Some(header_only()) {
            let cut = slice(stream, range.start, range.end - range.start);
            return Ok(Some(BlobRead { meta, range, content: BlobContent::Stream(cut) }));
        }
        let again = GetOptions { range: options.range.clone(), if_match: meta.etag.clone() };
        match self.inner.get(path, &again).await {
            Err(error) if error.kind() == ErrorKind::Conflict && options.if_match.is_none() => Ok(None),
            read => read.map(Some),
        }
    }

    /// The blob as it is stored, with the size that it has: where plain blobs are allowed, only a look at its header tells.
    async fn look(&self, path: &BlobPath) -> Result<(BlobMeta, Option<Header>)> {
        let read = self.inner.get(path, &GetOptions { range: Some(header_only()), if_match: None }).await?;
        let meta = read.meta.clone();
        let bytes: Bytes = Incoming::of(read).up_to(HEADER).await?;
        if self.options.plain == PlainBlobs::Allow && !Header::is_at_start_of(&bytes) {
            return Ok((meta, None));
        }
        let header = Header::parse(&bytes)?;
        Ok((self.with_plain_size(meta)?, Some(header)))
    }

    async fn look_listed(&self, listed: BlobMeta) -> Result<Option<BlobMeta>> {
        match self.look(&listed.path).await {
            Ok((meta, _)) => Ok(Some(BlobMeta { attributes: listed.attributes, ..meta })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(wrap::explain(&self.info, "blobs.list", &listed.path)(error)),
        }
    }
}

/// The range of a header, and of nothing else.
const fn header_only() -> ByteRange {
    ByteRange::Bounded(0..HEADER as u64)
}

/// What to read first of the stored blob: the header, and what is wanted behind it if that begins in the first chunk.
fn first_range(wanted: Option<&ByteRange>) -> Option<ByteRange> {
    const FIRST_CHUNK: Range<u64> = 0..CHUNK as u64;
    match wanted {
        None => None,
        Some(ByteRange::From(start)) if FIRST_CHUNK.contains(start) => None,
        Some(ByteRange::Bounded(range)) if FIRST_CHUNK.contains(&range.start) => {
            Some(ByteRange::Bounded(0..chunk_start(layout::chunks(range.end))))
        }
        Some(_) => Some(header_only()),
    }
}

/// True where two answers speak of one state of a blob; by the mark, or where there are none, as far as can be told.
fn is_same(now: &BlobMeta, plain: &BlobMeta) -> bool {
    now.etag == plain.etag && now.modified_at == plain.modified_at && layout::plain_size(now.size) == Some(plain.size)
}

#[async_trait]
impl BlobBackend for EncryptedBlobs {
    fn info(&self) -> &BackendInfo {
        &self.core.info
    }

    fn capabilities(&self) -> &BlobCapabilities {
        &self.core.capabilities
    }

    async fn create_container(&self) -> Result<bool> {
        self.core.inner.create_container().await
    }

    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        self.core.put(path, body, options).await.map_err(self.explain("blobs.put", path))
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        self.core.get(path, options).await.map_err(self.explain("blobs.get", path))
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        let head = async {
            match self.core.options.plain {
                PlainBlobs::Refuse => self.core.with_plain_size(self.core.inner.head(path).await?),
                PlainBlobs::Allow => self.core.look(path).await.map(|(meta, _)| meta),
            }
        };
        head.await.map_err(self.explain("blobs.head", path))
    }

    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        self.core.inner.delete(path, if_match).await
    }

    async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        let read = self.core.get(from, &GetOptions::default()).await.map_err(self.explain("blobs.copy", from))?;
        let options = PutOptions { mode: mode.clone(), attributes: read.meta.attributes.clone() };
        let size = Some(read.meta.size);
        let body = BlobBody::Stream { stream: read.into_stream(), size };
        self.core.put(to, body, &options).await.map_err(self.explain("blobs.copy", to))
    }

    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        let core = Arc::clone(&self.core);
        let entries = self.core.inner.list(options);
        if core.options.plain == PlainBlobs::Allow {
            return look_at_each(entries, move |meta| {
                let core = Arc::clone(&core);
                async move { core.look_listed(meta).await }
            });
        }
        let sized = entries.map(move |entry| match entry? {
            BlobEntry::Blob(meta) => core.with_plain_size(meta).map(BlobEntry::Blob).map_err(|e| e.with_operation("blobs.list")),
            prefix @ BlobEntry::Prefix(_) => Ok(prefix),
        });
        sized.boxed()
    }

    fn uri(&self, path: &BlobPath) -> String {
        self.core.inner.uri(path)
    }

    fn storage_options(&self, engine: Engine) -> Result<BTreeMap<String, Secret>> {
        Err(Error::unsupported(format!("{engine} would read what is encrypted")))
    }

    async fn ping(&self) -> Result<()> {
        self.core.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.core.inner.close().await
    }
}
