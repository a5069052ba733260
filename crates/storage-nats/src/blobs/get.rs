//! Reading: what says of an object, then its chunks.

use std::ops::Range;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use sha2::{Digest as _, Sha256};
use storage_core::backoff::Backoff;
use storage_core::{BlobContent, BlobPath, BlobRead, ByteRange, ByteStream, Error, GetOptions, Result};

use super::Bucket;
use super::info::{ObjectInfo, SHA256};
use super::put::check_mark;
use crate::error::Fault;
use crate::stream::{Look, Walk, last};

/// How often a read begins anew because the object was replaced before its first byte came.
const MAX_TRIES: u32 = 10;

pub(super) async fn get(bucket: &Bucket, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
    let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(100));
    let (mut before, mut replaced_once) = (None, false);
    for _ in 0..MAX_TRIES {
        let (info, modified_at) = bucket.describe(path).await?;
        if let Some(expected) = &options.if_match {
            check_mark(Some(&info.etag()), expected)?;
        }
        if info.is_link() {
            return Err(Error::unsupported("this is a link that another client of NATS made: read what it points to"));
        }
        let meta = info.meta(path.clone(), modified_at);
        let range = options.range.as_ref().unwrap_or(&ByteRange::From(0)).resolve(meta.size)?;
        if let Some(content) = open(bucket, info, range.clone()).await? {
            return Ok(BlobRead { meta, range, content: BlobContent::Stream(content) });
        }
        replaced_once |= before.is_some() && before != meta.etag;
        before = meta.etag;
        tokio::time::sleep(backoff.next_delay()).await;
    }
    Err(match replaced_once {
        true => Error::conflict("others replace the blob all the time: try again later"),
        false => Error::corrupt("the blob lacks some of its bytes: they were removed, or not all of them were stored"),
    })
}

/// The bytes. `None`: not all of its chunks are there. It was replaced meanwhile, or a server of a cluster that lags behind has not stored them yet.
async fn open(bucket: &Bucket, info: ObjectInfo, range: Range<u64>) -> Result<Option<ByteStream>> {
    if range.is_empty() {
        return Ok(Some(stream::empty().boxed()));
    }
    let subject = bucket.names.chunks(&info.nuid);
    if info.chunks == 1 {
        let found = match last(&bucket.inner.client, &bucket.names.stream, &subject).await {
            Ok(found) => found,
            Err(fault) => return Err(bucket.explain(fault).await),
        };
        let Some(held) = found else { return Ok(None) };
        let mut reading = Reading::new(&info, range, 0);
        let bytes = reading.take(held.body)?;
        reading.check_end()?;
        return Ok(Some(stream::once(async { Ok(bytes) }).boxed()));
    }
    let start = info.start(range.start);
    let look = Look { filter: &subject, bodies: true, from: start.place };
    let walk = match Walk::start(&bucket.inner.client, &bucket.names.stream, &look).await {
        Ok(walk) => walk,
        Err(fault) => return Err(bucket.explain(fault).await),
    };
    if walk.there() < info.chunks.saturating_sub(start.chunk) {
        return Ok(None);
    }
    let reading = Reading::new(&info, range, start.offset);
    let pieces = stream::try_unfold((walk, reading), |(mut walk, mut reading)| async move {
        while !reading.is_done() {
            let held = match walk.next().await {
                Ok(Some(held)) => held,
                Ok(None) | Err(Fault::NoStream) => return Err(replaced()),
                Err(fault) => return Err(fault.into_error()),
            };
            let bytes = reading.take(held.body)?;
            if !bytes.is_empty() {
                if reading.is_done() {
                    reading.check_end()?;
                    walk.forget().await;
                }
                return Ok(Some((bytes, (walk, reading))));
            }
        }
        Ok(None)
    });
    Ok(Some(pieces.boxed()))
}

fn replaced() -> Error {
    Error::unavailable("the blob was replaced or removed while it was read: read it again")
}

/// How far a read is.
struct Reading {
    range: Range<u64>,
    /// The offset of the next chunk.
    at: u64,
    /// Of all bytes, where all are read.
    hash: Option<(Sha256, String)>,
}

impl Reading {
    fn new(info: &ObjectInfo, range: Range<u64>, at: u64) -> Self {
        let whole = range == (0..info.size);
        let digest = info.digest.as_deref().and_then(|digest| digest.strip_prefix(SHA256)).filter(|_| whole);
        Self { range, at, hash: digest.map(|digest| (Sha256::new(), digest.to_owned())) }
    }

    fn is_done(&self) -> bool {
        self.at >= self.range.end
    }

    /// What of the next chunk is wanted.
    fn take(&mut self, chunk: Bytes) -> Result<Bytes> {
        let len = chunk.len() as u64;
        let from = self.range.start.saturating_sub(self.at).min(len);
        let to = self.range.end.saturating_sub(self.at).min(len);
        self.at += len;
        let offset = |at: u64| usize::try_from(at).map_err(|_| Error::internal("a chunk is longer than memory"));
        let wanted = chunk.slice(offset(from)?..offset(to)?);
        if let Some((hash, _)) = &mut self.hash {
            hash.update(&wanted);
        }
        Ok(wanted)
    }

    /// All that was wanted is there, and is what was written.
    fn check_end(&mut self) -> Result<()> {
        if !self.is_done() {
            return Err(Error::corrupt(format!("the blob ends at {}, and should at {}", self.at, self.range.end)));
        }
        let Some((hash, digest)) = self.hash.take() else { return Ok(()) };
        if URL_SAFE.encode(hash.finalize()).trim_end_matches('=') == digest.trim_end_matches('=') {
            return Ok(());
        }
        Err(Error::corrupt("the blob's bytes are not those that were written: its digest is another"))
    }
}
