//! Writing bodies that don't fit into memory: one request, in chunks, which ends well only where the body did.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use object_store::client::{HttpError, HttpErrorKind};
use storage_core::{Error, Result};

use super::dav::{Dav, Login};
use crate::remote::pieces::Pieces;
use crate::remote::read::Source as _;
use crate::remote::wire::{Answer, Failure, Refusal, transport};

/// How much goes to the server at once.
pub(super) const PIECE: u64 = 1 << 20;
/// How much of a refusal's page is read.
const LONGEST_PAGE: usize = 16 << 10;

/// When the server last took a piece; no time runs while the next one is being read.
#[derive(Debug)]
struct Silence {
    start: Instant,
    /// Milliseconds from the start; [`READING`] while the server waits for us.
    since: AtomicU64,
}

const READING: u64 = u64::MAX;

impl Silence {
    fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), since: AtomicU64::new(0) })
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(READING - 1)
    }

    fn reading(&self) {
        self.since.store(READING, Ordering::Relaxed);
    }

    fn sending(&self) {
        self.since.store(self.elapsed(), Ordering::Relaxed);
    }

    /// Ends once the server has been silent for so long.
    async fn lasted(&self, limit: Duration) {
        loop {
            let silent = match self.since.load(Ordering::Relaxed) {
                READING => Duration::ZERO,
                since => Duration::from_millis(self.elapsed().saturating_sub(since)),
            };
            let Some(left) = limit.checked_sub(silent).filter(|left| !left.is_zero()) else { return };
            tokio::time::sleep(left).await;
        }
    }
}

/// Sends a body as it comes. Without its last chunk the server throws away what it has, so that a body that fails or is given up changes nothing.
pub(super) async fn stream(dav: &Dav, key: &str, first: Bytes, pieces: Pieces) -> Result<u64, Failure> {
    let silence = Silence::new();
    let (ended, mut outcome) = tokio::sync::oneshot::channel();
    let state = (Some(first), pieces, Some(ended), Arc::clone(&silence));
    let body = futures::stream::try_unfold(state, |(first, mut pieces, mut ended, silence)| async move {
        silence.reading();
        let next = match first {
            Some(first) => Ok(first),
            None => pieces.next(PIECE).await,
        };
        silence.sending();
        let (end, last) = match next {
            Ok(piece) if !piece.is_empty() => return Ok(Some((piece, (None, pieces, ended, silence)))),
            Ok(_) => (Ok(pieces.read()), Ok(None)),
            Err(error) => (Err(error), Err(std::io::Error::other("the body failed"))),
        };
        if let Some(ended) = ended.take() {
            // Nobody listens any more where the server has answered already.
            _ = ended.send(end);
        }
        last
    });
    let mut request = dav.uploads.put(dav.url(key)).header(CONTENT_TYPE, "application/octet-stream");
    if let Some(Login(value)) = &dav.login {
        request = request.header(AUTHORIZATION, value.clone());
    }
    let answer = tokio::select! {
        answer = request.body(reqwest::Body::wrap_stream(body)).send() => answer,
        () = silence.lasted(dav.silence) => return Err(Error::timeout("the server took nothing for too long").into()),
    };
    // What the body itself failed with is told before what became of the connection. Nothing: the server answered before the end.
    let sent = match outcome.try_recv() {
        Ok(Err(error)) => return Err(error.into()),
        Ok(Ok(sent)) => Some(sent),
        Err(_) => None,
    };
    let answer = answer.map_err(|e| transport(of_reqwest(e)))?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    if !status.is_success() {
        let body = page(answer, dav.silence).await;
        return Err(Failure::Refused(Refusal::read(Answer { status, headers, body: body.into() }).await));
    }
    sent.ok_or_else(|| Error::unavailable("the server says that it is done, and did not read all of the body").into())
}

/// What a server says of a refusal. What breaks off here is a refusal all the same.
async fn page(mut answer: reqwest::Response, silence: Duration) -> Vec<u8> {
    let mut page = Vec::new();
    while page.len() < LONGEST_PAGE
        && let Ok(Ok(Some(piece))) = tokio::time::timeout(silence, answer.chunk()).await
    {
        page.extend_from_slice(&piece);
    }
    page
}

fn of_reqwest(error: reqwest::Error) -> HttpError {
    let kind = match &error {
        error if error.is_timeout() => HttpErrorKind::Timeout,
        error if error.is_connect() => HttpErrorKind::Connect,
        _ => HttpErrorKind::Request,
    };
    // Without the address: it is told with the error's place.
    HttpError::new(kind, error.without_url())
}
