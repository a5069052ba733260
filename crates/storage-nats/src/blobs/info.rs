//! What an object store of NATS says of an object: one message, of JSON, that all its clients read.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde::{Deserialize, Serialize};
use storage_core::{BlobAttributes, BlobMeta, BlobPath, ETag, Error, Result};

use crate::stream::Held;

/// The time of the write is the message's own: clients write this in its place.
const NO_TIME: &str = "0001-01-01T00:00:00Z";
/// What a digest begins with.
pub(super) const SHA256: &str = "SHA-256=";
/// How many places of chunks an object says of itself.
const MOST_MARKS: usize = 1_024;
/// Each of how many chunks has its place noted, at first.
const FIRST_STRIDE: u64 = 64;

/// The attributes that are headers.
const CONTENT_TYPE: &str = "Content-Type";
const CACHE_CONTROL: &str = "Cache-Control";
const CONTENT_DISPOSITION: &str = "Content-Disposition";
const CONTENT_ENCODING: &str = "Content-Encoding";

/// An object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ObjectInfo {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, Vec<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<ObjectOptions>,
    bucket: String,
    /// What its chunks are called, and its mark: each write has one of its own.
    pub(super) nuid: String,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    pub(super) chunks: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) deleted: bool,
    #[serde(default)]
    mtime: Option<String>,
    /// Where some of the chunks are: of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) storage_marks: Option<Marks>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ObjectOptions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_chunk_size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<serde_json::Value>,
}

/// The places in the stream of each `stride`-th chunk, so that a read of a range need not begin at the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marks {
    stride: u64,
    at: Vec<u64>,
}

impl Default for Marks {
    fn default() -> Self {
        Self { stride: FIRST_STRIDE, at: Vec::new() }
    }
}

impl Marks {
    /// Notes the place of a chunk; they come in order.
    pub(super) fn note(&mut self, chunk: u64, sequence: u64) {
        if !chunk.is_multiple_of(self.stride) {
            return;
        }
        self.at.push(sequence);
        if self.at.len() > MOST_MARKS {
            self.at = self.at.iter().copied().step_by(2).collect();
            self.stride *= 2;
        }
    }

    /// The last noted chunk that is not behind `chunk`, and its place.
    fn before(&self, chunk: u64) -> Option<(u64, u64)> {
        let n = chunk.checked_div(self.stride)?.min(u64::try_from(self.at.len()).ok()?.checked_sub(1)?);
        let place = self.at.get(usize::try_from(n).ok()?)?;
        Some((n * self.stride, *place))
    }
}

/// Where a read begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Start {
    /// How many chunks are before it.
    pub(super) chunk: u64,
    /// The offset of its first byte.
    pub(super) offset: u64,
    /// The place of the chunk, where it is noted.
    pub(super) place: Option<u64>,
}

/// What is written of a new object.
pub(super) struct Written {
    pub(super) nuid: String,
    pub(super) size: u64,
    pub(super) chunks: u64,
    pub(super) chunk_size: u64,
    pub(super) digest: String,
    pub(super) marks: Marks,
}

impl ObjectInfo {
    pub(super) fn new(bucket: &str, path: &BlobPath, written: Written, attributes: &BlobAttributes) -> Self {
        let headers: BTreeMap<String, Vec<String>> = [
            (CONTENT_TYPE, &attributes.content_type),
            (CACHE_CONTROL, &attributes.cache_control),
            (CONTENT_DISPOSITION, &attributes.content_disposition),
            (CONTENT_ENCODING, &attributes.content_encoding),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.clone().map(|value| (name.to_owned(), vec![value])))
        .collect();
        Self {
            name: path.to_string(),
            metadata: Some(attributes.metadata.clone()).filter(|metadata| !metadata.is_empty()),
            headers: Some(headers).filter(|headers| !headers.is_empty()),
            options: Some(ObjectOptions { max_chunk_size: Some(written.chunk_size), link: None }),
            bucket: bucket.to_owned(),
            nuid: written.nuid,
            size: written.size,
            chunks: written.chunks,
            digest: Some(written.digest),
            deleted: false,
            mtime: Some(NO_TIME.to_owned()),
            // One chunk needs no places.
            storage_marks: Some(written.marks).filter(|_| written.chunks > 1),
        }
    }

    /// What says that an object is gone.
    pub(super) fn deleted(&self) -> Self {
        Self {
            metadata: None,
            headers: None,
            options: None,
            size: 0,
            chunks: 0,
            digest: None,
            deleted: true,
            storage_marks: None,
            ..self.clone()
        }
    }

    pub(super) fn read(held: &Held) -> Result<Self> {
        serde_json::from_slice(&held.body)
            .map_err(|e| Error::corrupt(format!("`{}` at {} does not describe an object: {e}", held.subject, held.sequence)))
    }

    /// An object may be a link to another, which other clients make.
    pub(super) fn is_link(&self) -> bool {
        self.options.as_ref().is_some_and(|options| options.link.is_some())
    }

    pub(super) fn etag(&self) -> ETag {
        ETag(format!("\"{}\"", self.nuid))
    }

    pub(super) fn attributes(&self) -> BlobAttributes {
        let header = |name: &str| {
            let found = self.headers.as_ref()?.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
            found.and_then(|(_, values)| values.first().cloned())
        };
        BlobAttributes {
            content_type: header(CONTENT_TYPE),
            cache_control: header(CACHE_CONTROL),
            content_disposition: header(CONTENT_DISPOSITION),
            content_encoding: header(CONTENT_ENCODING),
            metadata: self.metadata.clone().unwrap_or_default(),
        }
    }

    pub(super) fn meta(&self, path: BlobPath, modified_at: chrono::DateTime<chrono::Utc>) -> BlobMeta {
        BlobMeta { path, size: self.size, modified_at, etag: Some(self.etag()), attributes: self.attributes() }
    }

    /// Where to begin to read for the byte at `offset`.
    pub(super) fn start(&self, offset: u64) -> Start {
        let size = self.options.as_ref().and_then(|options| options.max_chunk_size);
        let marked = size.zip(self.storage_marks.as_ref()).and_then(|(size, marks)| {
            let (chunk, place) = marks.before(offset.checked_div(size)?)?;
            Some(Start { chunk, offset: chunk * size, place: Some(place) })
        });
        marked.unwrap_or_default()
    }
}

/// The subjects of a bucket.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) bucket: String,
    pub(super) stream: String,
}

impl Names {
    pub(super) fn new(bucket: &str) -> Self {
        Self { bucket: bucket.to_owned(), stream: format!("OBJ_{bucket}") }
    }

    pub(super) fn subjects(&self) -> [String; 2] {
        [format!("$O.{}.C.>", self.bucket), self.infos()]
    }

    /// What describes objects.
    pub(super) fn infos(&self) -> String {
        format!("$O.{}.M.>", self.bucket)
    }

    pub(super) fn info(&self, path: &BlobPath) -> String {
        format!("$O.{}.M.{}", self.bucket, URL_SAFE.encode(path.as_str()))
    }

    pub(super) fn chunks(&self, nuid: &str) -> String {
        format!("$O.{}.C.{nuid}", self.bucket)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn marks_stay_few_and_say_where_to_begin() {
        let mut marks = Marks::default();
        assert_eq!(marks.before(5), None);
        for chunk in 0..500_000 {
            marks.note(chunk, 10 * chunk + 1);
        }
        assert!(marks.at.len() <= MOST_MARKS && marks.at.len() > MOST_MARKS / 4, "{}", marks.at.len());
        for chunk in [0, 1, 63, 64, 1_000, 123_456, 499_999] {
            let (first, place) = marks.before(chunk).unwrap();
            assert!(first <= chunk && chunk - first < 2 * marks.stride && first % marks.stride == 0, "{chunk}: {first}");
            assert_eq!(place, 10 * first + 1);
        }
    }

    #[test]
    fn what_is_written_comes_back() {
        let attributes = BlobAttributes {
            content_type: Some("text/x".into()),
            metadata: [("k".to_owned(), "v".to_owned())].into(),
            ..BlobAttributes::default()
        };
        let path = BlobPath::new("a/ü").unwrap();
        let written =
            Written { nuid: "n".into(), size: 7, chunks: 1, chunk_size: 4, digest: "SHA-256=x".into(), marks: Marks::default() };
        let info = ObjectInfo::new("b", &path, written, &attributes);
        let text = serde_json::to_string(&info).unwrap();
        let again: ObjectInfo = serde_json::from_str(&text).unwrap();
        assert_eq!((again.attributes(), again.size, again.etag().0), (attributes, 7, "\"n\"".to_owned()));
        assert!(!again.deleted && again.deleted().deleted && !again.is_link());
        // As another client writes it, who knows nothing of places.
        let foreign = r#"{"name":"x","bucket":"b","nuid":"N","size":3,"chunks":1,"digest":"SHA-256=x","mtime":"0001-01-01T00:00:00Z","headers":{"content-type":["a/b"]}}"#;
        let foreign: ObjectInfo = serde_json::from_str(foreign).unwrap();
        assert_eq!((foreign.start(2), foreign.attributes().content_type.as_deref()), (Start::default(), Some("a/b")));
    }
}
