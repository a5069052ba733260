//! Messages as NATS carries them: the body as it is, everything else in headers.
//!
//! What other clients can read as it stands is a header of its own: attributes whose names and values are plain, the content type, the dedup id
//! (`Nats-Msg-Id`). Attributes that headers can't carry are together in one header as JSON. Headers of other clients come out as attributes.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use storage_core::{Attributes, Error, Message, MessageId, NewMessage, Result};

/// A message's id, where it is not its place in the stream.
const ID: &str = "Storage-Id";
/// When it was sent, in microseconds since 1970, where it was not when it came to its place.
const SENT: &str = "Storage-Sent";
/// How long it is good for and how long it is delayed, in microseconds since it was sent.
const TTL: &str = "Storage-Ttl";
const DELAY: &str = "Storage-Delay";
/// Attributes that headers can't carry, and a content type that one can't.
const ATTRIBUTES: &str = "Storage-Attributes";
const ODD_CONTENT_TYPE: &str = "Storage-Content-Type";
const CONTENT_TYPE: &str = "Content-Type";
/// Of the server's.
const MESSAGE_ID: &str = "Nats-Msg-Id";
const EXPECTED_LAST: &str = "Nats-Expected-Last-Subject-Sequence";
/// What a message must leave free below the server's limit, so that it can become a dead letter with a reason of 4,096 bytes, each of them escaped.
pub(crate) const RESERVE: usize = 32 * 1024;

/// A message with all that is stored of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) body: Bytes,
    pub(crate) attributes: Attributes,
    pub(crate) content_type: Option<String>,
    pub(crate) sent: DateTime<Utc>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) delay: Duration,
}

impl Stored {
    pub(crate) fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.ttl.and_then(|ttl| TimeDelta::from_std(ttl).ok()).and_then(|ttl| self.sent.checked_add_signed(ttl))
    }

    pub(crate) fn due_at(&self) -> DateTime<Utc> {
        TimeDelta::from_std(self.delay).ok().and_then(|delay| self.sent.checked_add_signed(delay)).unwrap_or(self.sent)
    }

    pub(crate) fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at().is_some_and(|at| at <= now)
    }

    pub(crate) fn into_message(self, deliveries: u32) -> Message {
        Message {
            expires_at: self.expires_at(),
            id: MessageId(self.id),
            body: self.body,
            attributes: self.attributes,
            content_type: self.content_type,
            priority: 0,
            deliveries,
            enqueued_at: self.sent,
        }
    }

    /// The headers under which it is stored at another place, once.
    pub(crate) fn moved(&self, message_id: Option<&str>) -> HeaderMap {
        let mut headers = headers(&self.attributes, self.content_type.as_deref(), self.ttl, Duration::ZERO);
        headers.insert(ID, self.id.as_str());
        headers.insert(SENT, self.sent.timestamp_micros().to_string());
        headers.insert(EXPECTED_LAST, "0");
        if let Some(id) = message_id {
            headers.insert(MESSAGE_ID, id);
        }
        headers
    }
}

/// The headers of a message to send.
pub(crate) fn encode(message: &NewMessage, dedup: bool) -> HeaderMap {
    let mut headers = headers(&message.attributes, message.content_type.as_deref(), message.ttl, message.delay);
    if let Some(id) = message.dedup_id.as_ref().filter(|_| dedup) {
        headers.insert(MESSAGE_ID, dedup_id(id));
    }
    headers
}

/// Refuses a message that could not be stored, or could not become a dead letter.
///
/// # Errors
/// [`InvalidInput`](storage_core::ErrorKind::InvalidInput).
pub(crate) fn check_size(headers: &HeaderMap, body: usize, max_payload: usize) -> Result<()> {
    let line = |name: &str, value: &str| name.len() + value.len() + 4;
    let lines = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| line(name.as_ref(), value.as_str())));
    let headers: usize = lines.sum();
    let (size, max) = (headers + body, max_payload.saturating_sub(RESERVE));
    if size <= max {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "body and attributes take {size} bytes, {max} at most on this server: put large data into a blob and send its path"
    )))
}

fn headers(attributes: &Attributes, content_type: Option<&str>, ttl: Option<Duration>, delay: Duration) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut odd = Attributes::new();
    for (name, value) in attributes {
        if is_plain_name(name) && is_plain_value(value) {
            headers.insert(name.as_str(), value.as_str());
        } else {
            odd.insert(name.clone(), value.clone());
        }
    }
    if !odd.is_empty() {
        headers.insert(ATTRIBUTES, ascii_json(&odd));
    }
    match content_type {
        Some(text) if is_plain_value(text) => headers.insert(CONTENT_TYPE, text),
        Some(text) => headers.insert(ODD_CONTENT_TYPE, ascii_json(&text)),
        None => {}
    }
    if let Some(ttl) = ttl {
        headers.insert(TTL, ttl.as_micros().to_string());
    }
    if !delay.is_zero() {
        headers.insert(DELAY, delay.as_micros().to_string());
    }
    headers
}

/// Reads a message that has the place `sequence` since `stored`.
pub(crate) fn decode(headers: Option<&HeaderMap>, body: Bytes, sequence: u64, stored: DateTime<Utc>) -> Stored {
    let get = |name: &str| headers.and_then(|headers| headers.get(name)).map(async_nats::HeaderValue::as_str);
    let micros = |name: &str| get(name).and_then(|text| text.parse::<u64>().ok()).map(Duration::from_micros);
    let sent = get(SENT).and_then(|text| text.parse().ok()).and_then(DateTime::from_timestamp_micros);
    let mut attributes: Attributes = get(ATTRIBUTES).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    for (name, values) in headers.into_iter().flat_map(|headers| headers.iter()) {
        let (name, Some(value)) = (name.as_ref(), values.first()) else { continue };
        if !is_reserved_name(name) {
            attributes.entry(name.to_owned()).or_insert_with(|| value.as_str().to_owned());
        }
    }
    let odd_content_type = get(ODD_CONTENT_TYPE).and_then(|text| serde_json::from_str(text).ok());
    Stored {
        id: get(ID).map_or_else(|| sequence.to_string(), str::to_owned),
        body,
        attributes,
        content_type: odd_content_type.or_else(|| get(CONTENT_TYPE).map(str::to_owned)),
        sent: sent.unwrap_or(stored),
        ttl: micros(TTL),
        delay: micros(DELAY).unwrap_or_default(),
    }
}

/// Headers as they are stored.
pub(crate) fn read_headers(bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let text = String::from_utf8_lossy(bytes);
    for (name, value) in text.split("\r\n").skip(1).filter_map(|line| line.split_once(':')) {
        if name.bytes().all(|b| matches!(b, b'!'..=b'~')) && !name.is_empty() && !value.contains(['\r', '\n']) {
            headers.append(name, value.trim());
        }
    }
    headers
}

/// True where an attribute of that name can be a header.
fn is_plain_name(name: &str) -> bool {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    plain && !is_reserved_name(name)
}

/// True for headers of the server's or of ours. Our reserved attributes (`storage-dead-reason`) are like any other.
fn is_reserved_name(name: &str) -> bool {
    let begins = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let ours = begins("storage-") && !name.starts_with("storage-dead-");
    begins("nats-") || ours || name.eq_ignore_ascii_case(CONTENT_TYPE)
}

/// True where a header carries the value as it is. The server looks for its own headers by their text, wherever it stands.
fn is_plain_value(value: &str) -> bool {
    let inner = value.bytes().all(|b| matches!(b, b' '..=b'~'));
    inner && !value.is_empty() && value.trim() == value && !value.contains("Nats-")
}

/// JSON in ASCII, without the text that the server looks for.
fn ascii_json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    let json = serde_json::to_string(value).unwrap_or_default();
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            ascii.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii.replace("Nats-", "\\u004eats-")
}

/// A dedup id as the server compares it: it strips spaces, and our own ids begin with `storage:`.
fn dedup_id(id: &str) -> String {
    let plain = id.bytes().all(|b| matches!(b, b'!'..=b'~')) && !id.starts_with("storage:") && !id.contains("Nats-");
    if plain {
        id.to_owned()
    } else {
        format!("storage:id:{}", percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(message: NewMessage) -> Stored {
        let headers = encode(&message, true);
        for (name, values) in headers.iter() {
            for value in values {
                assert!(value.as_str().bytes().all(|b| matches!(b, b' '..=b'~')), "{name:?}: {}", value.as_str());
            }
        }
        decode(Some(&headers), message.body, 7, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn what_was_sent_comes_back() {
        let message = NewMessage::new("x")
            .attribute("tenant", "acme")
            .attribute("ünï", "a\u{1F600}\u{7f}\n")
            .attribute("Nats-Msg-Id", "not the server's")
            .attribute("innocent", "Nats-Msg-Id: x")
            .attribute("Storage-Id", "9")
            .attribute("content-type", "an attribute")
            .attribute("spaces", " x ")
            .attribute("empty", "")
            .content_type("text/x; charset=\"ü\"")
            .ttl(Duration::from_micros(1_500_001))
            .delay(Duration::from_millis(7));
        let stored = round_trip(message.clone());
        assert_eq!(stored.attributes, message.attributes);
        assert_eq!(stored.content_type, message.content_type);
        assert_eq!((stored.id.as_str(), stored.ttl, stored.delay), ("7", message.ttl, message.delay));
        assert_eq!(stored.due_at(), DateTime::UNIX_EPOCH + message.delay);
        assert!(stored.is_expired(DateTime::UNIX_EPOCH + Duration::from_secs(2)) && !stored.is_expired(DateTime::UNIX_EPOCH));
    }

    #[test]
    fn a_moved_message_stays_what_it_is() {
        let mut stored = round_trip(NewMessage::new("x").attribute("a", "b").ttl(Duration::from_secs(5)));
        stored.attributes.insert("storage-dead-reason".into(), "no 'ü'".into());
        let again = decode(Some(&stored.moved(Some("storage:dead:7"))), stored.body.clone(), 99, Utc::now());
        assert_eq!(again, stored);
    }

    #[test]
    fn foreign_headers_are_attributes() {
        let mut headers = HeaderMap::new();
        headers.insert("Trace", "1");
        headers.insert("x/y$", "2");
        headers.insert("Nats-Msg-Id", "x");
        headers.insert("Content-Type", "text/plain");
        let stored = decode(Some(&headers), Bytes::new(), 1, DateTime::UNIX_EPOCH);
        assert_eq!(stored.attributes, [("Trace", "1"), ("x/y$", "2")].map(|(n, v)| (n.to_owned(), v.to_owned())).into());
        let moved = decode(Some(&stored.moved(None)), Bytes::new(), 2, DateTime::UNIX_EPOCH);
        assert_eq!(moved.attributes, stored.attributes, "also where it went");
        assert_eq!(stored.content_type.as_deref(), Some("text/plain"));
        assert_eq!(decode(None, Bytes::new(), 1, DateTime::UNIX_EPOCH).id, "1");
    }

    #[test]
    fn dedup_ids_differ_where_they_should() {
        let ids = ["x", "X", "x ", " x", "%", "storage:id:x", "ü", "x y", "Nats-Msg-Id"].map(dedup_id);
        let different: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
        assert!(ids.iter().all(|id| id.bytes().all(|b| matches!(b, b'!'..=b'~')) && !id.contains("Nats-")));
    }
}
