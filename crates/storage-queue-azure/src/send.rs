//! Sending.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use chrono::Utc;
use futures::StreamExt as _;
use storage_core::clock::add;
use storage_core::{Error, ErrorKind, MessageId, NewMessage, Result, Sent};

use crate::store::{Lane, Store, in_seconds};
use crate::text::{Content, Head, MAX_BYTES, Spilled};

/// A message that can go out, but for a body that goes into a blob first.
struct Ready {
    text: Result<String, Content>,
    delay: u32,
}

/// Sends messages, as many at once as requests may be under way.
///
/// # Errors
/// Naming the message that can't be accepted; then none was sent. Those of the service name none: some may have been.
pub(crate) async fn send(store: &Store, lane: &Lane, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
    let mut ready = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        ready.push(prepare(store, message).map_err(|error| error.with_failed_write(index))?);
    }
    // A failure starts no more of them, and is told when those under way have ended: what is dropped on its way could still arrive.
    let failed = AtomicBool::new(false);
    let failed = &failed;
    let sent = ready.into_iter().enumerate().map(|(index, message)| async move {
        if failed.load(Ordering::Relaxed) {
            return (index, Ok(None));
        }
        let id = send_one(store, lane, message).await.inspect_err(|_| failed.store(true, Ordering::Relaxed));
        (index, id.map(|id| Some(Sent { id: MessageId(id), duplicate: false })))
    });
    // Not in order: a slow one would keep others back that could be started.
    let mut sent: Vec<(usize, Result<Option<Sent>>)> =
        futures::stream::iter(sent).buffer_unordered(store.concurrency).collect().await;
    sent.sort_unstable_by_key(|(index, _)| *index);
    if let Ok(queue) = lane.queue() {
        store.note_sent(&queue);
    }
    sent.into_iter().filter_map(|(_, outcome)| outcome.transpose()).collect()
}

fn prepare(store: &Store, message: NewMessage) -> Result<Ready> {
    let delay = in_seconds("delay", message.delay)?;
    let expires = message.ttl.map(|ttl| add(Utc::now(), ttl));
    let NewMessage { body, attributes, content_type, .. } = message;
    let content = Content { head: Head { expires, content_type, attributes, ..Head::default() }, body };
    let text = match content.encode(store.encoding) {
        Some(text) => Ok(text),
        None => Err(check_spill(store, content)?),
    };
    Ok(Ready { text, delay })
}

/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) where a message is too large for the service, and there is no other place for its body, or even that would not do.
fn check_spill(store: &Store, content: Content) -> Result<Content> {
    let bytes = content.body.len();
    if store.spill.is_none() {
        return Err(Error::invalid(format!(
            "body ({bytes} bytes) and attributes are too large for Azure Storage Queue, which takes {MAX_BYTES} bytes of both together: \
             put large data into a blob and send its path, or let it spill into blobs (option `spill`, `AzureQueue::with_spill`)"
        )));
    }
    let spilled = Some(Spilled { blob: uuid::Uuid::nil(), bytes: bytes as u64 });
    let rest = Content { head: Head { spilled, ..content.head.clone() }, body: Bytes::new() };
    if rest.encode(store.encoding).is_none() {
        return Err(Error::invalid(format!("the attributes are too large for Azure Storage Queue: {MAX_BYTES} bytes at most")));
    }
    Ok(content)
}

/// The text of a message; its body goes into a blob where there is no room for it.
pub(crate) async fn spelled(store: &Store, lane: &Lane, content: Content) -> Result<(String, Option<Spilled>)> {
    if let Some(text) = content.encode(store.encoding) {
        return Ok((text, None));
    }
    let content = check_spill(store, content)?;
    let Some(spill) = &store.spill else { return Err(Error::internal("a body without a place")) };
    let spilled = spill.put(&lane.home, content.body).await?;
    let rest = Content { head: Head { spilled: Some(spilled), ..content.head }, body: Bytes::new() };
    let text = rest.encode(store.encoding).ok_or_else(|| Error::internal("a head that was measured wrongly"))?;
    Ok((text, Some(spilled)))
}

async fn send_one(store: &Store, lane: &Lane, message: Ready) -> Result<String> {
    let (text, spilled) = match message.text {
        Ok(text) => (text, None),
        Err(content) => spelled(store, lane, content).await?,
    };
    match store.client.send(&lane.there, &text, message.delay).await {
        Ok(id) => Ok(id),
        Err(refusal) => {
            // Where the service did not answer, the message may be there, and its body stays.
            let unknown = matches!(refusal.kind(), ErrorKind::Timeout | ErrorKind::Unavailable);
            if let (Some(spill), Some(spilled), false) = (&store.spill, spilled, unknown) {
                spill.remove(&lane.home, spilled.blob).await;
            }
            Err(refusal.into())
        }
    }
}
