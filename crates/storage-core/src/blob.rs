//! Blobs: paths, contents, attributes.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{BoxStream, StreamExt};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The longest path, in bytes.
pub const MAX_PATH_LEN: usize = 1024;

/// The path of a blob: `/`-separated, no empty, `.` or `..` segment, no control characters, 1 to 1,024 bytes. It can't leave its root.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BlobPath(String);

impl BlobPath {
    /// Checks `path`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where it is not of the form above.
    pub fn new(path: impl Into<String>) -> Result<Self> {
        let path = path.into();
        let shown = || crate::value::excerpt(&path);
        if path.is_empty() || path.len() > MAX_PATH_LEN {
            return Err(Error::invalid(format!(
                "the blob path {} has {} bytes: 1 to {MAX_PATH_LEN} are allowed",
                shown(),
                path.len()
            )));
        }
        if path.chars().any(char::is_control) {
            return Err(Error::invalid(format!("the blob path {} has a control character in it", shown())));
        }
        if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(Error::invalid(format!("the blob path {} has an empty, `.` or `..` segment", shown())));
        }
        Ok(Self(path))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments between the slashes.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last segment.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// This path with `path` below it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where the two together are too long, or `path` is not a path.
    pub fn join(&self, path: impl AsRef<str>) -> Result<Self> {
        Self::new(format!("{}/{}", self.0, path.as_ref()))
    }

    /// The rest of this path behind `prefix` and its slash. Whole segments: `ab/c` is not below `a`.
    #[must_use]
    pub fn below(&self, prefix: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(&prefix.0)?.strip_prefix('/')?;
        Some(Self(rest.to_owned()))
    }
}

impl fmt::Display for BlobPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BlobPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl AsRef<str> for BlobPath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for BlobPath {
    type Err = Error;
    fn from_str(path: &str) -> Result<Self> {
        Self::new(path)
    }
}

impl TryFrom<&str> for BlobPath {
    type Error = Error;
    fn try_from(path: &str) -> Result<Self> {
        Self::new(path)
    }
}

impl TryFrom<String> for BlobPath {
    type Error = Error;
    fn try_from(path: String) -> Result<Self> {
        Self::new(path)
    }
}

/// So that what takes `impl TryInto<BlobPath>` also takes a `&BlobPath`.
impl From<&Self> for BlobPath {
    fn from(path: &Self) -> Self {
        path.clone()
    }
}

impl TryFrom<&String> for BlobPath {
    type Error = Error;
    fn try_from(path: &String) -> Result<Self> {
        Self::new(path)
    }
}

impl From<BlobPath> for String {
    fn from(path: BlobPath) -> Self {
        path.0
    }
}

/// The mark of one state of a blob: changes with every write of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ETag(pub String);

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is kept beside a blob's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlobAttributes {
    /// The media type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// For HTTP caches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// For browsers that download.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    /// How the bytes are encoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// Names and values of the application's own. Names: `[a-z0-9_]`, since some services keep no other.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl BlobAttributes {
    /// True where nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that every service can keep them: header-safe values, lower-case names, 2 KiB of metadata at most.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput).
    pub fn check(&self) -> Result<()> {
        let values = [&self.content_type, &self.cache_control, &self.content_disposition, &self.content_encoding];
        let values = values.into_iter().flatten().chain(self.metadata.values());
        for value in values {
            if value.is_empty() || !value.bytes().all(|b| (b' '..=b'~').contains(&b)) || value.trim() != value {
                return Err(Error::invalid(format!(
                    "the attribute value {} does not fit into an HTTP header: printable ASCII without spaces at its ends",
                    crate::value::excerpt(value)
                )));
            }
        }
        for name in self.metadata.keys() {
            let head_ok = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
            if !head_ok || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
                return Err(Error::invalid(format!(
                    "{} can't name metadata: lower-case letters, digits and `_`, no digit first",
                    crate::value::excerpt(name)
                )));
            }
        }
        let size: usize = self.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size > 2048 {
            return Err(Error::invalid(format!("the metadata holds {size} bytes, 2,048 at most")));
        }
        Ok(())
    }
}

/// What is known of a blob without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobMeta {
    /// Its path.
    pub path: BlobPath,
    /// How many bytes it has.
    pub size: u64,
    /// When it was written last.
    pub modified_at: DateTime<Utc>,
    /// The mark of its present state. `None` where the backend is not [`conditional`](crate::BlobCapabilities::conditional).
    pub etag: Option<ETag>,
    /// Its attributes. Listings leave them empty.
    pub attributes: BlobAttributes,
}

/// When a put takes effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PutMode {
    /// Always; a blob that is there is replaced.
    #[default]
    Overwrite,
    /// Where there is no blob. Else [`AlreadyExists`](crate::ErrorKind::AlreadyExists).
    Create,
    /// Where there is a blob with this mark. Else [`Conflict`](crate::ErrorKind::Conflict).
    Update(ETag),
}

/// How a blob is put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// When it takes effect: for bytes, files and streams alike, decided when the last byte is in.
    pub mode: PutMode,
    /// What is kept beside the bytes.
    pub attributes: BlobAttributes,
}

impl PutOptions {
    /// Sets the mode.
    #[must_use]
    pub fn mode(mut self, mode: PutMode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the content type.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.attributes.content_type = Some(content_type.into());
        self
    }

    /// Adds metadata.
    #[must_use]
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.metadata.insert(name.into(), value.into());
        self
    }
}

/// A stream of a blob's bytes, in pieces of the backend's choice.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// The bytes to put.
pub enum BlobBody {
    /// All of them, in memory.
    Bytes(Bytes),
    /// A stream. A put whose stream fails writes nothing.
    Stream {
        /// The pieces.
        stream: ByteStream,
        /// How many bytes there are in all, where that is known; a stream of another length is then an error.
        size: Option<u64>,
    },
    /// A local file from its present position to its end, which a backend may move at the disk's speed.
    File(std::fs::File),
}

impl BlobBody {
    /// How many bytes there are, where that is known.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => u64::try_from(bytes.len()).ok(),
            Self::Stream { size, .. } => *size,
            Self::File(_) => None,
        }
    }

    /// The bytes as a stream; a file is read in pieces of 1 MiB on a thread that may block.
    #[must_use]
    pub fn into_stream(self) -> ByteStream {
        match self {
            Self::Bytes(bytes) => futures::stream::once(async { Ok(bytes) }).boxed(),
            Self::Stream { stream, .. } => stream,
            Self::File(file) => file_stream(file, u64::MAX),
        }
    }
}

impl fmt::Debug for BlobBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "BlobBody::Bytes({} bytes)", bytes.len()),
            Self::Stream { size, .. } => write!(f, "BlobBody::Stream(size {size:?})"),
            Self::File(_) => f.write_str("BlobBody::File"),
        }
    }
}

impl<B: Into<Bytes>> From<B> for BlobBody {
    fn from(bytes: B) -> Self {
        Self::Bytes(bytes.into())
    }
}

const FILE_PIECE: usize = 1 << 20;

/// Reads a file from its present position, `remaining` bytes at most, in pieces of 1 MiB.
#[must_use]
pub fn file_stream(file: std::fs::File, remaining: u64) -> ByteStream {
    futures::stream::try_unfold((file, remaining), |(mut file, remaining)| async move {
        let (piece, file) = tokio::task::spawn_blocking(move || {
            use std::io::Read as _;
            let want = FILE_PIECE.min(usize::try_from(remaining).unwrap_or(usize::MAX));
            let mut piece = Vec::with_capacity(want);
            (&mut file).take(want as u64).read_to_end(&mut piece)?;
            Ok::<_, std::io::Error>((piece, file))
        })
        .await
        .map_err(|e| Error::internal("a thread that read a file ended").with_source(e))??;
        let left = remaining - piece.len() as u64;
        Ok((!piece.is_empty()).then(|| (Bytes::from(piece), (file, left))))
    })
    .boxed()
}

/// Which bytes of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first offset up to, not including, the second. What lies behind the blob's end is left out.
    Bounded(Range<u64>),
    /// From an offset to the end.
    From(u64),
    /// So many at the end; all, where the blob is shorter.
    Suffix(u64),
}

impl ByteRange {
    /// The offsets in a blob of `size` bytes.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where the range starts behind the blob's end, or ends before it starts.
    pub fn resolve(&self, size: u64) -> Result<Range<u64>> {
        let range = match self {
            Self::Bounded(range) if range.end < range.start => {
                return Err(Error::invalid(format!("the range {}..{} ends before it starts", range.start, range.end)));
            }
            Self::Bounded(range) => range.start..range.end.min(size).max(range.start),
            Self::From(offset) => *offset..size.max(*offset),
            Self::Suffix(count) => size.saturating_sub(*count)..size,
        };
        if range.start > size {
            return Err(Error::invalid(format!("the range starts at {}, the blob has {size} bytes", range.start)));
        }
        Ok(range)
    }
}

impl From<Range<u64>> for ByteRange {
    fn from(range: Range<u64>) -> Self {
        Self::Bounded(range)
    }
}

/// How a blob is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetOptions {
    /// Which bytes. `None`: all.
    pub range: Option<ByteRange>,
    /// The blob must have this mark. Else [`Conflict`](crate::ErrorKind::Conflict).
    pub if_match: Option<ETag>,
}

impl GetOptions {
    /// Sets the range.
    #[must_use]
    pub fn range(mut self, range: impl Into<ByteRange>) -> Self {
        self.range = Some(range.into());
        self
    }

    /// Sets the mark that the blob must have.
    #[must_use]
    pub fn if_match(mut self, etag: Option<ETag>) -> Self {
        self.if_match = etag;
        self
    }
}

/// The bytes of a blob that is being read.
pub enum BlobContent {
    /// A stream.
    Stream(ByteStream),
    /// A local file positioned at the range's first byte.
    File(std::fs::File),
}

impl fmt::Debug for BlobContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream(_) => "BlobContent::Stream",
            Self::File(_) => "BlobContent::File",
        })
    }
}

/// A blob that is being read.
#[derive(Debug)]
pub struct BlobRead {
    /// The whole blob's size, mark and attributes.
    pub meta: BlobMeta,
    /// The offsets of the bytes that are read.
    pub range: Range<u64>,
    /// The bytes.
    pub content: BlobContent,
}

impl BlobRead {
    /// The bytes as a stream.
    #[must_use]
    pub fn into_stream(self) -> ByteStream {
        match self.content {
            BlobContent::Stream(stream) => stream,
            BlobContent::File(file) => file_stream(file, self.range.end - self.range.start),
        }
    }

    /// All bytes, in memory.
    ///
    /// # Errors
    /// Those of the stream; [`Unavailable`](crate::ErrorKind::Unavailable) where it ends early.
    pub async fn bytes(self) -> Result<Bytes> {
        let expected = self.range.end - self.range.start;
        let path = self.meta.path.clone();
        let mut stream = self.into_stream();
        let mut first = Bytes::new();
        let mut all = Vec::new();
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            // A blob in one piece, the usual case, is not copied.
            if first.is_empty() && all.is_empty() {
                first = piece;
                continue;
            }
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&piece);
        }
        let bytes = if all.is_empty() { first } else { Bytes::from(all) };
        if bytes.len() as u64 != expected {
            return Err(Error::unavailable(format!("blob `{path}` ended after {} of {expected} bytes", bytes.len())));
        }
        Ok(bytes)
    }
}

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Blobs below this path, in whole segments: `a` lists `a/b`, neither `a` nor `ab`. `None`: all.
    pub prefix: Option<BlobPath>,
    /// True: only the level below the prefix; what lies deeper shows as [`BlobEntry::Prefix`].
    pub one_level: bool,
    /// Blobs and prefixes that sort behind this path.
    pub start_after: Option<BlobPath>,
}

impl ListOptions {
    /// Everything below `prefix`.
    #[must_use]
    pub fn below(prefix: Option<BlobPath>) -> Self {
        Self { prefix, ..Self::default() }
    }

    /// Lists one level alone.
    #[must_use]
    pub fn one_level(mut self) -> Self {
        self.one_level = true;
        self
    }

    /// Starts behind `path`.
    #[must_use]
    pub fn start_after(mut self, path: BlobPath) -> Self {
        self.start_after = Some(path);
        self
    }
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobEntry {
    /// A blob.
    Blob(BlobMeta),
    /// A path with blobs below it, without the slash at its end.
    Prefix(BlobPath),
}

impl BlobEntry {
    /// What the entry sorts by, bytewise: a prefix sorts with the slash at its end, as the blobs below it do.
    #[must_use]
    pub fn sort_key(&self) -> String {
        match self {
            Self::Blob(meta) => meta.path.as_str().to_owned(),
            Self::Prefix(path) => format!("{path}/"),
        }
    }
}

/// What a signed URL allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedAccess {
    /// To read the blob.
    Get,
    /// To write it.
    Put,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_leave_their_root() {
        for good in ["a", "a/b", "..a/b..", "a b/ü", ".hidden", "a\\b"] {
            assert!(BlobPath::new(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\nb", "a\0b", &"x".repeat(1025)] {
            assert!(BlobPath::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes_are_whole_segments() {
        let path = |p: &str| BlobPath::new(p).unwrap();
        assert_eq!(path("a/b/c").below(&path("a")), Some(path("b/c")));
        assert_eq!(path("ab/c").below(&path("a")), None);
        assert_eq!(path("a").below(&path("a")), None);
    }

    #[test]
    fn ranges_resolve_within_the_blob() {
        assert_eq!(ByteRange::Bounded(2..5).resolve(10).unwrap(), 2..5);
        assert_eq!(ByteRange::Bounded(2..50).resolve(10).unwrap(), 2..10);
        assert_eq!(ByteRange::Bounded(3..3).resolve(10).unwrap(), 3..3);
        assert_eq!(ByteRange::Suffix(50).resolve(10).unwrap(), 0..10);
        assert_eq!(ByteRange::Suffix(0).resolve(10).unwrap(), 10..10);
        assert_eq!(ByteRange::From(10).resolve(10).unwrap(), 10..10);
        assert!(ByteRange::From(11).resolve(10).is_err());
        assert!(ByteRange::Bounded(11..12).resolve(10).is_err());
        #[expect(clippy::reversed_empty_ranges, reason = "the case under test")]
        let reversed = ByteRange::Bounded(5..2);
        assert!(reversed.resolve(10).is_err());
    }

    #[test]
    fn attributes_fit_into_headers() {
        let with = |name: &str, value: &str| PutOptions::default().metadata(name, value).attributes;
        assert!(with("owner", "acme inc").check().is_ok());
        for (name, value) in [("Owner", "x"), ("a-b", "x"), ("1a", "x"), ("a", "ü"), ("a", "x\r\ny"), ("a", " x")] {
            assert!(with(name, value).check().is_err(), "{name} {value}");
        }
    }
}
