//! Down: the parts of a large blob, side by side, each written where it belongs as it comes.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::TryStreamExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use super::local::{blocking, file_subject};
use super::note::range_of;
use super::partial::Partial;
use super::pool::{Run, died};
use crate::{BlobMeta, BlobRead, ByteStream, Error, ErrorKind, GetOptions, Result, ResultExt};

/// How many bytes of a stream are written at once.
const PIECE: u64 = 1 << 20;
/// After so many parts what is there is brought to the disk, while others come: so less is left for the end, and more survives a power cut.
const SYNC_EVERY: usize = 8;

/// What a task did.
enum Done {
    Part,
    Sync,
}

/// Parts that are under way, each with a permit of its own. Dropped, it breaks them off.
pub(super) struct Parts {
    run: Arc<Run>,
    meta: Arc<BlobMeta>,
    partial: Arc<Partial>,
    tasks: JoinSet<Result<Done>>,
    /// Parts that were written since the last sync began. `None`: one is under way.
    unsynced: Option<usize>,
    failed: Option<Error>,
}

impl Parts {
    pub(super) fn new(run: &Arc<Run>, meta: &BlobMeta, partial: Partial) -> Self {
        Self {
            run: Arc::clone(run),
            meta: Arc::new(meta.clone()),
            partial: Arc::new(partial),
            tasks: JoinSet::new(),
            unsynced: Some(0),
            failed: None,
        }
    }

    /// Starts to write a part, whose bytes have begun to come if `read` is set, when there is room for it. Not after another has failed.
    pub(super) async fn start(&mut self, part: u64, begun: Option<(OwnedSemaphorePermit, BlobRead)>) -> Result<()> {
        let (permit, read) = match begun {
            Some((permit, read)) => (permit, Some(read)),
            None => (self.room().await?, None),
        };
        if self.failed.is_none() {
            let (run, meta, partial) = (Arc::clone(&self.run), Arc::clone(&self.meta), Arc::clone(&self.partial));
            self.tasks.spawn(async move {
                let _permit = permit;
                let pieces = match read {
                    Some(read) => read.into_stream(),
                    None => run.get_part(&meta, part).await?.into_stream(),
                };
                run.write_part(pieces, &meta, part, &partial).await
            });
        }
        Ok(())
    }

    /// True where a part has failed, and so no other is to be started.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    async fn room(&mut self) -> Result<OwnedSemaphorePermit> {
        let run = Arc::clone(&self.run);
        let mut permit = std::pin::pin!(run.permit());
        loop {
            tokio::select! {
                biased;
                Some(done) = self.tasks.join_next() => self.settle(done.unwrap_or_else(died)),
                permit = &mut permit => return permit,
            }
        }
    }

    fn settle(&mut self, done: Result<Done>) {
        match done {
            Ok(Done::Part) => {
                self.unsynced = self.unsynced.map(|count| count + 1);
                if self.failed.is_none() && self.unsynced.is_some_and(|count| count >= SYNC_EVERY) {
                    self.unsynced = None;
                    let partial = Arc::clone(&self.partial);
                    self.tasks.spawn(async { on_file(partial, Partial::sync_parts).await.map(|()| Done::Sync) });
                }
            }
            Ok(Done::Sync) => self.unsynced = Some(0),
            // That the blob is another now is worth more than what came of it elsewhere.
            Err(error) => match &self.failed {
                Some(first) if first.kind() == ErrorKind::Conflict || error.kind() != ErrorKind::Conflict => {}
                _ => self.failed = Some(error),
            },
        }
    }

    /// Waits for the parts that are under way, those beside one that has failed as well: what they bring need not be fetched again. Answers the file, and
    /// what has failed.
    pub(super) async fn end(mut self) -> Result<(Partial, Option<Error>)> {
        while let Some(done) = self.tasks.join_next().await {
            self.settle(done.unwrap_or_else(died));
        }
        let partial = Arc::into_inner(self.partial).ok_or_else(|| Error::internal("a part is still being written"))?;
        Ok((partial, self.failed))
    }
}

/// Does something to a partial file on a thread that may block.
async fn on_file(partial: Arc<Partial>, work: impl FnOnce(&Partial) -> Result<()> + Send + 'static) -> Result<()> {
    blocking(move || work(&partial).context("blobs.download", || file_subject(partial.target()))).await
}

impl Run {
    /// The next pieces of a stream, about a [`PIECE`] together, and how many bytes they are; none at its end.
    pub(super) async fn next_pieces(&self, pieces: &mut ByteStream) -> Result<(Vec<Bytes>, u64)> {
        let (mut taken, mut len) = (Vec::new(), 0);
        let enough = self.meter.piece(PIECE);
        while len < enough
            && let Some(piece) = pieces.try_next().await?
        {
            len += piece.len() as u64;
            taken.push(piece);
        }
        self.meter.pace(len).await;
        Ok((taken, len))
    }

    pub(super) async fn get_part(&self, meta: &BlobMeta, part: u64) -> Result<BlobRead> {
        let options = GetOptions::default().range(range_of(part, meta.size)).if_match(meta.etag.clone());
        self.store.get_with(&meta.path, &options).await
    }

    async fn write_part(&self, mut pieces: ByteStream, meta: &BlobMeta, part: u64, partial: &Arc<Partial>) -> Result<Done> {
        let range = range_of(part, meta.size);
        let (mut offset, end) = (range.start, range.end);
        while offset < end {
            let (taken, len) = self.next_pieces(&mut pieces).await?;
            let (at, next) = (offset, offset + len);
            if len == 0 || next > end {
                let what = if len == 0 { "ended early" } else { "brought more than was asked for" };
                return Err(Error::unavailable(format!("the bytes {}..{end} of the blob: the answer {what}", range.start)));
            }
            let write = move |partial: &Partial| {
                partial.write_at(at, &taken)?;
                if next == end { partial.part_is_written(part) } else { Ok(()) }
            };
            on_file(Arc::clone(partial), write).await?;
            self.meter.moved(len);
            offset = next;
        }
        Ok(Done::Part)
    }
}
