//! Messages, leases and what is known of a queue.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The highest priority.
pub const MAX_PRIORITY: u8 = 9;
/// How many messages one call sends or receives at most.
pub const MAX_MESSAGES: u32 = 10_000;
/// The longest delay, visibility, time to live and dedup window: 366 days.
pub const MAX_DURATION: Duration = Duration::from_secs(366 * 86_400);
/// The longest a single `receive` waits.
pub const MAX_WAIT: Duration = Duration::from_secs(3600);
/// The longest attribute name or dedup id, in bytes.
pub const MAX_ATTRIBUTE_NAME: usize = 255;
/// The most that all attributes of a message hold together, in bytes.
pub const MAX_ATTRIBUTES: usize = 64 * 1024;
/// Attribute names that begin so are set by the toolkit alone.
pub const RESERVED_ATTRIBUTE_PREFIX: &str = "storage-";

/// Attributes of a dead letter.
pub mod dead {
    /// Why the message is dead: [`MAX_DELIVERIES`], [`EXPIRED`], or what the consumer that rejected it said.
    pub const REASON: &str = "storage-dead-reason";
    /// The queue it was in.
    pub const SOURCE: &str = "storage-dead-source";
    /// How often it had been delivered.
    pub const DELIVERIES: &str = "storage-dead-deliveries";
    /// When it was moved, in RFC 3339.
    pub const AT: &str = "storage-dead-at";
    /// Reason: it was delivered as often as its queue allows.
    pub const MAX_DELIVERIES: &str = "max-deliveries";
    /// Reason: its time to live ran out.
    pub const EXPIRED: &str = "expired";
}

/// Names and values beside a message's body.
pub type Attributes = BTreeMap<String, String>;

/// A message's id, unique within its queue; it stays the same when the message is dead-lettered and redriven.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(pub String);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The proof of a lease: good until the message is received again or updated, which makes a new one.
///
/// Plain text, so that another process can finish what this one received (where the backend declares
/// [`receipts_across_processes`](crate::QueueCapabilities::receipts_across_processes)).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Receipt(pub String);

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message to send.
///
/// ```
/// use std::time::Duration;
/// use storage_core::NewMessage;
/// let message = NewMessage::new("hello")
///     .attribute("tenant", "acme")
///     .delay(Duration::from_secs(5))
///     .priority(9);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewMessage {
    /// Any bytes.
    pub body: Bytes,
    /// Names and values beside the body.
    pub attributes: Attributes,
    /// The body's media type.
    pub content_type: Option<String>,
    /// How long it stays out of sight first.
    pub delay: Duration,
    /// How long it is good for, counted from the sending. Then it is a dead letter (`expired`); one that a consumer has at that time stays the consumer's
    /// until its lease ends.
    pub ttl: Option<Duration>,
    /// 0 to [`MAX_PRIORITY`]; higher ones are received first.
    pub priority: u8,
    /// A second message with the same id within the queue's dedup window is not sent; its sender gets the first one's id.
    pub dedup_id: Option<String>,
}

impl NewMessage {
    /// A message with that body and nothing else.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// A message whose body is `value` as JSON.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where it can't be written as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        let mut message = Self::new(serde_json::to_vec(value)?);
        message.content_type = Some("application/json".into());
        Ok(message)
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// Sets the content type.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Sets the delay.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sets the time to live.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets the priority.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the dedup id.
    #[must_use]
    pub fn dedup_id(mut self, id: impl Into<String>) -> Self {
        self.dedup_id = Some(id.into());
        self
    }

    /// Checks everything but the body's size, which is the backend's to limit.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput).
    pub fn check(&self) -> Result<()> {
        if self.priority > MAX_PRIORITY {
            return Err(Error::invalid(format!("priority {} is out of range: 0 to {MAX_PRIORITY}", self.priority)));
        }
        check_duration("delay", self.delay)?;
        if let Some(ttl) = self.ttl {
            check_duration("time to live", ttl)?;
            if ttl.is_zero() {
                return Err(Error::invalid("a time to live of zero: the message would be dead before it is sent"));
            }
            if ttl <= self.delay && !self.delay.is_zero() {
                return Err(Error::invalid("the time to live is not longer than the delay: the message would never be seen"));
            }
        }
        if let Some(id) = &self.dedup_id {
            check_line("dedup id", id)?;
        }
        if let Some(content_type) = &self.content_type {
            check_line("content type", content_type)?;
        }
        check_attributes(&self.attributes)
    }
}

fn check_line(what: &str, text: &str) -> Result<()> {
    if text.is_empty() || text.len() > MAX_ATTRIBUTE_NAME || text.chars().any(char::is_control) {
        return Err(Error::invalid(format!("the {what} needs 1 to {MAX_ATTRIBUTE_NAME} bytes without control characters")));
    }
    Ok(())
}

fn check_attributes(attributes: &Attributes) -> Result<()> {
    let mut total = 0;
    for (name, value) in attributes {
        check_line("attribute name", name)?;
        if name.starts_with(RESERVED_ATTRIBUTE_PREFIX) {
            return Err(Error::invalid(format!(
                "attribute `{name}`: names beginning with `{RESERVED_ATTRIBUTE_PREFIX}` are reserved"
            )));
        }
        if value.contains('\0') {
            return Err(Error::invalid(format!("the value of attribute `{name}` holds the character U+0000")));
        }
        total += name.len() + value.len();
    }
    if total > MAX_ATTRIBUTES {
        return Err(Error::invalid(format!(
            "the attributes hold {total} bytes, {MAX_ATTRIBUTES} at most: put data into the body"
        )));
    }
    Ok(())
}

/// Checks a duration against [`MAX_DURATION`].
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput).
pub fn check_duration(what: &str, duration: Duration) -> Result<()> {
    if duration > MAX_DURATION {
        return Err(Error::invalid(format!("the {what} of {duration:?} is too long: 366 days at most")));
    }
    Ok(())
}

/// The answer to a sent message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The message's id, or the first message's where this one is a duplicate.
    pub id: MessageId,
    /// True where a message with the same dedup id was there before.
    pub duplicate: bool,
}

/// A message in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Its body.
    pub body: Bytes,
    /// Its attributes.
    pub attributes: Attributes,
    /// The body's media type.
    pub content_type: Option<String>,
    /// Its priority.
    pub priority: u8,
    /// How often it has been delivered, this delivery included.
    pub deliveries: u32,
    /// When it was sent.
    pub enqueued_at: DateTime<Utc>,
    /// When it becomes a dead letter.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Message {
    /// The body as `T`, read from JSON.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where it is not that.
    pub fn json<T: for<'de> Deserialize<'de>>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .map_err(|e| Error::invalid(format!("the body of message {} is not what was expected: {e}", self.id)).with_source(e))
    }
}

/// A leased message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// The proof of the lease.
    pub receipt: Receipt,
    /// When the lease ends, by the backend's clock.
    pub leased_until: DateTime<Utc>,
}

/// What to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receive {
    /// How many messages at most, 1 to [`MAX_MESSAGES`].
    pub max: u32,
    /// How long they are leased.
    pub visibility: Duration,
    /// How long to wait for the first one. Zero: not at all.
    pub wait: Duration,
}

impl Default for Receive {
    /// One message, leased for 30 seconds, without waiting.
    fn default() -> Self {
        Self { max: 1, visibility: Duration::from_secs(30), wait: Duration::ZERO }
    }
}

impl Receive {
    /// Up to `max` messages.
    #[must_use]
    pub fn up_to(max: u32) -> Self {
        Self { max, ..Self::default() }
    }

    /// Sets the visibility.
    #[must_use]
    pub fn visibility(mut self, visibility: Duration) -> Self {
        self.visibility = visibility;
        self
    }

    /// Sets the wait.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput).
    pub fn check(&self) -> Result<()> {
        if self.max == 0 || self.max > MAX_MESSAGES {
            return Err(Error::invalid(format!("receive 1 to {MAX_MESSAGES} messages at a time, not {}", self.max)));
        }
        if self.visibility.is_zero() {
            return Err(Error::invalid(
                "a visibility of zero: somebody else would receive the message at once; peek looks without taking",
            ));
        }
        if self.wait > MAX_WAIT {
            return Err(Error::invalid(format!("a wait of {:?} is too long: one hour at most", self.wait)));
        }
        check_duration("visibility", self.visibility)
    }
}

/// What to change of a leased message. What is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageUpdate {
    /// The lease ends so long from now; zero gives the message back at once.
    pub visibility: Option<Duration>,
    /// A new body.
    pub body: Option<Bytes>,
    /// New attributes, instead of all that were there.
    pub attributes: Option<Attributes>,
}

impl MessageUpdate {
    /// Makes the lease end so long from now.
    #[must_use]
    pub fn visibility(visibility: Duration) -> Self {
        Self { visibility: Some(visibility), ..Self::default() }
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Checks everything but the body's size.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput).
    pub fn check(&self) -> Result<()> {
        check_duration("visibility", self.visibility.unwrap_or_default())?;
        self.attributes.as_ref().map_or(Ok(()), check_attributes)
    }
}

/// How a queue behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSpec {
    /// After so many deliveries without a delete a message is a dead letter. `None`: never.
    pub max_deliveries: Option<u32>,
    /// How long a dedup id is remembered, counted from the first message.
    pub dedup_window: Duration,
}

impl Default for QueueSpec {
    /// 10 deliveries, 5 minutes.
    fn default() -> Self {
        Self { max_deliveries: Some(10), dedup_window: Duration::from_secs(300) }
    }
}

impl QueueSpec {
    /// Sets the delivery cap.
    #[must_use]
    pub fn max_deliveries(mut self, max: impl Into<Option<u32>>) -> Self {
        self.max_deliveries = max.into();
        self
    }

    /// Sets the dedup window.
    #[must_use]
    pub fn dedup_window(mut self, window: Duration) -> Self {
        self.dedup_window = window;
        self
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput).
    pub fn check(&self) -> Result<()> {
        if self.max_deliveries == Some(0) {
            return Err(Error::invalid("a queue that delivers nothing: max_deliveries is 1 or more, or none for no cap"));
        }
        check_duration("dedup window", self.dedup_window)
    }
}

/// A number of messages, and how far it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Count {
    /// Counted.
    Exact(u64),
    /// The service's own estimate.
    Estimate(u64),
    /// The service does not say.
    Unknown,
}

impl Count {
    /// The number, where there is one.
    #[must_use]
    pub const fn value(self) -> Option<u64> {
        match self {
            Self::Exact(n) | Self::Estimate(n) => Some(n),
            Self::Unknown => None,
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(n) => write!(f, "{n}"),
            Self::Estimate(n) => write!(f, "~{n}"),
            Self::Unknown => f.write_str("?"),
        }
    }
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    /// Messages that a receive would get now.
    pub ready: Count,
    /// Messages sent with a delay that is not over.
    pub delayed: Count,
    /// Messages with a consumer, or given back with a delay that is not over.
    pub leased: Count,
    /// Dead letters.
    pub dead: Count,
    /// When the oldest message that is not dead was sent.
    pub oldest: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_checked() {
        assert!(NewMessage::new("x").check().is_ok());
        for bad in [
            NewMessage::new("x").priority(10),
            NewMessage::new("x").ttl(Duration::ZERO),
            NewMessage::new("x").delay(Duration::from_secs(2)).ttl(Duration::from_secs(1)),
            NewMessage::new("x").delay(MAX_DURATION * 2),
            NewMessage::new("x").dedup_id(""),
            NewMessage::new("x").attribute("storage-dead-reason", "faked"),
            NewMessage::new("x").attribute("a", "x".repeat(MAX_ATTRIBUTES)),
        ] {
            assert_eq!(bad.check().unwrap_err().kind(), crate::ErrorKind::InvalidInput, "{bad:?}");
        }
        assert!(Receive::up_to(0).check().is_err());
        assert!(Receive::default().visibility(Duration::ZERO).check().is_err());
        assert!(QueueSpec::default().max_deliveries(0).check().is_err());
    }
}
