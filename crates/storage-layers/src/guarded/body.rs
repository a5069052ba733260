//! Bodies of puts that may have to be sent again.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt as _;
use storage_core::{BlobBody, ByteStream, Error, Result};

use crate::policy::Activity;

/// How much of a file is read at a time.
const PIECE: u64 = 1 << 20;

/// A body, handed out once for each try.
pub(super) enum Body {
    Bytes(Bytes),
    File { file: Option<File>, again: Option<FilePart> },
    Stream { stream: Slot, size: Option<u64> },
}

/// A file from an offset on, read without moving its position, which a try that was given up may still be moving.
#[derive(Clone)]
pub(super) struct FilePart {
    file: Arc<File>,
    start: u64,
    end: u64,
}

impl Body {
    /// `keep`: there may be more than one try.
    pub(super) fn new(body: BlobBody, keep: bool) -> Self {
        match body {
            BlobBody::Bytes(bytes) => Self::Bytes(bytes),
            BlobBody::File(file) => Self::File { again: if keep { FilePart::of(&file) } else { None }, file: Some(file) },
            BlobBody::Stream { stream, size } => Self::Stream { stream: Arc::new(Mutex::new(Some(stream))), size },
        }
    }

    /// How many bytes are sent at once, without a sign of getting on.
    pub(super) fn unseen(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::File { file, .. } => Some(file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len())),
            Self::Stream { .. } => None,
        }
    }

    /// Whether there can be another try, asked after one.
    pub(super) fn has_more(&self) -> impl Fn() -> bool + use<> {
        let (known, stream) = match self {
            Self::Bytes(_) => (true, None),
            Self::File { again, .. } => (again.is_some(), None),
            Self::Stream { stream, .. } => (true, Some(Arc::clone(stream))),
        };
        move || known && stream.as_ref().is_none_or(is_untouched)
    }

    /// The body for a try, which reports to `activity`.
    pub(super) fn next(&mut self, activity: &Arc<Activity>) -> Result<BlobBody> {
        let body = match self {
            Self::Bytes(bytes) => Some(BlobBody::Bytes(bytes.clone())),
            Self::File { file, again } => file.take().map(BlobBody::File).or_else(|| {
                let part = again.clone()?;
                let size = Some(part.end - part.start);
                Some(BlobBody::Stream { stream: watched(part.stream(), activity), size })
            }),
            Self::Stream { stream, size } => is_untouched(stream)
                .then(|| BlobBody::Stream { stream: watched(taken_when_read(Arc::clone(stream)), activity), size: *size }),
        };
        body.ok_or_else(|| Error::internal("the body of the blob can't be sent again"))
    }
}

type Slot = Arc<Mutex<Option<ByteStream>>>;

fn is_untouched(stream: &Slot) -> bool {
    stream.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// The stream in `slot`, which stays there until it is first read.
fn taken_when_read(slot: Slot) -> ByteStream {
    let mut stream = None;
    futures::stream::poll_fn(move |context| {
        if stream.is_none() {
            stream = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        match &mut stream {
            Some(stream) => stream.poll_next_unpin(context),
            None => std::task::Poll::Ready(Some(Err(Error::internal("the body of the blob was read twice")))),
        }
    })
    .boxed()
}

/// The stream, telling whenever it is asked for a piece.
fn watched(mut stream: ByteStream, activity: &Arc<Activity>) -> ByteStream {
    let activity = Arc::clone(activity);
    futures::stream::poll_fn(move |context| {
        let polled = stream.poll_next_unpin(context);
        activity.asked(polled.is_ready());
        polled
    })
    .boxed()
}

impl FilePart {
    /// What is left of a file. `None`: it is not one that can be read again.
    fn of(file: &File) -> Option<Self> {
        use std::io::Seek as _;
        let meta = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let mut file = file.try_clone().ok()?;
        let start = file.stream_position().ok()?;
        Some(Self { file: Arc::new(file), start, end: meta.len().max(start) })
    }

    fn stream(self) -> ByteStream {
        futures::stream::try_unfold(self, |part| async move {
            if part.start == part.end {
                return Ok(None);
            }
            let len = usize::try_from((part.end - part.start).min(PIECE)).unwrap_or(usize::MAX);
            let (file, start) = (Arc::clone(&part.file), part.start);
            let read = tokio::task::spawn_blocking(move || read_at(&file, start, len)).await;
            let piece = read.map_err(|e| Error::internal("a thread that read a file ended").with_source(e))??;
            if piece.is_empty() {
                return Err(Error::conflict("the file got shorter while it was sent"));
            }
            let start = part.start + piece.len() as u64;
            Ok(Some((Bytes::from(piece), Self { start, ..part })))
        })
        .boxed()
    }
}

fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; len];
    let mut filled = 0;
    while filled < len {
        let read = positioned(file, &mut piece[filled..], offset + filled as u64);
        match read {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    Ok(piece)
}

#[cfg(unix)]
fn positioned(file: &File, piece: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, piece, offset)
}

#[cfg(windows)]
fn positioned(file: &File, piece: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, piece, offset)
}
