//! Writing: the chunks first, under a name of their own, then what says that they are the object. Until then nobody sees them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::{Bytes, BytesMut};
use chrono::Utc;
use futures::StreamExt as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use storage_core::backoff::Backoff;
use storage_core::{BlobAttributes, BlobBody, BlobMeta, BlobPath, ETag, Error, ErrorKind, PutMode, PutOptions, Result};
use uuid::Uuid;

use super::Bucket;
use super::info::{Marks, ObjectInfo, SHA256, Written};
use crate::error::Fault;
use crate::store::Published;
use crate::stream;

/// How many bytes a chunk has: as other clients have it.
const CHUNK: usize = 128 << 10;
/// What a message has beside a chunk's bytes.
const AROUND: usize = 4 << 10;
/// How many chunks wait for their acknowledgement.
const WINDOW: usize = 16;
/// How often a write begins anew because another came first. Each time another one succeeded, so this is the number of those that overtake it.
const MAX_TRIES: u32 = 200;

pub(super) async fn put(bucket: &Bucket, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
    let announced = body.size();
    let mut upload = Upload::new(bucket);
    let mut pieces = body.into_stream();
    while let Some(piece) = pieces.next().await {
        upload.take(piece?).await?;
        if announced.is_some_and(|size| upload.size > size) {
            return Err(other_length(announced, "more"));
        }
    }
    if announced.is_some_and(|size| upload.size != size) {
        return Err(other_length(announced, &upload.size.to_string()));
    }
    let written = upload.finish().await?;
    let nuid = written.nuid.clone();
    let info = ObjectInfo::new(&bucket.names.bucket, path, written, &options.attributes);
    let replaced = write_info(bucket, path, &info, &options.mode, &mut upload).await?;
    if let Some(old) = replaced.filter(|old| *old != nuid) {
        bucket.remove_chunks(old).await;
    }
    Ok(info.meta(path.clone(), Utc::now()))
}

fn other_length(announced: Option<u64>, found: &str) -> Error {
    let announced = announced.unwrap_or_default();
    Error::invalid(format!("the stream was announced with {announced} bytes and has {found}"))
}

/// Removes an object. False: there was none.
pub(super) async fn delete(bucket: &Bucket, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(100));
    for _ in 0..MAX_TRIES {
        let (over, there) = bucket.find(path).await?;
        if let Some(expected) = if_match {
            check_mark(there.as_ref().map(ObjectInfo::etag).as_ref(), expected)?;
        }
        let Some(info) = there else { return Ok(false) };
        let message = message(&info.deleted())?;
        match stream::put(&bucket.inner, bucket.names.info(path), message, over).await {
            Ok(Some(_)) => {
                bucket.remove_chunks(info.nuid).await;
                return Ok(true);
            }
            Ok(None) => tokio::time::sleep(backoff.next_delay()).await,
            Err(fault) => return Err(bucket.explain(fault).await),
        }
    }
    Err(busy())
}

fn busy() -> Error {
    Error::conflict(format!("others wrote the blob {MAX_TRIES} times while this write waited for its turn: try again later"))
}

fn message(info: &ObjectInfo) -> Result<PublishMessage> {
    // The one message takes the place of all before it.
    Ok(PublishMessage::build().payload(serde_json::to_vec(info)?.into()).header("Nats-Rollup", "sub"))
}

pub(super) fn check_mark(found: Option<&ETag>, expected: &ETag) -> Result<()> {
    match found {
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(Error::conflict(format!("expected mark {expected}, found {found}: somebody else wrote it"))),
        None => Err(Error::conflict(format!("expected mark {expected}, but the blob is gone"))),
    }
}

/// Says that the chunks are the object, where the mode allows it. Answers whose chunks were it before.
async fn write_info(
    bucket: &Bucket,
    path: &BlobPath,
    info: &ObjectInfo,
    mode: &PutMode,
    upload: &mut Upload,
) -> Result<Option<String>> {
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(100));
    for _ in 0..MAX_TRIES {
        let (over, there) = bucket.find(path).await?;
        match mode {
            PutMode::Overwrite => {}
            PutMode::Create if there.is_some() => return Err(Error::already_exists("there is a blob of that path")),
            PutMode::Create => {}
            PutMode::Update(expected) => check_mark(there.as_ref().map(ObjectInfo::etag).as_ref(), expected)?,
        }
        // From here on until the server says no, the chunks may be the object.
        upload.kept = true;
        match stream::put(&bucket.inner, bucket.names.info(path), message(info)?, over).await {
            Ok(Some(_)) => return Ok(there.map(|there| there.nuid)),
            Ok(None) => upload.kept = false,
            Err(fault) => {
                let error = bucket.explain(fault).await;
                upload.kept = matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable);
                return Err(error);
            }
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
    Err(busy())
}

/// Chunks on their way. Dropped before they are an object's, they are removed.
struct Upload {
    bucket: Bucket,
    nuid: String,
    chunk: usize,
    /// What is not a whole chunk yet.
    rest: BytesMut,
    hash: Sha256,
    size: u64,
    sent: u64,
    acknowledged: u64,
    waiting: VecDeque<PublishAckFuture>,
    /// When it began, and how many connections there had been.
    began: (Instant, u64),
    marks: Marks,
    kept: bool,
}

impl Upload {
    fn new(bucket: &Bucket) -> Self {
        let client = &bucket.inner.client;
        Self {
            bucket: bucket.clone(),
            nuid: Uuid::new_v4().simple().to_string(),
            chunk: CHUNK.min(client.max_payload().saturating_sub(AROUND)).max(1),
            rest: BytesMut::new(),
            hash: Sha256::new(),
            size: 0,
            sent: 0,
            acknowledged: 0,
            waiting: VecDeque::with_capacity(WINDOW),
            began: (Instant::now(), client.connects()),
            marks: Marks::default(),
            kept: false,
        }
    }

    async fn take(&mut self, mut piece: Bytes) -> Result<()> {
        self.size += piece.len() as u64;
        self.hash.update(&piece);
        while self.rest.len() + piece.len() >= self.chunk {
            let chunk = if self.rest.is_empty() {
                piece.split_to(self.chunk)
            } else {
                self.rest.extend_from_slice(&piece.split_to(self.chunk - self.rest.len()));
                std::mem::take(&mut self.rest).freeze()
            };
            self.send(chunk).await?;
        }
        self.rest.extend_from_slice(&piece);
        Ok(())
    }

    async fn send(&mut self, chunk: Bytes) -> Result<()> {
        if self.waiting.len() >= WINDOW {
            self.wait().await?;
        }
        let message = PublishMessage::build().payload(chunk);
        let ack = self.bucket.inner.send(self.bucket.names.chunks(&self.nuid), message).await?;
        self.waiting.push_back(ack);
        self.sent += 1;
        Ok(())
    }

    /// For the oldest acknowledgement.
    async fn wait(&mut self) -> Result<()> {
        let Some(ack) = self.waiting.pop_front() else { return Ok(()) };
        match self.bucket.inner.acknowledged(ack, self.began.1).await? {
            Published::Stored(ack) => {
                self.marks.note(self.acknowledged, ack.sequence);
                self.acknowledged += 1;
                Ok(())
            }
            Published::Overtaken => Err(Error::internal("a chunk without a condition was refused for one")),
            Published::NoStream => Err(self.bucket.explain(Fault::NoStream).await),
        }
    }

    /// Sends what is left, and waits until all is stored.
    async fn finish(&mut self) -> Result<Written> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest).freeze();
            self.send(rest).await?;
        }
        while !self.waiting.is_empty() {
            self.wait().await?;
        }
        tracing::trace!(chunks = self.sent, elapsed = ?self.began.0.elapsed(), "all chunks are stored");
        Ok(Written {
            nuid: self.nuid.clone(),
            size: self.size,
            chunks: self.sent,
            chunk_size: self.chunk as u64,
            digest: format!("{SHA256}{}", URL_SAFE.encode(std::mem::take(&mut self.hash).finalize())),
            marks: std::mem::take(&mut self.marks),
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.kept && self.sent > 0 {
            drop(self.bucket.forget_chunks(std::mem::take(&mut self.nuid)));
        }
    }
}

/// Copies an object, attributes included.
pub(super) async fn copy(bucket: &Bucket, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
    let read = super::get::get(bucket, from, &storage_core::GetOptions::default()).await?;
    let (size, attributes): (u64, BlobAttributes) = (read.meta.size, read.meta.attributes.clone());
    let body = BlobBody::Stream { stream: read.into_stream(), size: Some(size) };
    put(bucket, to, body, &PutOptions { mode: mode.clone(), attributes }).await
}

/// What removes chunks.
pub(super) fn purge(subject: &str) -> serde_json::Value {
    json!({"filter": subject})
}
