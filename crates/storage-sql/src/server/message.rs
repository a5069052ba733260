//! Messages as rows.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use storage_core::{Attributes, Count, Error, Message, MessageId, QueueStats, Result, clock};

use super::{Outcome, sent};
use crate::row::{self, SqlRow};
use crate::{SqlValue, json_text};

/// What the message of that number is called.
#[must_use]
pub fn message_id(id: i64) -> MessageId {
    MessageId(id.to_string())
}

/// Attributes as they are stored: a JSON object, NULL without any.
///
/// # Errors
/// None but a bug's.
pub fn write_attributes(attributes: &Attributes) -> Result<SqlValue<'static>> {
    if attributes.is_empty() {
        return Ok(SqlValue::Null);
    }
    // Texts alone: no dialect writes them otherwise.
    Ok(SqlValue::Json(json_text(crate::Dialect::Sqlite, attributes)?.into()))
}

/// Reads what [`write_attributes`] wrote.
///
/// # Errors
/// [`Corrupt`](storage_core::ErrorKind::Corrupt) for what somebody else wrote.
pub fn read_attributes(value: &SqlValue<'_>) -> Result<Attributes> {
    match value {
        SqlValue::Null => Ok(Attributes::new()),
        SqlValue::Json(text) | SqlValue::Text(text) => serde_json::from_str(text)
            .map_err(|e| Error::corrupt(format!("a message's attributes can't be read: {e}")).with_source(e)),
        _ => Err(Error::corrupt("a message's attributes are no JSON")),
    }
}

/// The message in the columns id, priority, deliveries, enqueued_at, expires_at, content_type, attributes and body, which begin at `at`.
///
/// # Errors
/// [`Corrupt`](storage_core::ErrorKind::Corrupt) for a row of somebody else's.
pub fn read_message(found: &impl SqlRow, at: usize) -> Result<Message> {
    let strange = || Error::corrupt("a row of `_storage_messages` was not written by this toolkit");
    let number = |column| row::integer(found, column)?.ok_or_else(strange);
    let body = match found.value(at + 7)? {
        SqlValue::Bytes(body) => Bytes::copy_from_slice(&body),
        _ => return Err(strange()),
    };
    Ok(Message {
        id: message_id(number(at)?),
        priority: u8::try_from(number(at + 1)?).map_err(|_| strange())?,
        deliveries: u32::try_from(number(at + 2)?).map_err(|_| strange())?,
        enqueued_at: row::time(found, at + 3)?.ok_or_else(strange)?,
        expires_at: row::time(found, at + 4)?,
        content_type: row::text(found, at + 5)?,
        attributes: read_attributes(&found.value(at + 6)?)?,
        body,
    })
}

/// How full a queue is: the numbers of ready, delayed, leased and dead messages, and when the oldest was sent.
///
/// # Errors
/// None but a bug's.
pub fn read_stats(found: &impl SqlRow) -> Result<QueueStats> {
    let count = |column| Ok::<_, Error>(Count::Exact(row::integer(found, column)?.unwrap_or(0).unsigned_abs()));
    Ok(QueueStats { ready: count(0)?, delayed: count(1)?, leased: count(2)?, dead: count(3)?, oldest: row::time(found, 4)? })
}

/// A duration in microseconds, as it is stored.
#[must_use]
pub fn micros(duration: Duration) -> i64 {
    TimeDelta::from_std(duration).ok().and_then(|d| d.num_microseconds()).unwrap_or(i64::MAX)
}

/// The dedup ids among what is sent, by queue: of each the first message and how long it stands.
#[must_use]
pub fn dedup_ids<'w, S>(outcomes: &[Outcome<'w, S>], now: DateTime<Utc>) -> BTreeMap<(i64, &'w str), (i64, DateTime<Utc>)> {
    let mut first = BTreeMap::new();
    for outgoing in sent(outcomes).filter(|m| !m.queue.spec.dedup_window.is_zero()) {
        if let Some(id) = &outgoing.message.dedup_id {
            let until = clock::add(now, outgoing.queue.spec.dedup_window);
            first.entry((outgoing.queue.id, id.as_str())).or_insert((outgoing.id, until));
        }
    }
    first
}
