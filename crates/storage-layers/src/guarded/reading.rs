//! A blob that is being read: idle timeouts, and going on where a connection broke.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use storage_core::{
    BlobBackend, BlobContent, BlobMeta, BlobPath, BlobRead, ByteRange, ByteStream, ETag, Error, GetOptions, Result,
};
use tokio::time::timeout;

use super::Guarded;
use crate::observe::{Direction, Op};
use crate::policy::{Call, Limit, Repeat, Tries};

pub(super) const GET: Call = Call { op: Op::BlobGet, repeat: Repeat::Safe, limit: Limit::Call };

/// A read that can be gone on with.
struct Reading<B: ?Sized> {
    guarded: Guarded<B>,
    path: BlobPath,
    /// What is read is of this state, and of no other. `None`: there is no telling, so the read is not gone on with.
    etag: Option<ETag>,
    left: Range<u64>,
    stream: ByteStream,
    tries: Tries,
}

impl<B: BlobBackend + ?Sized> Guarded<B> {
    /// Watches over the rest of a read.
    pub(super) fn watch_read(&self, read: BlobRead) -> BlobRead {
        let BlobRead { meta, range, content } = read;
        let stream = match content {
            BlobContent::File(file) => {
                self.observer.bytes(Direction::Read, range.end - range.start);
                return BlobRead { meta, range, content: BlobContent::File(file) };
            }
            BlobContent::Stream(stream) => stream,
        };
        let content = BlobContent::Stream(self.reading(&meta, range.clone(), stream));
        BlobRead { meta, range, content }
    }

    fn reading(&self, meta: &BlobMeta, left: Range<u64>, stream: ByteStream) -> ByteStream {
        if self.policy.timeouts().is_none() && !self.policy.retries() && !self.observer.is_some() {
            return stream;
        }
        let etag = meta.etag.clone().filter(|_| self.inner.capabilities().conditional && self.policy.retries());
        let reading = Reading { guarded: self.clone(), path: meta.path.clone(), etag, left, stream, tries: Tries::of_calls() };
        futures::stream::try_unfold(reading, |mut reading| async move {
            let piece = reading
                .next()
                .await
                .map_err(|e| e.with_operation(Op::BlobGet.name()).with_backend(reading.guarded.inner.info()))?;
            Ok(piece.map(|piece| (piece, reading)))
        })
        .boxed()
    }
}

impl<B: BlobBackend + ?Sized> Reading<B> {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let mut error = match self.piece().await {
                Ok(piece) => return Ok(piece),
                Err(error) => error,
            };
            // Goes on where it broke; a failure to do so is one try more.
            loop {
                let Some(etag) = self.etag.clone() else { return Err(error) };
                let Guarded { policy, observer, .. } = &self.guarded;
                self.tries.again(policy, observer, GET.op, GET.repeat, error).await?;
                match self.reopen(etag).await {
                    Ok(stream) => break self.stream = stream,
                    Err(again) => error = again,
                }
            }
        }
    }

    async fn piece(&mut self) -> Result<Option<Bytes>> {
        let idle = self.guarded.policy.timeouts().map(|timeouts| timeouts.idle);
        let piece = match idle {
            None => self.stream.try_next().await?,
            Some(idle) => timeout(idle, self.stream.try_next()).await.map_err(|_| stalled(idle))??,
        };
        match piece {
            Some(piece) => {
                let len = piece.len() as u64;
                if len > self.left.end - self.left.start {
                    return Err(Error::corrupt(format!("blob `{}` gave more bytes than it was said to have", self.path)));
                }
                self.left.start += len;
                self.tries.progressed();
                self.guarded.observer.bytes(Direction::Read, len);
                Ok(Some(piece))
            }
            None if self.left.is_empty() => {
                self.guarded.policy.succeeded();
                Ok(None)
            }
            None => {
                let missing = self.left.end - self.left.start;
                Err(Error::unavailable(format!("blob `{}` ended {missing} bytes early", self.path)))
            }
        }
    }

    async fn reopen(&mut self, etag: ETag) -> Result<ByteStream> {
        let options = GetOptions { range: Some(ByteRange::Bounded(self.left.clone())), if_match: Some(etag.clone()) };
        let read = self.guarded.policy.once(GET, self.guarded.inner.get(&self.path, &options)).await?;
        if read.meta.etag != Some(etag) || read.range != self.left {
            return Err(Error::conflict(format!("blob `{}` was written again while it was read", self.path)));
        }
        Ok(read.into_stream())
    }
}

fn stalled(idle: Duration) -> Error {
    Error::timeout(format!("the service sent nothing for {idle:?}"))
}
